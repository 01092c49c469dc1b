"""One gateway process: put together, served, drained."""

import asyncio
import gc
import logging
import os
import random
import socket
import sys
import time
from contextlib import AsyncExitStack
from functools import partial

from gateway.app.desk import Desk
from gateway.app.dispatch import Dispatcher
from gateway.app.options import (
    attach_limits,
    data_options,
    edge_limits,
    store_options,
    stream_settings,
)
from gateway.app.paths import AdminDispatcher, AttachDispatcher, PathRoutes, StartingDispatcher
from gateway.app.workers import EXIT_UNUSABLE
from gateway.attach.endpoint import AttachEndpoint
from gateway.auth.keys import authenticate
from gateway.edge.limits import EdgeLimits
from gateway.edge.listener import Listener, ListenError, bind_sockets, listen
from gateway.functions.readmodel import ReadModel
from gateway.invocation.site import Site
from gateway.routing.router import Router
from gateway.routing.target import target_router
from gateway.seen.access import AccessLog
from gateway.seen.health import Health
from gateway.seen.metrics import GatewayMetrics, watch_nats
from gateway.settings import AttachSettings, GatewaySettings
from gateway.store.connection import Connection as StoreConnection
from gateway.store.nats_kv import Store
from gateway.store.watcher import Watcher
from queueing.nats.connection import Connection
from queueing.nats.queue import JetStreamQueue
from runtime import logs
from runtime.lifecycle import Lifecycle, Ticker
from runtime.metrics import Registry
from runtime.settings import Address
from runtime.tasks import spawn
from wire.ids import MAX_PROCESSES

TICK_S = 0.1
STARTING_S = 2.0
"""So long new connections wait for the store to be read; then they are answered 503 meanwhile."""
_ADMIN_CONNECTIONS = 256

_log = logging.getLogger("gateway.process")


class GatewayProcess:
    """Everything one process consists of. `serve` runs it to its end."""

    def __init__(self, settings: GatewaySettings, index: int) -> None:
        """``index`` is the process's place among its siblings, from 0."""
        self._settings = settings
        self._index = index
        self._registry = Registry()
        self._health = Health()
        self._metrics = GatewayMetrics(self._registry)
        self._lines = logs.LineWriter(sys.stdout.fileno())
        self._number = int.from_bytes(os.urandom(2)) % MAX_PROCESSES
        self._data = Connection(data_options(settings.nats))
        watch_nats(self._registry, self._data)
        self._queue = JetStreamQueue(
            self._data,
            region=settings.queue.region,
            process=self._number,
            streams=stream_settings(settings.queue),
        )
        self._model = ReadModel()
        self._store_connection = StoreConnection(store_options(settings.nats))
        self._watcher = Watcher(
            Store(self._store_connection, settings.store.bucket_prefix, settings.store.replicas),
            self._model,
        )
        self._attach = AttachEndpoint(time.monotonic)
        access = AccessLog(self._lines, time.time) if settings.log.access else None
        self._desk = Desk(self._attach, self._queue, self._metrics, access, time.monotonic)
        self._is_draining = False
        self._health.add(lambda: "" if self._data.is_connected() else "NATS is not connected")
        self._health.add(lambda: "" if self._watcher.loaded.is_set() else "the store is not read")
        self._health.add(lambda: "draining" if self._is_draining else "")

    async def serve(self, lifecycle: Lifecycle, sockets: list[socket.socket]) -> None:
        """Serve on ``sockets`` until told to stop, then drain. Raises `ListenError`."""
        async with AsyncExitStack() as stack:
            admin = await self._listen_admin(stack)
            self._data.start()
            stack.push_async_callback(self._data.close)
            await self._open_store(stack)
            await self._wait_usable(lifecycle, STARTING_S)
            public = await listen(
                sockets, StartingDispatcher(self._health), edge_limits(self._settings.edge)
            )
            stack.callback(public.abort_all)
            await self._wait_usable(lifecycle)
            if lifecycle.stopping.is_set():
                return
            await self._queue.start()
            stack.push_async_callback(self._queue.close)
            attach, target_uri = await self._listen_attach(stack)
            ticker = Ticker(TICK_S, self._desk.tick)
            ticker.start()
            stack.callback(ticker.stop)
            stack.callback(self._lines.close)
            public.serve(self._dispatcher(target_uri))
            self._settle()
            _log.info(
                "gateway.ready",
                extra={
                    "fields": {
                        "listen": public.addresses,
                        "attach": target_uri,
                        "admin": admin.addresses[0],
                        "process": f"{self._number:04x}",
                        "functions": self._model.function_count,
                    }
                },
            )
            await lifecycle.stopping.wait()
            await self._drain(public, attach)

    async def _wait_usable(self, lifecycle: Lifecycle, timeout_s: float | None = None) -> None:
        """Wait for store and queue, or until told to stop, or until ``timeout_s`` has passed."""
        waits = [spawn(self._usable(), "usable"), spawn(lifecycle.stopping.wait(), "stopping")]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _usable(self) -> None:
        await self._watcher.loaded.wait()
        await self._data.wait_connected()

    async def _open_store(self, stack: AsyncExitStack) -> None:
        self._watcher.start()
        stack.push_async_callback(self._store_connection.close)
        stack.push_async_callback(self._watcher.stop)
        opening = spawn(self._store_connection.open(), "store.open")
        stack.callback(opening.cancel)

    def _dispatcher(self, target_uri: str) -> Dispatcher:
        settings = self._settings
        site = Site(
            queue=self._queue,
            desk=self._desk,
            region=settings.queue.region.encode(),
            target_uri=target_uri.encode(),
            process=self._number,
            clock=time.monotonic,
            wall_ns=time.time_ns,
        )
        suffix = settings.edge.host_suffix.strip(".").lower()
        return Dispatcher(
            site,
            self._desk,
            target_router(f".{suffix}".encode() if suffix else b""),
            Router(self._model, partial(authenticate, self._model), random.random),
            PathRoutes(self._attach, self._health, self._metrics),
            self._metrics,
        )

    async def _listen_attach(self, stack: AsyncExitStack) -> tuple[Listener, str]:
        settings = self._settings.attach
        address = _nth(settings.listen, self._index)
        listener = await listen(
            bind_sockets([address], reuse_port=False),
            AttachDispatcher(self._attach, self._health),
            attach_limits(self._settings.attach),
        )
        stack.callback(listener.abort_all)
        return listener, attach_uri(settings, Address.parse(listener.addresses[0]))

    async def _listen_admin(self, stack: AsyncExitStack) -> Listener:
        listener = await listen(
            bind_sockets([_nth(self._settings.admin.listen, self._index)], reuse_port=False),
            AdminDispatcher(self._registry, self._health),
            EdgeLimits(max_connections=_ADMIN_CONNECTIONS),
        )
        stack.callback(listener.abort_all)
        return listener

    def _settle(self) -> None:
        """What is there now stays; what comes with requests rarely makes cycles."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)

    async def _drain(self, public: Listener, attach: Listener) -> None:
        self._is_draining = True
        public.stop_accepting()
        timeout_s = self._settings.drain.timeout_s
        deadline = asyncio.get_running_loop().time() + timeout_s
        _log.info(
            "gateway.draining",
            extra={"fields": {"invocations": len(self._desk.live), "timeout_s": timeout_s}},
        )
        await public.drain(deadline)
        self._desk.shut_down()
        attach.stop_accepting()
        _log.info("gateway.stopped")


async def serve(
    settings: GatewaySettings, index: int, sockets: list[socket.socket], lifecycle: Lifecycle
) -> int:
    """Run one gateway process; return its exit code."""
    try:
        await GatewayProcess(settings, index).serve(lifecycle, sockets)
    except ListenError as error:
        _log.error("gateway.cannot_listen", extra={"fields": {"error": str(error)}})
        return EXIT_UNUSABLE
    return 0


def attach_uri(settings: AttachSettings, bound: Address) -> str:
    """Return scheme and authority by which workers reach an attach listener.

    Raises `ListenError` when the address is one that no worker could connect to.
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
