"""The agent process: made from settings, served, drained."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from http1.client.pool import Connect, Pool
from http2.client.pool import Http2Pool
from queueing.interface import OtherRegions, PullConsumer, WorkerBroker
from queueing.open import broker_name, open_worker_broker
from runtime import garbage
from runtime.events import emit
from runtime.lifecycle import Lifecycle, Ticker
from runtime.loop_turns import LoopTurns
from runtime.metrics import MetricRegistry
from runtime.settings import SettingsError
from runtime.tasks import spawn
from worker_agent.app.admin import Admin
from worker_agent.app.metrics import Metrics
from worker_agent.attach.channels import AgentChannels
from worker_agent.attach.gateways import AttachLimits, GatewayPool, connector, is_target
from worker_agent.compat.call import Compat
from worker_agent.heartbeat import Heartbeat
from worker_agent.inference.health import GrpcProbe, HttpProbe, Probe
from worker_agent.inference.liveness import Liveness
from worker_agent.inference.server import InferenceServer, RequestPool
from worker_agent.inference.watch import HealthWatch, WatchPorts
from worker_agent.job.request import PlatformHeaders
from worker_agent.registration import ConnectError, ConnectResult, Status
from worker_agent.runner import JobRunner
from worker_agent.settings import HealthSettings, InferenceSettings, WorkerSettings
from worker_agent.slots import Slots

if TYPE_CHECKING:
    from worker_agent.nvcf.membership import NvcfMembership

SWEEP_S = 0.5
EXIT_NOT_READY = 1
HTTP2_IDLE_S = 300.0
"""So long an HTTP/2 connection to the inference server is kept without a request. A server that
closes one says so before (RFC 9113 §6.8), so no request is lost."""
NOT_COUNTED = (
    "without control.url and control.token the gateway does not know this worker: "
    "it counts for no deployment, and calls of a version that is not deployed are refused"
)
_DELIVERING_PER_SLOT = 4
_MIN_DELIVERING = 256

_log = logging.getLogger("worker.agent")


class Agent:
    """All parts of the process. `serve` runs it to its end."""

    def __init__(
        self,
        settings: WorkerSettings,
        facts: Mapping[str, object] | None = None,
        registration_token: str = "",
    ) -> None:
        """``facts`` and ``registration_token`` are as in `worker_agent.heartbeat.Heartbeat`."""
        inference = settings.inference
        self._settings = settings
        host = inference_host(inference)
        health = settings.health
        self._probe = _probe(health, inference, host)
        self._is_draining = False
        function = settings.function
        self.metrics = Metrics(
            MetricRegistry(
                constant={"function_id": function.id, "function_version_id": function.version_id}
            ),
            asyncio.get_running_loop().time,
        )
        self._pool: RequestPool = (
            _http2_pool(inference, host, inference.port)
            if inference.protocol == "grpc"
            else _pool(inference, host, inference.port)
        )
        self._watch = HealthWatch(
            Liveness(health.interval_s, health.failures),
            self._probe,
            self._pool,
            WatchPorts(self.metrics.probed, self._server_changed, lambda: self.metrics.responses),
        )
        self._inference = InferenceServer(
            self._pool, self._watch, cancel_grace_s=inference.cancel_grace_s
        )
        loop = asyncio.get_running_loop()
        self._channels = AgentChannels(
            settings.function.version_id,
            settings.instance.id,
            lambda uri, factory: connector(uri, loop)(factory),
            connect_timeout_s=settings.attach.connect_timeout_s,
            vanished_s=settings.attach.vanished_s,
        )
        self._gateways = GatewayPool(
            AttachLimits(
                idle_s=settings.attach.idle_s,
                max_idle=settings.attach.max_idle,
                connect_timeout_s=settings.attach.connect_timeout_s,
                vanished_s=settings.attach.vanished_s,
            ),
            self._channels,
            settings.instance.id,
        )
        limit = inference.max_concurrency
        self._slots = Slots(limit, delivering_limit(limit))
        headers = platform_headers(settings)
        nvcf = nvcf_membership(settings, self._stop)
        self._compat = Compat(
            headers,
            is_attachable=is_target,
            max_asset_bytes=inference.max_asset_bytes,
            control_plane=None if nvcf is None else nvcf.objects,
        )
        self._runner = JobRunner(
            self._slots,
            headers,
            self.metrics,
            channels=self._channels,
            is_attachable=is_target,
            on_busy=self._report_busy,
            compat=self._compat,
        )
        self.metrics.watch_jobs(lambda: self._runner.running)
        self.metrics.watch_channels(self._channels)
        self._lifecycle: Lifecycle | None = None
        self._heartbeat: Heartbeat | NvcfMembership = nvcf or Heartbeat(
            settings,
            self.status,
            self._resize,
            self._stop,
            facts=facts,
            registration_token=registration_token,
        )
        if settings.control.url or nvcf is not None:
            self.metrics.watch_renewal(lambda: self._heartbeat.is_renewal_failing)
        self._reported_requests = 0.0
        self._is_reported_idle = False
        self._broker: WorkerBroker | None = None
        self._consumer: PullConsumer | None = None
        drain_token = settings.drain.token
        self._admin = Admin(
            self.metrics.registry,
            self.failures,
            drain_token.get_secret_value() if drain_token else "",
        )

    def failures(self) -> dict[str, str]:
        """Return the reasons why the agent takes no work, by component."""
        found = {}
        if self._watch.failure:
            found["inference"] = self._watch.failure
        if self._broker is None or not self._broker.is_connected():
            found[broker_name(self._settings).lower()] = "not connected"
        if self._is_draining:
            found["agent"] = "draining"
        return found

    def status(self) -> Status:
        """Return the content of the next heartbeat. Call it once per heartbeat."""
        requests = self.metrics.requests
        has_run, self._reported_requests = requests != self._reported_requests, requests
        busy = max(self._runner.busy, int(has_run))
        self._is_reported_idle = not busy
        return Status(
            healthy=self._watch.is_healthy and self._heartbeat.is_reachable,
            slots=self._slots.limit,
            busy=busy,
            stopping=self._is_draining,
        )

    async def serve(self, lifecycle: Lifecycle) -> int:
        """Serve until the stop signal, then drain; return the process's exit code."""
        settings = self._settings
        self._lifecycle = lifecycle
        async with AsyncExitStack() as stack:
            await self._admin.listen(settings.admin_address, lifecycle.stop)
            stack.callback(self._admin.close)
            stack.callback(self._admin.respond_to_drains)
            stack.callback(self._probe.close)
            needs_health = self._heartbeat.needs_health
            if needs_health and not await self._until_healthy(lifecycle):
                return 0 if lifecycle.stopping.is_set() else EXIT_NOT_READY
            try:
                response = await self._heartbeat.begin(stack, lifecycle)
            except ConnectError as error:
                emit(_log, "control.refused", logging.ERROR, reason=str(error))
                return EXIT_NOT_READY
            stack.callback(self._leave)
            if not needs_health and not await self._until_healthy(lifecycle):
                return 0 if lifecycle.stopping.is_set() else EXIT_NOT_READY
            broker = self._open_broker()
            stack.push_async_callback(broker.close)
            stack.callback(self._gateways.close)
            stack.callback(self._channels.close)
            stack.callback(self._pool.close)
            stack.push_async_callback(self._compat.close)
            self._start_pulling(stack, broker, response)
            stack.callback(self._runner.abandon_all)
            garbage.settle()
            turns = LoopTurns()
            self.metrics.watch_turns(turns)
            turns.start()
            stack.callback(turns.stop)
            emit(
                _log,
                "worker.ready",
                version_id=settings.function.version_id,
                inference=self._probe.authority,
                max_concurrency=self._slots.limit,
                admin_port=self._admin.port,
            )
            if not settings.control.url and not settings.nvcf.control_url:
                emit(_log, "worker.not_counted", logging.WARNING, reason=NOT_COUNTED)
            await lifecycle.stopping.wait()
            await self._drain()
        return 0

    def _open_broker(self) -> WorkerBroker:
        settings = self._settings
        broker = self._broker = open_worker_broker(
            settings,
            settings.function.version_id,
            settings.instance.id,
            self.metrics.registry,
            self._heartbeat.login,
        )
        self._heartbeat.follow(broker)
        broker.start()
        return broker

    def _start_pulling(
        self, stack: AsyncExitStack, broker: WorkerBroker, response: ConnectResult | None
    ) -> None:
        settings = self._settings
        runner = self._runner
        region, others = settings.queue.region, settings.queue.other_regions
        if response is not None:
            region, others = response.region, response.other_regions
        away = OtherRegions(others, partial(runner.on_lease, is_away=True)) if others else None
        consumer = self._consumer = broker.consumer(region, runner.on_lease, runner.on_cancel, away)
        self.metrics.watch_slots(self._slots)
        consumer.start()
        stack.push_async_callback(consumer.close)
        for ticker in (
            Ticker(settings.queue.progress_s, runner.tick),
            Ticker(SWEEP_S, self._sweep, measures_silence=True),
        ):
            ticker.start()
            stack.callback(ticker.stop)
        runner.open(self._inference, self._gateways, consumer)
        stack.callback(spawn(self._watch.run(), "worker.health").cancel)

    async def _until_healthy(self, lifecycle: Lifecycle) -> bool:
        """Probe until the first healthy response; return `False` if there is none in time."""
        health = self._settings.health
        deadline = asyncio.get_running_loop().time() + health.ready_timeout_s
        emit(_log, "inference.awaited", address=self._probe.authority, path=self._probe.what)
        stopping = spawn(lifecycle.stopping.wait(), "worker.stopping")
        reason = ""
        while not stopping.done():
            probe = spawn(self._watch.ask(), "worker.probe")
            await asyncio.wait({probe, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not probe.done():
                probe.cancel()
                break
            if probe.result():
                return True
            if self._watch.failure != reason:
                reason = self._watch.failure
                emit(_log, "inference.loading", reason=reason)
            if asyncio.get_running_loop().time() > deadline:
                emit(_log, "inference.not_ready", logging.ERROR, reason=self._watch.failure)
                return False
            await asyncio.wait({stopping}, timeout=health.start_interval_s)
        return False

    def _server_changed(self) -> None:
        """Pull while the inference server is up, and report its health at once."""
        if not self._is_draining:
            if self._watch.failure:
                self._runner.pause()
            else:
                self._runner.resume()
        self._heartbeat.changed()

    def _report_busy(self) -> None:
        """Send a heartbeat at once if the last one said idle: idle instances are stopped."""
        if self._is_reported_idle:
            self._is_reported_idle = False
            self._heartbeat.changed()

    def _resize(self, limit: int) -> None:
        """Process ``limit`` requests at a time from now on: the deployment was changed."""
        before = self._slots.limit
        if limit == before or self._is_draining:
            return
        self._runner.resize(limit, delivering_limit(limit))
        self._pool.resize(limit)
        emit(_log, "worker.resized", **{"from": before, "to": limit})
        self._heartbeat.changed()

    def _stop(self, reason: str) -> None:
        """Drain and exit: the platform does not want this instance any more."""
        if self._lifecycle is not None and not self._lifecycle.stopping.is_set():
            emit(_log, "worker.told_to_stop", reason=reason)
            self._lifecycle.stop()

    async def _drain(self) -> None:
        """Take no more requests, return those that have not begun, finish the rest."""
        self._leave()
        emit(_log, "worker.draining", running=self._runner.running)
        self._runner.pause()
        if self._consumer is not None:
            await self._consumer.drain()
        try:
            async with asyncio.timeout(self._settings.drain.timeout_s):
                await self._runner.wait_drained()
        except TimeoutError:
            emit(_log, "worker.drain_ended", logging.WARNING, running=self._runner.running)

    def _leave(self) -> None:
        self._is_draining = True
        self._heartbeat.changed()

    def _sweep(self) -> None:
        self._inference.sweep()
        self._gateways.sweep()
        self._channels.sweep()
        self._runner.sweep()


def nvcf_membership(
    settings: WorkerSettings, stop_requested: Callable[[str], None]
) -> "NvcfMembership | None":
    """Return what NVIDIA's control plane needs, `None` without one.

    Raises `SettingsError` if the agent was installed without it.
    """
    if not settings.nvcf.control_url:
        return None
    try:
        # Imported here: few agents need it, and grpcio takes 20 MiB.
        from worker_agent.nvcf.membership import NvcfMembership  # noqa: PLC0415
    except ImportError as error:
        needed = "needs grpcio: pip install invocation-gateway[nvidia-workers]"
        raise SettingsError([f"nvcf.control_url {needed}"]) from error
    return NvcfMembership(settings, stop_requested)


def delivering_limit(slots: int) -> int:
    """Return how many responses may be in delivery before no more requests are pulled."""
    return max(_MIN_DELIVERING, _DELIVERING_PER_SLOT * slots)


def inference_host(inference: InferenceSettings) -> str:
    """Return the inference server's host: the Kubernetes service if one is configured."""
    if inference.service_name and inference.service_namespace:
        return f"{inference.service_name}.{inference.service_namespace}.svc.cluster.local"
    return inference.host


def authority(host: str, port: int) -> str:
    """Return ``host:port`` as in a Host header."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def platform_headers(settings: WorkerSettings) -> PlatformHeaders:
    """Return the function's and instance's data for every request to the inference server."""
    function, instance, inference = settings.function, settings.instance, settings.inference
    backend = "GFN" if instance.backend == "NGN" else instance.backend
    return PlatformHeaders(
        authority(inference_host(inference), inference.port),
        [
            ("NVCF-FUNCTION-NAME", function.name),
            ("NVCF-FUNCTION-ID", function.id),
            ("NVCF-FUNCTION-VERSION-ID", function.version_id),
            ("NVCF-NSPECTID", instance.nspect_id),
            ("NVCF-BACKEND", backend),
            ("NVCF-INSTANCETYPE", instance.type),
            ("NVCF-REGION", instance.zone),
            ("NVCF-ENV", instance.environment),
        ],
        asset_dir=inference.asset_dir,
        large_output_dir=inference.large_output_dir,
        has_compat=not inference.compat_disabled,
    )


def _probe(health: HealthSettings, inference: InferenceSettings, host: str) -> Probe:
    port = health.port or inference.port
    address, is_apart = authority(host, port), port != inference.port
    if health.protocol == "grpc":
        pool = _http2_pool(inference, host, port)
        return GrpcProbe(pool, address, timeout_s=health.timeout_s, is_apart=is_apart)
    return HttpProbe(
        _pool(inference, host, port),
        address,
        health.path,
        expected_status=health.expected_status,
        timeout_s=health.timeout_s,
        is_apart=is_apart,
    )


def _connect_to(host: str, port: int) -> Connect:
    loop = asyncio.get_running_loop()
    return lambda factory: loop.create_connection(factory, host, port)


def _pool(inference: InferenceSettings, host: str, port: int) -> Pool:
    return Pool(
        _connect_to(host, port),
        idle_s=inference.idle_s,
        max_idle=inference.max_concurrency,
        connect_timeout_s=inference.connect_timeout_s,
    )


def _http2_pool(inference: InferenceSettings, host: str, port: int) -> Http2Pool:
    return Http2Pool(
        _connect_to(host, port),
        idle_s=HTTP2_IDLE_S,
        connect_timeout_s=inference.connect_timeout_s,
    )
