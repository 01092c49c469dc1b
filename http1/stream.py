"""One request and its response, independent of the HTTP version.

A server parses bytes into a `Request`, calls a `Dispatch` with it and a `ResponseWriter`, and feeds
what follows to the `RequestStream` that the dispatch returned. A client writes a request through a
`RequestWriter` and feeds the response to a `ResponseStream`. HTTP/1.1 implements this language; a
second HTTP version would implement the same.

Rules that hold for every implementation:

* A `ResponseWriter` may be called at any time, also inside `Dispatch` and inside a `RequestStream`
  call, and may call `pause_writing()` before it returns: set your state first.
* A response is any number of ``send_interim``, ``send_head``, any number of ``send_data``, then
  ``send_end``; or ``abort`` at any point. After ``send_end`` or ``abort``, and after
  ``request_broken()``, neither side calls the other again.
* Header names are lower case. ``content-length``, ``transfer-encoding`` and ``connection`` are
  never among a response's headers: the server adds them, from ``body_bytes``.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, Protocol

from wire.source import UNKNOWN, Source

Headers = list[tuple[bytes, bytes]]
NO_TRAILERS: Headers = []
"""For exchanges without trailers: nearly all. Never changed."""


class Peer:
    """The other end of a connection: one object for all requests of the connection.

    ``address`` is its IP address as text, empty for a Unix socket. ``scheme`` is ``http``, with TLS
    ``https``. ``source`` is what the dispatch found out for the last request and keeps for the next
    one, ``None`` for nothing.
    """

    __slots__ = ("address", "scheme", "source")

    def __init__(self, address: str = "", scheme: bytes = b"http") -> None:
        self.address = address
        self.scheme = scheme
        self.source: Source | None = None


class Request:
    """A request head. The body follows through the `RequestStream`.

    ``target`` is the path and query byte for byte. ``authority`` is the one valid Host (HTTP/1.1)
    or ``:authority`` (HTTP/2), lower case and without port; ``host`` is the same as the peer wrote
    it. ``headers`` are in order, names lower case, ``host`` included; ``values`` has the last value
    of each name.
    ``body_bytes`` is the body's length: 0 for none, ``None`` when it is not known (chunked).
    ``received_at`` is when the head was complete, in seconds of the monotonic clock. That is the
    loop's clock too, but uvloop reads it in whole milliseconds. ``peer`` is the other end of the
    connection. ``source`` is the client behind it, as the dispatch found it out. ``protocol`` is
    what the client asks to change to, such as ``websocket``, empty for none; `ResponseWriter` says
    how.
    """

    __slots__ = (
        "authority",
        "body_bytes",
        "headers",
        "host",
        "known",
        "method",
        "peer",
        "protocol",
        "received_at",
        "source",
        "target",
        "values",
    )

    def __init__(  # noqa: PLR0913 - one argument per attribute
        self,
        method: bytes,
        target: bytes,
        authority: bytes,
        headers: Headers,
        body_bytes: int | None,
        received_at: float,
        host: bytes = b"",
        peer: Peer | None = None,
        values: dict[bytes, bytes] | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.authority = authority
        self.headers = headers
        self.body_bytes = body_bytes
        self.received_at = received_at
        self.host = host
        self.peer = Peer() if peer is None else peer
        self.source = UNKNOWN
        self.values = dict(headers) if values is None else values
        self.known: KnownHead | None = None
        self.protocol = b""


class KnownHead:
    """A head that repeats. ``plan`` is what who serves its requests keeps for the next one."""

    __slots__ = (
        "_authority",
        "_body_bytes",
        "_headers",
        "_host",
        "_method",
        "_target",
        "_values",
        "plan",
    )

    def __init__(self, request: Request) -> None:
        self._method = request.method
        self._target = request.target
        self._authority = request.authority
        self._headers = request.headers
        self._body_bytes = request.body_bytes
        self._host = request.host
        self._values = request.values
        self.plan: object = None

    def request(self, now: float, peer: Peer) -> Request:
        """Return a request with this head, received at ``now``."""
        request = Request(
            self._method,
            self._target,
            self._authority,
            self._headers,
            self._body_bytes,
            now,
            self._host,
            peer,
            self._values,
        )
        request.known = self
        return request

    def request_for(self, method: bytes, target: bytes, now: float, peer: Peer) -> Request:
        """Return a request with the same header lines below another request line."""
        return Request(
            method,
            target,
            self._authority,
            self._headers,
            self._body_bytes,
            now,
            self._host,
            peer,
            self._values,
        )


# Server side


class EncodedHead:
    """A response head as HTTP/1.1 sends it, for heads that repeat.

    ``lines`` are complete header lines of ``headers``. ``has_date`` and ``has_server``: the server
    does not add its own. ``block`` is what another HTTP version makes of it, once it has.
    """

    __slots__ = ("block", "has_date", "has_server", "headers", "lines", "status")

    def __init__(self, status: int, headers: Headers, lines: bytes) -> None:
        self.status = status
        self.headers = headers
        self.lines = lines
        self.block = b""
        names = {name for name, _ in headers}
        self.has_date = b"date" in names
        self.has_server = b"server" in names


TakeChunk = Callable[[bytes, int], None]
"""Takes one chunk of a body as HTTP/1.1 sends it, and its size (RFC 9112 §7.1)."""


class ResponseWriter(Protocol):
    """Writes one response; implemented by the server."""

    def send_interim(self, status: int, headers: Headers) -> None:
        """Send the head of an interim response (1xx), if the peer takes such and reads.

        Otherwise it is dropped (RFC 9110 §15.2).
        """

    def send_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Send the response head.

        ``body_bytes`` is the length of the body that follows, ``None`` when it is not known. For
        HEAD, 204 and 304 it is only what the head announces (``None``: nothing announced).
        """

    def send_whole(
        self,
        head: EncodedHead,
        more_lines: bytes,
        body_bytes: int | None,
        body: bytes,
        trailers: Headers = NO_TRAILERS,
    ) -> None:
        """Send a whole response: `send_head`, `send_data` and `send_end` in one.

        ``more_lines`` are further header lines of it, complete and lower case. With ``trailers``
        ``body_bytes`` is None: the length is not announced.
        """

    def send_data(self, data: bytes) -> None:
        """Send the next bytes of the body; they leave in this turn of the event loop."""

    def send_chunk(self, chunk: bytes, size: int) -> None:
        """Send the next ``size`` bytes of the body, which are one chunk (`TakeChunk`)."""

    def add_trailers(self, trailers: Headers) -> None:
        """Send ``trailers`` at the end of the response, if the peer asked for such.

        Otherwise they are dropped: they are never headers (RFC 9110 §6.5.1).
        """

    def send_end(self) -> None:
        """Complete the response. A body shorter than announced is aborted instead."""

    def abort(self) -> None:
        """End so that the peer sees a broken stream (RFC 9112 §8, RFC 9113 §5.4.2)."""

    def open_tunnel(self, headers: Headers) -> None:
        """Respond that the protocol changes to `Request.protocol`, to a client that asked for it.

        ``headers`` are without those that say so. From now on data are the bytes of that protocol,
        in both directions, and each direction ends by itself: the client's with
        `RequestStream.request_end`, which may have come before for a request without a body, ours
        with `send_end`, which sends all that was written. So does `abort`.
        """

    def hand_over(self, headers: Headers, successor: object) -> None:
        """Respond 101 and let ``successor`` have the connection (RFC 9110 §7.8).

        It is an ``asyncio.Protocol``, which this module does not know.
        """

    def pass_chunks(self, take_chunk: TakeChunk) -> None:
        """From now on, report a read that is exactly one chunk of the request's body as it is.

        It goes to ``take_chunk`` in place of `RequestStream.request_data`, until the request ends.
        """

    def pause_reading(self) -> None:
        """Stop reading the request's body; bytes already read may still arrive."""

    def resume_reading(self) -> None:
        """Go on reading the request's body."""

    def is_writing_paused(self) -> bool:
        """Whether more bytes wait for the peer than the high-water mark allows."""


class RequestStream(Protocol):
    """Receives one request; called by the server."""

    def request_data(self, data: bytes) -> None:
        """Take the next bytes of the request's body."""

    def first_part_end(self) -> None:
        """All body bytes that arrived together with the head have been delivered.

        Called once, and only for a body of unknown length that has not ended by then.
        """

    def request_trailers(self, trailers: Headers) -> None:
        """Take the trailers of the body; called before `request_end`, only if there are any."""

    def request_end(self) -> None:
        """The request is complete (called for a request without a body too)."""

    def request_broken(self) -> None:
        """The peer left, broke the protocol or was too slow: nothing can be sent any more."""

    def pause_writing(self) -> None:
        """Stop producing: the peer reads slower than the response is written."""

    def resume_writing(self) -> None:
        """Produce again: the peer has caught up."""


Dispatch = Callable[[Request, ResponseWriter], RequestStream]


class NullRequestStream:
    """A `RequestStream` that ignores everything; a base for classes that need a few events."""

    __slots__ = ()

    def request_data(self, data: bytes) -> None:
        """Ignore the data."""

    def first_part_end(self) -> None:
        """Ignore it."""

    def request_trailers(self, trailers: Headers) -> None:
        """Ignore them."""

    def request_end(self) -> None:
        """Ignore it."""

    def request_broken(self) -> None:
        """Ignore it."""

    def pause_writing(self) -> None:
        """Ignore it."""

    def resume_writing(self) -> None:
        """Ignore it."""


IGNORED = NullRequestStream()
"""The rest of a request that already has its response."""


def respond(
    request: Request, writer: ResponseWriter, status: int, headers: Headers, body: bytes
) -> RequestStream:
    """Send a complete response, without the body if the method is HEAD; ignore the request's."""
    writer.send_head(status, headers, len(body))
    if body and request.method != b"HEAD":
        writer.send_data(body)
    writer.send_end()
    return IGNORED


# Client side


class RequestWriter(Protocol):
    """Writes one request after its head; implemented by the client.

    ``trailers`` are those of the response, known when it has ended.
    """

    trailers: Headers

    def send_data(self, data: bytes) -> None:
        """Send the next bytes of the request's body."""

    def send_end(self) -> None:
        """Complete the request."""

    def pass_chunks(self, take_chunk: TakeChunk) -> None:
        """From now on, report a read that is exactly one chunk of the response's body as it is.

        It goes to ``take_chunk`` in place of `ResponseStream.response_data`, until the response
        ends or is discarded.
        """

    def pause_reading(self) -> None:
        """Stop reading the response; bytes already read may still arrive."""

    def resume_reading(self) -> None:
        """Go on reading the response."""

    def discard(self, response_stream: "ResponseStream") -> None:
        """Send no more, and report what is still to come of the response to ``response_stream``.

        The server sees the end of its input. The former response stream is not called again.
        """

    def reset(self) -> None:
        """Close so that the server's next write fails. No response stream is called again."""

    def end(self) -> None:
        """Close after sending what was written, or reset if the server does not read it.

        No response stream is called again.
        """


class Failure(IntEnum):
    """Why a request got no complete response."""

    UNREACHABLE = 1
    """No connection: refused, timed out, name unknown."""
    RESET = 2
    """The connection broke with an error."""
    CLOSED = 3
    """The peer closed the connection in good order, but before the response was complete."""
    INVALID = 4
    """The peer sent something that is not an acceptable HTTP response."""


class Defect(NamedTuple):
    """What makes a response invalid.

    ``reason`` is a word of a small set, for metrics; ``detail`` a sentence for people that repeats
    no value. ``header`` is the lower-case name of the header line concerned, with ``?`` for what is
    no part of a token, and empty if there is none.
    """

    reason: str
    detail: str
    header: str = ""


class ResponseStream(Protocol):
    """Receives one response; called by the client.

    The calls are any number of `response_interim`, if the client was asked for them, then one
    `response_whole`, or one `response_head`, any number of `response_data` and one `response_end`.
    `response_broken` may replace all calls that are still to come. No call follows
    `response_whole`, `response_end` or `response_broken`.
    """

    def response_interim(self, status: int, headers: Headers) -> None:
        """Take an interim response: 102 to 199. ``headers`` are as in `response_head`."""

    def response_whole(
        self, status: int, headers: Headers, body_bytes: int | None, body: bytes
    ) -> None:
        """Take a response that arrived at once.

        ``headers`` are as in `response_head`. ``body_bytes`` is the length of ``body``; for HEAD,
        204 and 304 the announced length, ``None`` for none.
        """

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Take the head of a response: names lower case, ``content-length`` left out.

        ``body_bytes`` is the announced length, ``None`` for none.
        """

    def response_data(self, data: bytes) -> None:
        """Take the next bytes of the body, without transfer coding: all that one read brought."""

    def response_end(self) -> None:
        """The response is complete."""

    def response_broken(
        self, failure: Failure, *, is_stale: bool, defect: Defect | None = None
    ) -> None:
        """No response, or no more of it, will come.

        ``is_stale``: the connection had idled and broke before any byte of the response, and the
        request may be sent again, because the server received none of it or it is safe to repeat.
        ``defect`` is what was wrong with an `Failure.INVALID` response.
        """

    def pause_writing(self) -> None:
        """Stop sending: the server reads slower than the request is written."""

    def resume_writing(self) -> None:
        """Send again: the server has caught up."""


class NullResponseStream:
    """A `ResponseStream` that ignores everything; a base for classes that need a few events.

    Implements `response_whole` by the other calls, and `response_broken` by `response_failed`.
    """

    __slots__ = ()

    def response_interim(self, status: int, headers: Headers) -> None:
        """Ignore it."""

    def response_whole(
        self, status: int, headers: Headers, body_bytes: int | None, body: bytes
    ) -> None:
        """Take it as head, data and end."""
        self.response_head(status, headers, body_bytes)
        if body:
            self.response_data(body)
        self.response_end()

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Ignore the head."""

    def response_data(self, data: bytes) -> None:
        """Ignore the data."""

    def response_end(self) -> None:
        """Ignore it."""

    def response_broken(
        self,
        failure: Failure,
        *,
        is_stale: bool,  # noqa: ARG002  a class that needs more than the failure replaces this
        defect: Defect | None = None,  # noqa: ARG002
    ) -> None:
        """Take it as `response_failed`."""
        self.response_failed(failure)

    def response_failed(self, failure: Failure) -> None:
        """Ignore that no response, or no more of it, will come."""

    def pause_writing(self) -> None:
        """Ignore it."""

    def resume_writing(self) -> None:
        """Ignore it."""
