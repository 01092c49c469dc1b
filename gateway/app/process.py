"""One gateway process: made from settings, served, drained."""

import asyncio
import logging
import os
import random
import socket
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from gateway.api.secrets.master_key import MasterKeyError
from gateway.app.credentials import CredentialChecker, jwt_options
from gateway.app.object_parts import ObjectParts
from gateway.app.options import (
    attach_limits,
    collection_bounds,
    edge_limits,
    sources,
    store_options,
    websocket_limits,
)
from gateway.app.request_parts import SETTLE_S, RequestParts
from gateway.app.tls import serve_tls
from gateway.attach.channels import WorkerChannels
from gateway.attach.endpoint import AttachEndpoint
from gateway.dispatch.api_proxy import ApiProxy, connect_tcp
from gateway.dispatch.direct_calls import TELL_S, DirectCalls
from gateway.dispatch.dispatcher import Dispatcher, Gates
from gateway.dispatch.endpoints import (
    AdminDispatcher,
    AttachDispatcher,
    PathEndpoints,
    StartingDispatcher,
)
from gateway.dispatch.heartbeats import TakeHeartbeat
from gateway.dispatch.large_responses import LargeResponses
from gateway.dispatch.locator import RequestLocator
from gateway.dispatch.polling import PollingPorts, PollingRoutes
from gateway.dispatch.rate_limits import RateLimits
from gateway.dispatch.refusals import Refusals
from gateway.dispatch.registry import InvocationRegistry
from gateway.dispatch.spool import SpoolFiles
from gateway.domain.cors import PagePolicy
from gateway.domain.rate_limit import MAX_PERIOD_S
from gateway.domain.readmodel import ReadModel
from gateway.invocation.collection import UploadSpace
from gateway.invocation.context import Context
from gateway.provision.backend import ProvisioningError
from gateway.provision.undeploy_notices import UndeployNotices, fail_waiting
from gateway.provision.wake_requests import WakePublisher
from gateway.requests.endpoint import Access
from gateway.requests.regions import Regions
from gateway.routing.admission import Admission
from gateway.routing.call_head import call_head_reader
from gateway.routing.cross_origin import CrossOrigin
from gateway.routing.references import FunctionNames
from gateway.routing.router import Router
from gateway.settings import AttachSettings, GatewaySettings
from gateway.store.open import make_store
from gateway.store.records import Store
from gateway.store.watcher import Watcher
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.health import ProcessHealth
from gateway.telemetry.metrics import GatewayMetrics
from http1.client.pool import Connect
from http1.framed import FramedConnection
from http1.server.limits import ServerLimits
from http1.server.listener import (
    Listener,
    ListenError,
    bind_sockets,
    claim,
    listen,
    name_of,
)
from http1.stream import Dispatch, Request
from http2.server.protocol import Http2Protocol
from queueing.interface import CredentialsError
from queueing.open import broker_name, open_gateway_broker
from runtime import garbage, logs
from runtime.events import emit
from runtime.ids import new_uuid
from runtime.lifecycle import EXIT_UNUSABLE, Lifecycle, Ticker
from runtime.loop_turns import LoopTurns
from runtime.metrics import MetricRegistry
from runtime.settings import Address
from runtime.tasks import spawn
from runtime.version import emit_starting, show_version
from wire.ids import MAX_PROCESSES, uuid4_text

if TYPE_CHECKING:
    from gateway.app.control_plane import ControlPlane

TICK_S = 0.1
RATES_TICK_S = 1.0
STARTING_S = 2.0
"""How long new connections to a process that shares no port wait for the store to be read; after
that they get 503."""
ATTACH_CLOSE_S = 1.0
"""The most time for workers' connections to close when no invocation is left."""
_ADMIN_CONNECTIONS = 256

_log = logging.getLogger("gateway.process")


class GatewayProcess:
    """All parts of one process. `serve` runs it to its end."""

    def __init__(
        self,
        settings: GatewaySettings,
        index: int,
        sockets: list[socket.socket],
        *,
        shares_addresses: bool,
    ) -> None:
        """``index`` is the number of the process among those of one gateway, from 0.

        ``sockets`` are those of the clients' addresses, with TLS first; if other processes share
        the addresses, this one accepts nothing before it is ready.

        Raises `gateway.api.secrets.master_key.MasterKeyError` and
        `queueing.interface.CredentialsError`.
        """
        self._settings = settings
        self._index = index
        self._registry = MetricRegistry()
        self._health = ProcessHealth()
        self._metrics = GatewayMetrics(self._registry)
        self._lines = logs.LineWriter(
            sys.stdout.fileno(), render=None if settings.log.format == "json" else logs.as_text
        )
        self._number = int.from_bytes(os.urandom(2)) % MAX_PROCESSES
        control = settings.control
        self._broker = open_gateway_broker(
            settings,
            self._number,
            self._registry,
            control.redis_urls if settings.queue.backend == "redis" else control.nats_urls,
        )
        self._queue = self._broker.queue
        self._model = ReadModel()
        self._cross_origin = CrossOrigin(
            self._model, PagePolicy(frozenset(settings.edge.cors_origins))
        )
        self._store = make_store(
            store_options(settings), settings.store.bucket_prefix, settings.store.replicas
        )
        self._attach = AttachEndpoint(time.monotonic)
        access = AccessLog(self._lines, time.time) if settings.log.access else None
        wake = WakePublisher(self._broker.bus, time.monotonic).publish
        self._invocations = InvocationRegistry(
            self._attach,
            self._queue,
            self._metrics,
            access,
            time.monotonic,
            wake,
            self._broker.poll_worker,
        )
        self._channels = self._make_channels()
        self._direct = self._make_direct()
        self._rates = RateLimits(self._store.shared_numbers(2 * MAX_PERIOD_S), time.time_ns)
        self._spool = SpoolFiles(settings.upload.spool_folder)
        self._uploads = UploadSpace(collection_bounds(settings.upload), self._spool.open)
        regions = Regions(self._broker.bus, settings.queue.region, settings.queue.other_regions)
        self._requests = RequestLocator(
            self._invocations.live,
            self._queue,
            self._broker.bus,
            regions,
            self._number,
        )
        self._objects = ObjectParts(settings, self._store)
        self._detached = RequestParts(
            settings,
            self._store,
            self._objects.store,
            self._spool,
            self._broker.bus,
            regions,
            self._number,
            self._registry,
        )
        self._control = self._make_control(self._store, index, sockets)
        if self._control is not None:
            self._watcher = self._control.watcher
            self._credentials = self._control.credentials
        else:
            self._watcher = Watcher(self._store, self._model)
            self._credentials = CredentialChecker(
                self._store, self._model, jwt_options(settings.jwt)
            )
        self._admission = Admission(
            self._credentials.authenticate,
            Router(self._model, random.random),
            FunctionNames(self._model) if "invocation" in settings.roles else None,
        )
        self._refusals = Refusals(self._metrics, access, self._admission.key_id_of)
        self._sockets, self._shares_addresses = sockets, shares_addresses
        self._is_draining = False
        self._show_state()
        self._show_health()

    def _make_channels(self) -> WorkerChannels:
        """Return the channels, which workers may open if calls may be sent over them."""
        loop = asyncio.get_running_loop()
        channels = WorkerChannels(
            self._attach.live,
            self._queue,
            time.monotonic,
            os.urandom(32),
            lambda: uuid4_text(os.urandom(16)),
            lambda user: FramedConnection(user, loop),
        )
        if self._settings.queue.direct:
            self._attach.channels = channels
        return channels

    def _make_direct(self) -> DirectCalls:
        """Return what counts the calls on channels, and let it be asked."""
        direct = DirectCalls(
            self._broker.bus,
            self._settings.queue.region,
            new_uuid(),
            self._channels.running,
            time.monotonic,
            self._settings.queue.other_regions,
        )
        self._invocations.lines.count_direct(direct.count)
        return direct

    def _show_state(self) -> None:
        """Declare the metrics that are read from the process's parts at each scrape."""
        metrics, registry = self._metrics, self._registry
        self._turns = LoopTurns()
        show_version(registry, "gateway")
        metrics.watch_uploads(self._uploads)
        metrics.watch_detached(self._detached.book)
        metrics.watch_keyed(self._detached.keyed.decisions)
        metrics.watch_queue(self._queue)
        metrics.watch_dispatch(self._channels, lambda: self._invocations.queued)
        metrics.watch_websockets(self._invocations.live.values)
        metrics.watch_log(self._lines)
        metrics.watch_turns(self._turns)
        if self._control is not None:
            self._control.show_state(registry)

    def _show_health(self) -> None:
        """Declare what a process needs to be ready."""
        disconnected = f"{broker_name(self._settings)} is not connected"
        self._health.add(lambda: "" if self._broker.is_connected() else disconnected)
        self._health.add(lambda: "" if self._watcher.loaded.is_set() else "the store is not read")
        self._health.add(lambda: "draining" if self._is_draining else "")

    def _make_control(
        self, store: Store, index: int, sockets: list[socket.socket]
    ) -> "ControlPlane | None":
        if {"api", "provision"}.isdisjoint(self._settings.roles):
            return None
        # Imported here: it takes 15 MiB, which a process that serves invocations only saves.
        from gateway.app import control_plane  # noqa: PLC0415

        process = control_plane.Process(
            self._broker,
            self._requests,
            _url_of(sockets[len(self._settings.tls.listen) :]),
            self._direct.count_everywhere,
            self._objects.assets,
            self._objects.large_responses,
        )
        return control_plane.ControlPlane(
            self._settings, store, self._model, process, is_first=index == 0
        )

    async def serve(self, lifecycle: Lifecycle) -> None:
        """Serve until the stop signal, then drain. Raises `ListenError` and `MasterKeyError`."""
        async with AsyncExitStack() as stack:
            stack.callback(self._spool.close)
            admin = await self._listen_admin(stack)
            self._broker.start()
            stack.push_async_callback(self._broker.close)
            await self._open_store(stack)
            await self._objects.open(stack)
            public: Listener | None = None
            if not self._shares_addresses:
                await self._wait_usable(lifecycle, STARTING_S)
                starting = StartingDispatcher(self._health, self._cross_origin)
                public = await self._listen_public(stack, starting)
            await self._wait_usable(lifecycle)
            if lifecycle.stopping.is_set():
                return
            await self._queue.start()
            stack.push_async_callback(self._queue.close)
            attach, target_uri = await self._listen_attach(stack)
            self._detached.open(stack, target_uri)
            for tick in (self._invocations.tick, self._channels.tick):
                ticker = Ticker(TICK_S, tick, measures_silence=True)
                ticker.start()
                stack.callback(ticker.stop)
            stack.callback(self._channels.close)
            self._open_direct(stack)
            rates = Ticker(RATES_TICK_S, self._rates.tick)
            rates.start()
            stack.callback(rates.stop)
            stack.callback(self._lines.close)
            api = await self._open_control(stack, target_uri)
            dispatcher = self._dispatcher(target_uri, api)
            garbage.settle()
            # Now: the turns of the start, which nobody waits for, are not of interest.
            self._turns.start()
            stack.callback(self._turns.stop)
            if public is None:
                # Not before: the kernel spreads connections over the processes that listen.
                public = await self._listen_public(stack, dispatcher)
            else:
                public.serve(dispatcher)
            emit(
                _log,
                "gateway.ready",
                listen=public.addresses,
                attach=target_uri,
                admin=admin.addresses[0],
                process=f"{self._number:04x}",
                functions=self._model.function_count,
            )
            await lifecycle.stopping.wait()
            await self._drain(public, attach)

    def _open_direct(self, stack: AsyncExitStack) -> None:
        """Tell other processes of the calls on channels, and listen to them."""
        self._direct.start()
        stack.callback(self._direct.close)
        ticker = Ticker(TELL_S, self._direct.tick)
        ticker.start()
        stack.callback(ticker.stop)

    async def _wait_usable(self, lifecycle: Lifecycle, timeout_s: float | None = None) -> None:
        """Wait for store and queue, for the stop signal, or at most ``timeout_s``."""
        waits = [spawn(self._usable(), "usable"), spawn(lifecycle.stopping.wait(), "stopping")]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _usable(self) -> None:
        await self._watcher.loaded.wait()
        await self._credentials.meta.loaded.wait()
        await self._broker.wait_connected()

    async def _open_control(self, stack: AsyncExitStack, target_uri: str) -> ApiProxy | None:
        """Return what serves the API on the public listeners, `None` without an API.

        Workers reach this process at ``target_uri``.
        """
        live = self._invocations.live.values()
        undeployed = UndeployNotices(
            self._broker.bus, lambda version_id: fail_waiting(live, self._queue, version_id)
        )
        stack.callback(undeployed.close)
        self._requests.start()
        stack.callback(self._requests.close)
        connect: Connect | None = None
        take: TakeHeartbeat | None = None
        if self._control is not None:
            await self._control.begin(stack)
            if "api" in self._settings.roles:
                connect, take = await self._control.open_api(stack, target_uri)
            await self._control.keep_instances(stack)
        elif self._settings.control.api_url:
            connect = connect_tcp(self._settings.control.api_url)
        if connect is None:
            return None
        return ApiProxy(connect, self._refusals.responded, take)

    async def _open_store(self, stack: AsyncExitStack) -> None:
        self._watcher.start()
        self._credentials.start()
        stack.push_async_callback(self._store.close)
        stack.push_async_callback(self._watcher.stop)
        stack.push_async_callback(self._credentials.stop)
        opening = spawn(self._store.open(), "store.open")
        stack.callback(opening.cancel)

    def _dispatcher(self, target_uri: str, api: ApiProxy | None) -> Dispatcher:
        settings = self._settings
        context = Context(
            queue=self._queue,
            channels=self._attach.channels,
            registry=self._invocations,
            region=settings.queue.region.encode(),
            attach_uri=target_uri.encode(),
            process=self._number,
            uploads=self._uploads,
            max_body_bytes=settings.edge.max_body_bytes,
            websockets=websocket_limits(settings.websocket),
            clock=time.monotonic,
        )
        access = Access(self._admission.authenticate, self._model, self._cross_origin)
        requests = self._detached.endpoint(
            access, self._queue, self._invocations, self._refusals.request_served
        )

        find_assets = partial(self._objects.find_assets, target_uri)

        def polling(ports: PollingPorts) -> PollingRoutes:
            return self._detached.polling(access, find_assets, ports)

        is_invoked = "invocation" in settings.roles
        suffix = settings.edge.host_suffix.strip(".").lower()
        read_head = call_head_reader(f".{suffix}".encode() if suffix else b"")
        return Dispatcher(
            context,
            self._invocations,
            read_head if is_invoked else _no_function,
            Gates(self._admission, self._rates),
            PathEndpoints(
                self._attach,
                self._health,
                self._metrics,
                self._cross_origin,
                requests,
                api,
                self._objects.endpoint(self._refusals.responded),
            ),
            self._refusals,
            sources(settings.edge),
            self._detached.book,
            self._detached.keyed,
            polling if is_invoked else None,
            find_assets,
        )

    async def _listen_public(self, stack: AsyncExitStack, dispatch: Dispatch) -> Listener:
        limits = edge_limits(self._settings.edge)
        listener = await listen(
            claim(self._sockets),
            dispatch,
            limits,
            http2=Http2Protocol,
            secure=serve_tls(self._settings.tls, stack),
        )
        listener.watch_errors(self._refusals.invalid)
        stack.callback(listener.abort_all)
        return listener

    async def _listen_attach(self, stack: AsyncExitStack) -> tuple[Listener, str]:
        settings = self._settings.attach
        address = _nth(settings.listen, self._index)
        listener = await listen(
            bind_sockets([address], reuse_port=False),
            AttachDispatcher(
                self._attach,
                self._health,
                self._detached.forwarded,
                self._objects.endpoint(self._refusals.responded),
                LargeResponses(self._objects.large_responses),
            ),
            attach_limits(self._settings.attach),
        )
        stack.callback(listener.abort_all)
        return listener, attach_uri(settings, Address.parse(listener.addresses[0]))

    async def _listen_admin(self, stack: AsyncExitStack) -> Listener:
        listener = await listen(
            bind_sockets([_nth(self._settings.admin.listen, self._index)], reuse_port=False),
            AdminDispatcher(self._registry, self._health),
            ServerLimits(max_connections=_ADMIN_CONNECTIONS),
        )
        stack.callback(listener.abort_all)
        return listener

    async def _drain(self, public: Listener, attach: Listener) -> None:
        self._is_draining = True
        public.announce_end()
        drain = self._settings.drain
        emit(
            _log,
            "gateway.draining",
            invocations=len(self._invocations.live),
            grace_s=drain.grace_s,
            timeout_s=drain.timeout_s,
        )
        await asyncio.sleep(drain.grace_s)
        await public.finish_accepting()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + drain.timeout_s
        await public.drain(ends_at)
        await self._detached.book.wait_running(ends_at - loop.time())
        self._invocations.shut_down()
        await self._detached.book.wait_settled(SETTLE_S)
        await self._rates.close()
        attach.stop_accepting()
        # The responses to workers' POSTs: a worker that gets none delivers its response again.
        await attach.drain(asyncio.get_running_loop().time() + ATTACH_CLOSE_S)
        self._channels.close()
        emit(_log, "gateway.stopped")


async def serve(
    settings: GatewaySettings,
    index: int,
    sockets: list[socket.socket],
    lifecycle: Lifecycle,
    *,
    shares_addresses: bool,
) -> int:
    """Run one gateway process; return its exit code."""
    emit_starting(_log, "gateway.starting", index=index, roles=settings.roles)
    try:
        process = GatewayProcess(settings, index, sockets, shares_addresses=shares_addresses)
        await process.serve(lifecycle)
    except (ListenError, MasterKeyError, CredentialsError, ProvisioningError) as error:
        emit(_log, "gateway.cannot_start", logging.ERROR, error=str(error))
        return EXIT_UNUSABLE
    return 0


def _no_function(request: Request) -> None:
    """Route no request to a function: the process does not serve invocations."""


def _url_of(sockets: list[socket.socket]) -> str:
    """Return the URL of the process: its first TCP address, empty if it has none."""
    for listening in sockets:
        if listening.family != socket.AF_UNIX:
            return f"http://{name_of(listening)}"
    return ""


def attach_uri(settings: AttachSettings, bound: Address) -> str:
    """Return scheme and authority at which workers reach an attach listener.

    Raises `ListenError` for an address to which no worker can connect.
    """
    host = settings.advertise or bound.host
    if bound.is_unix or host in {"0.0.0.0", "::", ""}:  # noqa: S104
        raise ListenError(
            f"attach.advertise must be set: workers cannot connect to {settings.listen}"
        )
    return f"http://{Address(host=host, port=bound.port)}"


def _nth(address: Address, index: int) -> Address:
    if address.is_unix or address.port == 0:
        return address
    return Address(host=address.host, port=address.port + index)
