"""One HTTP exchange on a connection of ours, as the connection tells of it."""

from enum import IntEnum
from typing import Protocol

Headers = list[tuple[bytes, bytes]]


class Failure(IntEnum):
    """Why an exchange brought no complete response."""

    UNREACHABLE = 1
    """No connection: refused, timed out, name unknown."""
    RESET = 2
    """The connection broke with an error."""
    CLOSED = 3
    """The peer closed the connection in good order, but before the response was complete."""
    INVALID = 4
    """What came is no acceptable HTTP response."""


class Exchange(Protocol):
    """One request and its response on a connection of ours, told what comes of it.

    A response is told either by one `response_whole`, or by `response_head`, any number of
    `response_data`, then `response_end`. `response_lost` may take the place of all that is still
    to come. Nothing is called after `response_whole`, `response_end` or `response_lost`.
    """

    def response_whole(
        self, status: int, headers: Headers, body_bytes: int | None, body: bytes
    ) -> None:
        """Everything arrived at once. ``body_bytes`` as in `response_head`."""

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """The head is complete; names lower case, ``content-length`` and framing left out.

        ``body_bytes`` is the announced length, ``None`` for none; for HEAD and 304 no body comes.
        """

    def response_data(self, data: bytes) -> None:
        """Next bytes of the body, without their transfer coding; what one read brought."""

    def response_end(self) -> None:
        """The response is complete."""

    def response_lost(self, failure: Failure, *, is_stale: bool) -> None:
        """No (more) response.

        ``is_stale``: the connection had idled and broke before the server received any byte of the
        request, so that it may be sent again.
        """

    def upload_congested(self) -> None:
        """The peer reads the request slower than we send it: send no more."""

    def upload_relieved(self) -> None:
        """The peer has caught up."""
