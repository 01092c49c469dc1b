"""Sends requests to the inference server over pooled connections."""

import asyncio

from http1.client.connection import ClientConnection
from http1.client.pool import Pool
from runtime.tasks import spawn
from worker_agent.job.context import InferenceCallbacks
from worker_agent.job.request import Outgoing


class InferenceServer:
    """The `worker_agent.job.context.Inference` of one host and port, connected by ``pool``."""

    __slots__ = ("_clock", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._clock = asyncio.get_running_loop().time

    def open(self, request: Outgoing, callbacks: InferenceCallbacks, *, is_fresh: bool) -> None:
        """Send ``request`` on an idle connection at once, or on a new one soon."""
        if not is_fresh and (connection := self._pool.take()) is not None:
            self._start(request, callbacks, connection)
            return
        spawn(self._connect(request, callbacks), "inference.connect")

    async def _connect(self, request: Outgoing, callbacks: InferenceCallbacks) -> None:
        try:
            connection = await self._pool.connect()
        except OSError:
            callbacks.unreachable()
            return
        if callbacks.may_send(self._clock()):
            self._start(request, callbacks, connection)
        else:
            # Over meanwhile. The connection has carried nothing, so it can serve the next.
            self._pool.released(connection)

    def _start(
        self, request: Outgoing, callbacks: InferenceCallbacks, connection: ClientConnection
    ) -> None:
        now = self._clock()
        connection.start(
            callbacks,
            request.head,
            request.body,
            is_chunked=request.body_bytes is None,
            is_complete=not request.has_rest,
            is_head=request.is_head,
        )
        callbacks.sent(connection, now)
