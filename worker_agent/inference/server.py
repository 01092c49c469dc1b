"""Sends requests to the inference server over pooled connections."""

import asyncio
from typing import Protocol

from http1.stream import RequestWriter, ResponseStream
from runtime.tasks import spawn
from worker_agent.inference.discards import Discards
from worker_agent.job.context import InferenceCallbacks
from worker_agent.job.request import Outgoing


class ServerWatch(Protocol):
    """Is told of what requests learn about the inference server."""

    def unreachable(self, error: OSError) -> None:
        """A request found no connection. Called before its job learns of it."""

    def broke(self) -> None:
        """The connection of a request ended before its response."""

    def unresponsive(self) -> None:
        """A request that was left showed no sign for the time of grace."""


class RequestConnection(Protocol):
    """A connection that takes a request: `http1.client.connection`, `http2.client.connection`."""

    def start(  # noqa: PLR0913 - as `http1.client.connection.ClientConnection.start`
        self,
        response_stream: ResponseStream,
        head: bytes,
        body: bytes,
        *,
        is_chunked: bool,
        is_complete: bool,
        is_head: bool,
        is_safe: bool,
        reports_interim: bool,
        accepts_upgrade: bool,
    ) -> RequestWriter:
        """Send a request, and return its writer."""

    def release(self) -> None:
        """Let others have the connection: it was not needed."""


class RequestPool(Protocol):
    """The connections to the inference server; ``in_use`` is how many requests are on them."""

    @property
    def in_use(self) -> int: ...

    def take(self) -> RequestConnection | None:
        """Return a connection for a request at once, if there is one."""

    async def connect(self) -> RequestConnection:
        """Return a connection that the server surely has not closed. Raises `OSError`."""

    async def reach(self) -> None:
        """Raise `OSError` if the server cannot be reached."""

    def resize(self, max_idle: int) -> None:
        """Keep up to so many idle connections."""

    def sweep(self) -> None:
        """Close connections that idle too long."""

    def close(self) -> None:
        """Close every connection."""


class InferenceServer:
    """The `worker_agent.job.context.Inference` of one host and port, connected by ``pool``."""

    __slots__ = ("_clock", "_discards", "_pool", "_watch")

    def __init__(self, pool: RequestPool, watch: ServerWatch, *, cancel_grace_s: float) -> None:
        """Wait ``cancel_grace_s`` for the end of a request that nobody waits for any more."""
        self._pool = pool
        self._watch = watch
        self._clock = asyncio.get_running_loop().time
        self._discards = Discards(cancel_grace_s, self._clock, watch.unresponsive)

    def open(self, request: Outgoing, callbacks: InferenceCallbacks, *, is_fresh: bool) -> None:
        """Send ``request`` on an idle connection at once, or on a new one soon."""
        if not is_fresh and (connection := self._pool.take()) is not None:
            self._start(request, callbacks, connection)
            return
        spawn(self._connect(request, callbacks), "inference.connect")

    def broke(self) -> None:
        """A connection ended before a response head: the inference server may be dead."""
        self._watch.broke()

    def discard(self, writer: RequestWriter, callbacks: InferenceCallbacks) -> None:
        """Tell the inference server that nobody waits, and wait until it is done."""
        self._discards.add(writer, callbacks.discarded)

    def sweep(self) -> None:
        """Close connections idle for too long; to be called about twice a second."""
        self._pool.sweep()
        self._discards.sweep()

    async def _connect(self, request: Outgoing, callbacks: InferenceCallbacks) -> None:
        try:
            connection = await self._pool.connect()
        except OSError as error:
            self._watch.unreachable(error)
            callbacks.unreachable()
            return
        if callbacks.may_send(self._clock()):
            self._start(request, callbacks, connection)
        else:
            # Over meanwhile. The connection has carried nothing, so it can serve the next.
            connection.release()

    def _start(
        self, request: Outgoing, callbacks: InferenceCallbacks, connection: RequestConnection
    ) -> None:
        now = self._clock()
        writer = connection.start(
            callbacks,
            request.head,
            request.body,
            is_chunked=request.body_bytes is None,
            is_complete=not request.has_rest or request.upgrade is not None,
            is_head=request.is_head,
            is_safe=request.is_safe,
            reports_interim=request.passes_interim,
            accepts_upgrade=request.upgrade is not None,
        )
        callbacks.sent(writer, now)
