"""Exchanges with a gateway process that have a connection of their own.

A response that streams to the gateway, and a request body that streams from there. The events of an
SSE stream leave here: each read of the inference server's response is one `StreamedPost.send_data`,
and none of them is parsed. `gateway.attach.exchanges` receives them. The gateway's
response to a POST may come at any time; before the POST's end it means that the client has left.
"""

from http1.client.connection import ClientConnection
from http1.client.pool import Pool
from http1.stream import NO_TRAILERS, Failure, Headers, NullResponseStream
from wire.http1 import chunk_data
from worker_agent.job.context import Delivery
from worker_agent.job.machine import Job

HIGH_WATER_BYTES = 65_536
"""Number of bytes that are held for a connection that is not open yet before the job is paused."""


class StreamedPost(NullResponseStream):
    """A POST attach whose body grows as the inference server responds."""

    __slots__ = (
        "_connection",
        "_is_complete",
        "_job",
        "_parts",
        "_pool",
        "_trailers",
        "_waiting_bytes",
    )

    def __init__(self, pool: Pool, job: Delivery) -> None:
        """``pool`` is where the connection comes from."""
        self._pool = pool
        self._job: Delivery | None = job
        self._connection: ClientConnection | None = None
        self._parts: list[bytes] = []
        self._waiting_bytes = 0
        self._is_complete = False
        self._trailers = NO_TRAILERS

    # Called by the job

    def send_data(self, data: bytes) -> None:
        """Send the next bytes of the body."""
        if self._connection is not None:
            self._connection.send_data(data)
            return
        job = self._job
        if job is not None:
            self._parts.append(data)
            self._waiting_bytes += len(data)
            if self._waiting_bytes > HIGH_WATER_BYTES:
                job.post_pause_writing()

    def send_chunk(self, chunk: bytes, size: int) -> None:
        """Send the next ``size`` bytes of the body, which are one chunk."""
        if self._connection is not None:
            self._connection.send_chunk(chunk, size)
        else:
            self.send_data(chunk_data(chunk, size))

    def send_end(self, trailers: Headers) -> None:
        """Complete the POST; ``trailers`` are the response's."""
        self._is_complete = True
        self._trailers = trailers
        if self._connection is not None:
            self._connection.send_end(trailers)

    def abort(self) -> None:
        """Close after what was sent, so that the gateway sees that the end is missing."""
        self._job = None
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.linger(connection)

    # Called when the connection is open, or cannot be opened

    def opened(
        self, connection: ClientConnection, head: bytes, first: bytes, *, is_chunked: bool
    ) -> bool:
        """Send ``head``, the POST's own, and all that waits; ``False`` if the job is over."""
        job = self._job
        if job is None:
            return False
        self._connection = connection
        first += b"".join(self._parts)
        self._parts.clear()
        trailers = self._trailers
        is_complete = self._is_complete and not trailers
        connection.start(self, head, first, is_chunked=is_chunked, is_complete=is_complete)
        if trailers:
            connection.send_end(trailers)
        job.posted()
        if self._waiting_bytes > HIGH_WATER_BYTES and not connection.is_writing_paused:
            job.post_resume_writing()
        return True

    def unreachable(self) -> None:
        """No connection to the gateway could be opened."""
        job, self._job = self._job, None
        if job is not None:
            job.post_broken()

    # ResponseStream

    def response_whole(
        self,
        status: int,
        headers: Headers,  # noqa: ARG002  only the status counts
        body_bytes: int | None,  # noqa: ARG002
        body: bytes,  # noqa: ARG002
    ) -> None:
        """Report the gateway's status; the connection is another request's already."""
        self._report(status)

    def response_head(
        self,
        status: int,
        headers: Headers,  # noqa: ARG002
        body_bytes: int | None,  # noqa: ARG002
    ) -> None:
        """Report the gateway's status; do not wait for the body of its response."""
        connection = self._connection
        self._report(status)
        if connection is not None and not connection.is_lost:
            connection.close()

    def response_failed(self, failure: Failure) -> None:  # noqa: ARG002
        """The connection broke before the gateway responded."""
        self._connection = None
        job, self._job = self._job, None
        if job is not None:
            job.post_broken()

    def pause_writing(self) -> None:
        """Pause the job: the gateway reads slower than the inference server writes."""
        if self._job is not None:
            self._job.post_pause_writing()

    def resume_writing(self) -> None:
        """Resume the job: the gateway has caught up."""
        if self._job is not None:
            self._job.post_resume_writing()

    def _report(self, status: int) -> None:
        self._connection = None
        job, self._job = self._job, None
        if job is not None:
            job.post_answered(status)


class RestOfBody(NullResponseStream):
    """A GET attach: the part of the request's body that is not in the envelope."""

    __slots__ = ("_connection", "_is_paused", "_job")

    def __init__(self, job: Job) -> None:
        self._job: Job | None = job
        self._connection: ClientConnection | None = None
        self._is_paused = False

    # Called by the job

    def pause_reading(self) -> None:
        """Stop reading the body."""
        self._is_paused = True
        if self._connection is not None:
            self._connection.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading the body."""
        self._is_paused = False
        if self._connection is not None:
            self._connection.resume_reading()

    def close(self) -> None:
        """Close the connection: no more of the body is needed."""
        self._job = None
        connection, self._connection = self._connection, None
        if connection is not None and connection.response_stream is self:
            connection.close()

    # Called when the connection is open, or cannot be opened

    def opened(self, connection: ClientConnection, head: bytes) -> bool:
        """Send ``head``, the whole GET; ``False`` if it is no longer wanted."""
        if self._job is None:
            return False
        self._connection = connection
        connection.start(self, head, b"")
        if self._is_paused:
            connection.pause_reading()
        return True

    def is_waiting(self) -> bool:
        """Whether no byte of the response has arrived yet."""
        if self._job is None:
            return False
        return self._connection is None or not self._connection.has_response_begun()

    def unreachable(self) -> None:
        """No connection to the gateway could be opened, or the gateway does not respond."""
        job = self._job
        if job is not None:
            job.rest_broken()
        self.close()

    # ResponseStream

    def response_whole(
        self, status: int, headers: Headers, body_bytes: int | None, body: bytes
    ) -> None:
        """Take it as head, data and end, on no connection."""
        # The connection may be another request's already: a pause must not reach it.
        self._connection = None
        self.response_head(status, headers, body_bytes)
        if body:
            self.response_data(body)
        self.response_end()

    def response_head(
        self,
        status: int,
        headers: Headers,  # noqa: ARG002  only the bytes count
        body_bytes: int | None,  # noqa: ARG002  the caller's own length is in its request
    ) -> None:
        """Check that the gateway sends the body."""
        if status != 200:
            self.unreachable()

    def response_data(self, data: bytes) -> None:
        """Give the job the next bytes of the body."""
        if self._job is not None:
            self._job.rest_data(data)

    def response_end(self) -> None:
        """The body is complete."""
        self._connection = None
        job, self._job = self._job, None
        if job is not None:
            job.rest_end()

    def response_failed(self, failure: Failure) -> None:  # noqa: ARG002
        """The connection broke before the body was complete."""
        self._connection = None
        job, self._job = self._job, None
        if job is not None:
            job.rest_broken()
