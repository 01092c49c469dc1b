"""One request and its response, with no HTTP version in it.

The edge parses bytes into a `Request`, hands it to a `Dispatch` with a `ResponseWriter`, and feeds
what follows to the `RequestStream` that the dispatch returned. HTTP/1.1 and HTTP/2 speak this
language upward; an invocation, the worker's attach calls and the path routes speak it downward.

Rules that hold for every implementation:

* Calls on the `ResponseWriter` may come at any time, also inside `Dispatch` and inside a
  `RequestStream` call, and may cause `pause_writing()` before they return: set your state first.
* A response is ``send_head``, any number of ``send_data``, then ``send_end``; or ``abort`` at any
  point. After ``send_end`` or ``abort``, and after ``request_broken()``, neither side calls the
  other again.
* Header names are lower case. ``content-length``, ``transfer-encoding`` and ``connection`` never
  stand in a response's headers: framing is the edge's, from ``body_bytes``.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

Headers = list[tuple[bytes, bytes]]


class Request:
    """A request head. The body follows through the `RequestStream`.

    ``target`` is the path and query byte for byte. ``authority`` is the one valid Host (HTTP/1.1)
    or ``:authority`` (HTTP/2). ``headers`` are in order, names lower case, ``host`` included.
    ``body_bytes`` is the body's length: 0 for none, ``None`` when it is not known (chunked).
    ``received_at`` is when the head was complete, in seconds of the monotonic clock. That is the
    loop's clock too, but uvloop reads it in whole milliseconds.
    """

    __slots__ = ("authority", "body_bytes", "headers", "method", "received_at", "target")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        authority: bytes,
        headers: Headers,
        body_bytes: int | None,
        received_at: float,
    ) -> None:
        self.method = method
        self.target = target
        self.authority = authority
        self.headers = headers
        self.body_bytes = body_bytes
        self.received_at = received_at


class ResponseWriter(Protocol):
    """The peer's side of one exchange; implemented by the edge."""

    def send_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Send the response head.

        ``body_bytes`` is the length of the body that follows, ``None`` when it is not known. For
        HEAD, 204 and 304 it is only what the head announces (``None``: nothing announced).
        """

    def send_data(self, data: bytes) -> None:
        """Send the next bytes of the body; they leave with this loop turn, never later."""

    def send_end(self) -> None:
        """The response is complete. A body shorter than announced is aborted instead."""

    def abort(self) -> None:
        """End so that the peer sees a broken stream (RFC 9112 §8, RFC 9113 §5.4.2)."""

    def pause_reading(self) -> None:
        """Stop reading the request's body; bytes already read may still arrive."""

    def resume_reading(self) -> None:
        """Go on reading the request's body."""

    def is_writing_paused(self) -> bool:
        """Whether more bytes wait for the peer than the high-water mark allows."""


class RequestStream(Protocol):
    """What serves one request; called by the edge."""

    def request_data(self, data: bytes) -> None:
        """Next bytes of the request body."""

    def first_part_end(self) -> None:
        """What had arrived with the head is delivered; more body of unknown length is to come.

        Called once, and only for a body of unknown length that has not ended by then.
        """

    def request_end(self) -> None:
        """The request is complete (called for a request without a body too)."""

    def request_broken(self) -> None:
        """The peer left, broke the protocol or was too slow: nothing can be sent any more."""

    def pause_writing(self) -> None:
        """The peer reads slower than we write: stop producing."""

    def resume_writing(self) -> None:
        """The peer has caught up: produce again."""


Dispatch = Callable[[Request, ResponseWriter], RequestStream]


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


class ResponseStream(Protocol):
    """One request and its response on a connection of ours, told what comes of it.

    A response is told either by one `response_whole`, or by `response_head`, any number of
    `response_data`, then `response_end`. `response_broken` may take the place of all that is still
    to come. Nothing is called after `response_whole`, `response_end` or `response_broken`.
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

    def response_broken(self, failure: Failure, *, is_stale: bool) -> None:
        """No (more) response.

        ``is_stale``: the connection had idled and broke before the server received any byte of the
        request, so that it may be sent again.
        """

    def pause_writing(self) -> None:
        """The peer reads the request slower than we send it: send no more."""

    def resume_writing(self) -> None:
        """The peer has caught up."""
