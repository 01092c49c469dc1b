"""The agent process: put together, served, drained."""

import asyncio
import base64
import gc
import json
import logging
from contextlib import AsyncExitStack
from dataclasses import replace

from pydantic import SecretStr

from http1.client.pool import Connect, Pool
from queueing.nats.connection import Connection as NatsConnection
from queueing.nats.consumer import PullOptions, PullWorker
from queueing.nats.login import ConnectionOptions, Login
from runtime.lifecycle import Lifecycle, Ticker
from runtime.metrics import Registry
from runtime.tasks import spawn
from wire.subjects import worker_inbox
from worker_agent.app.admin import Admin
from worker_agent.app.metrics import Metrics
from worker_agent.attach.gateways import AttachLimits, Gateways, is_target
from worker_agent.heartbeat import Presence
from worker_agent.inference.health import Probe, unhealthy
from worker_agent.inference.server import InferenceServer
from worker_agent.job.request import Identity
from worker_agent.registration import ConnectError, Status, Welcome
from worker_agent.runner import JobRunner
from worker_agent.settings import HealthSettings, InferenceSettings, WorkerSettings
from worker_agent.slots import Slots

SWEEP_S = 0.5
EXIT_NOT_READY = 1
_DELIVERING_PER_SLOT = 4
_MIN_DELIVERING = 256

_log = logging.getLogger("worker.agent")


class Agent:
    """Everything the process consists of. `serve` runs it to its end."""

    def __init__(self, settings: WorkerSettings) -> None:
        inference = settings.inference
        self._settings = settings
        host = inference_host(inference)
        health_port = settings.health.port or inference.port
        self._probe = Probe(
            authority(host, health_port),
            settings.health.path,
            settings.health.expected_status,
            settings.health.timeout_s,
        )
        self._inference_failure = "not asked yet"
        self._is_draining = False
        function = settings.function
        self.metrics = Metrics(
            Registry(
                constant={"function_id": function.id, "function_version_id": function.version_id}
            ),
            asyncio.get_running_loop().time,
        )
        self._pool = _pool(inference, host, inference.port)
        self._probe_pool = _pool(inference, host, health_port)
        self._gateways = Gateways(
            AttachLimits(
                idle_s=settings.attach.idle_s,
                max_idle=settings.attach.max_idle,
                connect_timeout_s=settings.attach.connect_timeout_s,
            )
        )
        limit = inference.max_concurrency
        self._slots = Slots(limit, delivering_limit(limit))
        self._intake = JobRunner(
            self._slots,
            identity(settings),
            self.metrics,
            is_attachable=is_target,
            on_busy=self._tell_busy,
        )
        self.metrics.watch_jobs(lambda: self._intake.running)
        self._presence = Presence(settings, self.status, self._resize)
        if settings.control.url:
            self.metrics.watch_renewal(lambda: self._presence.is_renewal_failing)
        self._told_requests = 0.0
        self._told_idle = False
        self._nats: NatsConnection | None = None
        self._puller: PullWorker | None = None
        self._admin = Admin(self.metrics.registry, self.failures)

    def failures(self) -> dict[str, str]:
        """Return what keeps the agent from taking work, by component."""
        found = {}
        if self._inference_failure:
            found["inference"] = self._inference_failure
        if self._nats is None or not self._nats.is_connected():
            found["nats"] = "not connected"
        if self._is_draining:
            found["agent"] = "draining"
        return found

    def status(self) -> Status:
        """Return what the platform is told. Asked for once a heartbeat."""
        requests = self.metrics.requests
        has_run, self._told_requests = requests != self._told_requests, requests
        busy = max(self._intake.running, int(has_run))
        self._told_idle = not busy
        return Status(
            healthy=not self._inference_failure and self._presence.is_reachable,
            slots=self._slots.limit,
            busy=busy,
            stopping=self._is_draining,
        )

    async def serve(self, lifecycle: Lifecycle) -> int:
        """Serve until told to stop, then drain; return the process's exit code."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            address = settings.admin.listen
            if settings.admin.port is not None:
                address = type(address)(address.host, settings.admin.port)
            await self._admin.listen(address)
            stack.push_async_callback(self._admin.close)
            stack.callback(self._probe_pool.close)
            try:
                welcome = await self._presence.begin(stack, lifecycle)
            except ConnectError as error:
                _log.error("control.refused", extra={"fields": {"reason": str(error)}})
                return EXIT_NOT_READY
            stack.callback(self._leave)
            if not await self._until_healthy(lifecycle):
                return 0 if lifecycle.stopping.is_set() else EXIT_NOT_READY
            nats = self._open_nats(welcome)
            stack.push_async_callback(nats.close)
            stack.callback(self._gateways.close)
            stack.callback(self._pool.close)
            self._start_pulling(stack, nats, welcome)
            stack.callback(self._intake.abandon_all)
            gc.collect()
            gc.freeze()
            _log.info(
                "worker.ready",
                extra={
                    "fields": {
                        "version_id": settings.function.version_id,
                        "inference": self._probe.authority,
                        "max_concurrency": self._slots.limit,
                        "admin_port": self._admin.port,
                    }
                },
            )
            await lifecycle.stopping.wait()
            await self._drain()
        return 0

    def _open_nats(self, welcome: Welcome | None) -> NatsConnection:
        settings = self._settings
        options = nats_options(settings)
        if welcome is not None and welcome.nats is not None:
            login = Login(credentials=self._presence.credentials)
            options = replace(options, servers=welcome.nats.urls, login=login)
        nats = self._nats = NatsConnection(options)
        self._presence.follow(nats)
        self.metrics.watch_nats(nats, options.servers)
        nats.start()
        return nats

    def _start_pulling(
        self, stack: AsyncExitStack, nats: NatsConnection, welcome: Welcome | None
    ) -> None:
        settings = self._settings
        intake = self._intake
        region = settings.queue.region if welcome is None else welcome.region
        pulls = PullOptions()
        if welcome is not None and welcome.nats is not None:
            pulls = PullOptions(api=welcome.nats.api)
        puller = self._puller = PullWorker(
            nats,
            region=region,
            version_id=settings.function.version_id,
            on_lease=intake.on_lease,
            on_cancel=intake.on_cancel,
            options=pulls,
        )
        slots = self._slots
        self.metrics.watch_queue(lambda: slots.limit, region, puller.is_bound)
        puller.start()
        stack.push_async_callback(puller.close)
        for ticker in (
            Ticker(settings.queue.progress_s, intake.tick),
            Ticker(SWEEP_S, self._sweep),
        ):
            ticker.start()
            stack.callback(ticker.stop)
        intake.open(InferenceServer(self._pool), self._gateways, puller)
        stack.callback(spawn(self._watch_health(settings.health), "worker.health").cancel)

    async def _until_healthy(self, lifecycle: Lifecycle) -> bool:
        """Probe until the first healthy answer; ``False`` when it does not come."""
        health = self._settings.health
        deadline = asyncio.get_running_loop().time() + health.ready_timeout_s
        _log.info(
            "inference.awaited",
            extra={"fields": {"address": self._probe.authority, "path": self._probe.path}},
        )
        stopping = spawn(lifecycle.stopping.wait(), "worker.stopping")
        while not stopping.done():
            probe = spawn(self._ask(), "worker.probe")
            await asyncio.wait({probe, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not probe.done():
                probe.cancel()
                break
            if probe.result():
                return True
            if asyncio.get_running_loop().time() > deadline:
                _log.error(
                    "inference.not_ready", extra={"fields": {"reason": self._inference_failure}}
                )
                return False
            await asyncio.wait({stopping}, timeout=health.start_interval_s)
        return False

    async def _watch_health(self, health: HealthSettings) -> None:
        was_healthy = True
        while True:
            await asyncio.sleep(health.interval_s)
            is_healthy = await self._ask()
            if is_healthy == was_healthy or self._is_draining:
                continue
            was_healthy = is_healthy
            if is_healthy:
                _log.info("inference.healthy")
                self._intake.resume()
            else:
                _log.warning(
                    "inference.unhealthy", extra={"fields": {"reason": self._inference_failure}}
                )
                self._intake.pause()

    async def _ask(self) -> bool:
        was_healthy = not self._inference_failure
        reason = self._inference_failure = await unhealthy(self._probe_pool, self._probe)
        self.metrics.probed(is_healthy=not reason)
        if was_healthy is not (not reason):
            self._presence.changed()
        return not reason

    def _tell_busy(self) -> None:
        """Say so at once if we are thought to be idle: idle instances are stopped."""
        if self._told_idle:
            self._told_idle = False
            self._presence.changed()

    def _resize(self, limit: int) -> None:
        """Take ``limit`` requests at a time from now on: the deployment was changed."""
        before = self._slots.limit
        if limit == before or self._is_draining:
            return
        self._intake.resize(limit, delivering_limit(limit))
        self._pool.resize(limit)
        _log.info("worker.resized", extra={"fields": {"from": before, "to": limit}})
        self._presence.changed()

    async def _drain(self) -> None:
        """Take no more work, give back what has not begun, finish the rest."""
        self._leave()
        _log.info("worker.draining", extra={"fields": {"running": self._intake.running}})
        self._intake.pause()
        if self._puller is not None:
            await self._puller.drain()
        try:
            async with asyncio.timeout(self._settings.drain.timeout_s):
                await self._intake.drained()
        except TimeoutError:
            _log.warning("worker.drain_ended", extra={"fields": {"running": self._intake.running}})

    def _leave(self) -> None:
        self._is_draining = True
        self._presence.changed()

    def _sweep(self) -> None:
        self._pool.sweep()
        self._gateways.sweep()


def delivering_limit(slots: int) -> int:
    """Return how many answers may be on their way before no more work is asked for."""
    return max(_MIN_DELIVERING, _DELIVERING_PER_SLOT * slots)


def inference_host(inference: InferenceSettings) -> str:
    """Return the inference server's host: the Kubernetes service if one is named."""
    if inference.service_name and inference.service_namespace:
        return f"{inference.service_name}.{inference.service_namespace}.svc.cluster.local"
    return inference.host


def authority(host: str, port: int) -> str:
    """Return ``host:port`` as in a Host header."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def identity(settings: WorkerSettings) -> Identity:
    """Return what every request to the inference server says of function and instance."""
    function, instance, inference = settings.function, settings.instance, settings.inference
    backend = "GFN" if instance.backend == "NGN" else instance.backend
    return Identity(
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
    )


def connection_name(settings: WorkerSettings) -> str:
    """Return the name that NATS shows (``spec/worker.md`` §1.5)."""
    return f"worker_{settings.function.version_id}_{settings.instance.id}"


def nats_options(settings: WorkerSettings) -> ConnectionOptions:
    """Return how to connect and log in to NATS."""
    nats = settings.nats
    token = _text(nats.token)
    if nats.worker_token is not None:
        token = callout_token(_text(nats.worker_token))
    login = Login(
        credentials_file=nats.credentials_file, nkey_seed=_text(nats.nkey_seed), token=token
    )
    return ConnectionOptions(
        servers=nats.urls,
        name=connection_name(settings),
        login=login,
        inbox_prefix=worker_inbox(settings.function.version_id, settings.instance.id),
    )


def callout_token(worker_token: str) -> str:
    """Return ``worker_token`` as NVCF's auth callout reads it (``spec/worker.md`` §1.5)."""
    document = {"account": "Worker", "pluginName": "webhook", "payload": worker_token}
    text = json.dumps(document, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""


def _pool(inference: InferenceSettings, host: str, port: int) -> Pool:
    loop = asyncio.get_running_loop()
    connect: Connect = lambda factory: loop.create_connection(factory, host, port)  # noqa: E731
    return Pool(
        connect,
        idle_s=inference.idle_s,
        max_idle=inference.max_concurrency,
        connect_timeout_s=inference.connect_timeout_s,
    )
