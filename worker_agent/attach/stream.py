"""One response on its way to the gateway piece by piece, and one request body from there.

Both are the `ResponseStream` of a connection of their own. The gateway's response to a POST may
come at any time; before the POST's end it means that the client has gone.
"""

from typing import TYPE_CHECKING

from http1.client.connection import Connection
from http1.stream import Failure, Headers
from worker_agent.job.machine import Job

if TYPE_CHECKING:
    from worker_agent.attach.gateways import Gateway

HIGH_WATER_BYTES = 65_536
"""So much is held for a connection that is not there yet."""


class StreamedPost:
    """A POST attach whose body grows as the inference server answers."""

    __slots__ = ("_connection", "_gateway", "_is_complete", "_job", "_parts", "_waiting_bytes")

    def __init__(self, gateway: "Gateway", job: Job) -> None:
        self._gateway = gateway
        self._job: Job | None = job
        self._connection: Connection | None = None
        self._parts: list[bytes] = []
        self._waiting_bytes = 0
        self._is_complete = False

    # What the job does

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

    def send_end(self) -> None:
        """The response is complete."""
        self._is_complete = True
        if self._connection is not None:
            self._connection.send_end()

    def abort(self) -> None:
        """Break off after what was sent: the gateway must see that the end is missing."""
        self._job = None
        connection, self._connection = self._connection, None
        if connection is not None:
            self._gateway.break_off(connection)

    # What the connection's coming brings

    def opened(
        self, connection: Connection, head: bytes, first: bytes, *, is_chunked: bool
    ) -> bool:
        """Send ``head``, the POST's own, and all that waits; ``False`` if no longer wanted."""
        job = self._job
        if job is None:
            return False
        self._connection = connection
        first += b"".join(self._parts)
        self._parts.clear()
        connection.start(self, head, first, is_chunked=is_chunked, is_complete=self._is_complete)
        if self._waiting_bytes > HIGH_WATER_BYTES and not connection.is_writing_paused:
            job.post_resume_writing()
        return True

    def unreachable(self) -> None:
        """No connection to the gateway could be had."""
        job, self._job = self._job, None
        if job is not None:
            job.post_broken()

    # ResponseStream

    def response_whole(
        self,
        status: int,
        headers: Headers,  # noqa: ARG002  the status says it all
        body_bytes: int | None,  # noqa: ARG002
        body: bytes,  # noqa: ARG002
    ) -> None:
        self._answered(status)

    def response_head(
        self,
        status: int,
        headers: Headers,  # noqa: ARG002
        body_bytes: int | None,  # noqa: ARG002
    ) -> None:
        connection = self._connection
        self._answered(status)
        if connection is not None and not connection.is_lost:
            connection.close()

    def response_data(self, data: bytes) -> None: ...

    def response_end(self) -> None: ...

    def response_broken(self, failure: Failure, *, is_stale: bool) -> None:  # noqa: ARG002
        self._connection = None
        job, self._job = self._job, None
        if job is not None:
            job.post_broken()

    def pause_writing(self) -> None:
        if self._job is not None:
            self._job.post_pause_writing()

    def resume_writing(self) -> None:
        if self._job is not None:
            self._job.post_resume_writing()

    def _answered(self, status: int) -> None:
        self._connection = None
        job, self._job = self._job, None
        if job is not None:
            job.post_answered(status)


class RestOfBody:
    """A GET attach: what of the request's body is not in the envelope."""

    __slots__ = ("_connection", "_is_paused", "_job")

    def __init__(self, job: Job) -> None:
        self._job: Job | None = job
        self._connection: Connection | None = None
        self._is_paused = False

    # What the job does

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._is_paused = True
        if self._connection is not None:
            self._connection.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._is_paused = False
        if self._connection is not None:
            self._connection.resume_reading()

    def close(self) -> None:
        """No more of it is needed."""
        self._job = None
        connection, self._connection = self._connection, None
        if connection is not None and connection.exchange is self:
            connection.close()

    # What the connection's coming brings

    def opened(self, connection: Connection, head: bytes) -> bool:
        """Send ``head``, the whole GET; ``False`` if it is no longer wanted."""
        if self._job is None:
            return False
        self._connection = connection
        connection.start(self, head, b"")
        if self._is_paused:
            connection.pause_reading()
        return True

    def is_waiting(self) -> bool:
        """Whether nothing has been heard of it yet."""
        if self._job is None:
            return False
        return self._connection is None or not self._connection.has_answered()

    def unreachable(self) -> None:
        """No connection to the gateway could be had, or it does not answer."""
        job = self._job
        if job is not None:
            job.rest_broken()
        self.close()

    # ResponseStream

    def response_whole(
        self,
        status: int,
        headers: Headers,
        body_bytes: int | None,
        body: bytes,
    ) -> None:
        # The connection may serve another already: a pause in between must not reach it.
        self._connection = None
        self.response_head(status, headers, body_bytes)
        self.response_data(body)
        self.response_end()

    def response_head(
        self,
        status: int,
        headers: Headers,  # noqa: ARG002  only the bytes count
        body_bytes: int | None,  # noqa: ARG002  the caller's own length is in its request
    ) -> None:
        if status != 200:
            self.unreachable()

    def response_data(self, data: bytes) -> None:
        if self._job is not None and data:
            self._job.rest_data(data)

    def response_end(self) -> None:
        self._connection = None
        job, self._job = self._job, None
        if job is not None:
            job.rest_end()

    def response_broken(self, failure: Failure, *, is_stale: bool) -> None:  # noqa: ARG002
        self._connection = None
        job, self._job = self._job, None
        if job is not None:
            job.rest_broken()

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...
