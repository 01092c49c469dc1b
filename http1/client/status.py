"""The status of one response, awaited: for requests whose response has no other content."""

import asyncio

from http1.stream import Failure, Headers, NullResponseStream


class InvalidResponseError(ConnectionError):
    """What came is no HTTP/1.1 response."""


class AwaitedStatus(NullResponseStream):
    """A `http1.stream.ResponseStream`; ``known`` gets the status, or `ConnectionError`."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def response_head(
        self,
        status: int,
        headers: Headers,  # noqa: ARG002  only the status counts
        body_bytes: int | None,  # noqa: ARG002
    ) -> None:
        """Take the status; the body does not matter."""
        if not self.known.done():
            self.known.set_result(status)

    def response_failed(self, failure: Failure) -> None:
        """Fail: there is no response."""
        if not self.known.done():
            kind = InvalidResponseError if failure is Failure.INVALID else ConnectionError
            self.known.set_exception(kind(f"no response ({failure.name.lower()})"))
