"""One whole response, awaited: for calls whose response is a small document."""

import asyncio
from typing import NamedTuple

from http1.stream import Defect, Failure, Headers, NullResponseStream


class Response(NamedTuple):
    """Status and body."""

    status: int
    body: bytes


class StaleError(ConnectionError):
    """The server had closed the connection before it got the request: send it again."""


class AwaitedResponse(NullResponseStream):
    """A `http1.stream.ResponseStream`; ``known`` gets the response, or `ConnectionError`.

    ``is_complete`` is false until the response has ended, so that its connection can be used again.
    """

    __slots__ = ("_body", "_max_body_bytes", "_status", "is_complete", "known")

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._status = 0
        self._body = b""
        self.is_complete = False
        self.known: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def response_head(
        self,
        status: int,
        headers: Headers,  # noqa: ARG002  only status and body count
        body_bytes: int | None,  # noqa: ARG002
    ) -> None:
        """Take the status."""
        self._status = status

    def response_data(self, data: bytes) -> None:
        """Take a part of the body."""
        self._body += data
        if len(self._body) > self._max_body_bytes:
            self._fail(ConnectionError(f"a response of more than {self._max_body_bytes} bytes"))

    def response_end(self) -> None:
        """Report the response."""
        self.is_complete = True
        if not self.known.done():
            self.known.set_result(Response(self._status, self._body))

    def response_broken(
        self,
        failure: Failure,
        *,
        is_stale: bool,
        defect: Defect | None = None,  # noqa: ARG002
    ) -> None:
        """Fail: there is no whole response."""
        kind = StaleError if is_stale else ConnectionError
        self._fail(kind(f"no response ({failure.name.lower()})"))

    def _fail(self, error: ConnectionError) -> None:
        if not self.known.done():
            self.known.set_exception(error)
