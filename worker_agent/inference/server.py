"""Sends the requests of jobs to the local inference server."""

import asyncio

from http1.client.connection import Connection
from http1.client.pool import Pool
from runtime.tasks import spawn
from worker_agent.job.machine import Job


class InferenceServer:
    """Implements `worker_agent.job.ports.Inference` with the connections of ``pool``."""

    __slots__ = ("_clock", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._clock = asyncio.get_running_loop().time

    def open(self, job: Job, *, is_fresh: bool) -> None:
        """Send the request of ``job`` on an idle connection at once, or on a new one soon.

        ``is_fresh``: only on a new one.
        """
        if not is_fresh and (connection := self._pool.take()) is not None:
            self._start(job, connection)
            return
        spawn(self._connect(job), "inference.connect")

    async def _connect(self, job: Job) -> None:
        try:
            connection = await self._pool.connect()
        except OSError:
            job.unreachable()
        else:
            self._start(job, connection)

    def _start(self, job: Job, connection: Connection) -> None:
        request = job.opened(connection)
        if request is None:
            # The job was cancelled meanwhile; another can use the connection.
            self._pool.released(connection)
            return
        job.sent_at = self._clock()
        connection.start(
            job,
            request.head,
            request.body,
            is_chunked=request.body_bytes is None,
            is_complete=not request.has_rest,
            is_head=request.is_head,
        )
        job.sent()
