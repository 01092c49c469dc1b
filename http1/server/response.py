"""The HTTP/1.1 response writer: `http1.stream.ResponseWriter` for one request.

Life: no head yet, head sent, over. A call after the end is ignored, so a late call can never reach
the next response on the same connection.
"""

from typing import Protocol

from http1.server.framing import (
    CHUNKED,
    NO_BODY,
    NOT_STARTED,
    SIZED,
    TO_CLOSE,
    Framing,
    frame_response,
)
from http1.server.request_head import CLOSE, HTTP_1_0, TAKES_TRAILERS
from http1.stream import NO_TRAILERS, EncodedHead, Headers, RequestStream, TakeChunk
from wire.http1 import (
    LAST_CHUNK,
    chunk_data,
    encode_chunk,
    encode_last_chunk,
    encode_response_head,
    split_lines,
    status_line,
)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SERVERS_OWN = frozenset({b"date", b"server"})
_UPGRADED = ((b"connection", b"upgrade"), (b"upgrade", b"websocket"))


class Http1Connection(Protocol):
    """What a response needs of its connection."""

    is_writing_paused: bool

    def write(self, data: bytes) -> None:
        """Send ``data`` in this turn of the loop."""

    def send(self, data: bytes) -> None:
        """Send ``data`` at once, unless something waits to be sent in this turn."""

    def closes_after(self) -> bool:
        """Whether the connection has to close after a response that begins now."""

    def own_header_lines(self, date: bool, server: bool) -> bytes:
        """Return the header lines that the server adds: Date and Server, if wanted."""

    def end_response(self, tail: bytes, closes: bool) -> None:
        """Send ``tail``, the last bytes of the response, and close if ``closes``."""

    def pause_body(self) -> None:
        """Stop delivering the request's body."""

    def resume_body(self) -> None:
        """Go on delivering the request's body."""

    def peer_lost(self) -> None:
        """End the request's stream with `request_broken` and reset the connection."""

    def reset(self) -> None:
        """End at once so that the peer sees a broken stream."""

    def open_tunnel(self) -> None:
        """From now on, deliver all that comes as the request's body."""

    def end_tunnel(self) -> None:
        """Send what is written, then the end."""

    def hand_over(self, successor: object) -> None:
        """Send what is written, and let ``successor`` have the transport."""


class Http1Response:
    """One response, ``to_head``: to a HEAD request.

    ``stream`` is what the dispatch returned, ``None`` until then; ``take_chunk`` takes the chunks
    of the request's body that come one by one, if anybody does.
    """

    __slots__ = (
        "_closes",
        "_connection",
        "_flags",
        "_framing",
        "_is_tunnel",
        "_last_chunk",
        "_left",
        "stream",
        "take_chunk",
        "to_head",
    )

    def __init__(self, connection: Http1Connection, flags: int, to_head: bool) -> None:
        """``flags`` are the request head's; ``to_head``: the request's method was HEAD."""
        self._connection: Http1Connection | None = connection
        self._flags = flags
        self.to_head = to_head
        self._framing: Framing = NOT_STARTED
        self._last_chunk = LAST_CHUNK
        self._left = 0
        self._closes = self._is_tunnel = False
        self.stream: RequestStream | None = None
        self.take_chunk: TakeChunk | None = None

    def __repr__(self) -> str:
        state = "over" if self._connection is None else self._framing.name
        return f"<{type(self).__name__} {state}>"

    @property
    def is_started(self) -> bool:
        """Whether the head is sent."""
        return self._framing is not NOT_STARTED

    @property
    def is_http_1_0(self) -> bool:
        """Whether the client speaks HTTP/1.0."""
        return bool(self._flags & HTTP_1_0)

    def send_interim(self, status: int, headers: Headers) -> None:
        """Send an interim response's head, unless the client speaks HTTP/1.0 or reads slowly."""
        connection = self._connection
        if connection is None or self.is_http_1_0 or connection.is_writing_paused:
            return
        if self._framing is not NOT_STARTED or not 102 <= status < 200:
            raise AssertionError(f"interim {status} sent in {self._framing.name}")
        connection.write(encode_response_head(status, headers, b""))

    def send_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Send the response head; ``status`` is final, from 200 on."""
        connection = self._connection
        if connection is None:
            return
        if self._framing is not NOT_STARTED or status < 200:
            raise AssertionError(f"head {status} sent in {self._framing.name}")
        flags = self._flags
        self._framing, lines, self._closes = frame_response(
            status,
            body_bytes,
            to_head=self.to_head,
            to_http_1_0=bool(flags & HTTP_1_0),
            closes=bool(flags & CLOSE) or connection.closes_after(),
        )
        date = server = True
        for name, _ in headers:
            if name in _SERVERS_OWN:
                if name == b"date":
                    date = False
                else:
                    server = False
        self._left = body_bytes or 0
        lines += connection.own_header_lines(date, server)
        connection.write(encode_response_head(status, headers, lines))

    def send_whole(
        self,
        head: EncodedHead,
        more_lines: bytes,
        body_bytes: int | None,
        body: bytes,
        trailers: Headers = NO_TRAILERS,
    ) -> None:
        """Send a whole response; one with another length than announced resets the connection."""
        connection = self._connection
        if connection is None:
            return
        if trailers:
            self.send_head(head.status, [*head.headers, *split_lines(more_lines)], body_bytes)
            self.send_data(body)
            self.add_trailers(trailers)
            self.send_end()
            return
        if self._framing is not NOT_STARTED:
            raise AssertionError(f"response {head.status} sent in {self._framing.name}")
        flags = self._flags
        framing, lines, closes = frame_response(
            head.status,
            body_bytes,
            to_head=self.to_head,
            to_http_1_0=bool(flags & HTTP_1_0),
            closes=bool(flags & CLOSE) or connection.closes_after(),
        )
        self._connection = self.stream = None
        if framing is NO_BODY:
            body = b""
        elif framing is not SIZED or len(body) != body_bytes:
            connection.reset()
            return
        own = connection.own_header_lines(not head.has_date, not head.has_server)
        first = status_line(head.status)
        whole = b"%b%b%b%b%b\r\n%b" % (first, head.lines, more_lines, lines, own, body)
        connection.end_response(whole, closes)

    def send_data(self, data: bytes) -> None:
        """Send the next bytes of the body; more than announced breaks the connection."""
        connection = self._connection
        if connection is None:
            return
        framing = self._framing
        if framing is CHUNKED:
            if data:
                connection.send(encode_chunk(data))
        elif framing is SIZED:
            self._left -= len(data)
            if self._left < 0:
                connection.peer_lost()
            else:
                connection.send(data)
        elif framing is TO_CLOSE:
            connection.send(data)
        elif framing is not NO_BODY:
            raise AssertionError("body sent before the head")

    def send_chunk(self, chunk: bytes, size: int) -> None:
        """Send the next ``size`` bytes of the body; a chunked response has them as they are."""
        if self._framing is not CHUNKED:
            self.send_data(chunk_data(chunk, size))
        elif self._connection is not None:
            self._connection.send(chunk)

    def add_trailers(self, trailers: Headers) -> None:
        """Send ``trailers`` with the last chunk, if the client asked for such."""
        if self._flags & TAKES_TRAILERS:
            self._last_chunk = encode_last_chunk(trailers)

    def send_end(self) -> None:
        """Complete the response; if it is shorter than announced, reset the connection."""
        connection = self._connection
        if connection is None:
            return
        framing = self._framing
        if framing is NOT_STARTED:
            raise AssertionError("ended before the head")
        self._connection = self.stream = None
        if framing is SIZED and self._left:
            connection.reset()
            return
        if self._is_tunnel:
            connection.end_tunnel()
            return
        connection.end_response(self._last_chunk if framing is CHUNKED else b"", self._closes)

    def abort(self) -> None:
        """End so that the peer sees a broken stream."""
        connection = self._connection
        if connection is not None:
            self._connection = self.stream = None
            if self._is_tunnel:
                connection.end_tunnel()
            else:
                connection.reset()

    def open_tunnel(self, headers: Headers) -> None:
        """Respond 101; bytes are passed on as they are from now on."""
        connection = self._connection
        if connection is None:
            return
        if self._framing is not NOT_STARTED:
            raise AssertionError("upgraded after the head")
        self._framing = TO_CLOSE
        self._is_tunnel = True
        connection.write(encode_response_head(101, [*_UPGRADED, *headers], b""))
        connection.open_tunnel()

    def hand_over(self, headers: Headers, successor: object) -> None:
        """Respond 101 and let ``successor`` have the connection."""
        connection = self._connection
        if connection is None:
            return
        if self._framing is not NOT_STARTED:
            raise AssertionError("handed over after the head")
        self._connection = self.stream = None
        connection.write(encode_response_head(101, headers, b""))
        connection.hand_over(successor)

    def pass_chunks(self, take_chunk: TakeChunk) -> None:
        """Report each read of the rest that is exactly one chunk to ``take_chunk``, as it is."""
        self.take_chunk = take_chunk

    def pause_reading(self) -> None:
        """Stop delivering the request's body."""
        if self._connection is not None:
            self._connection.pause_body()

    def resume_reading(self) -> None:
        """Go on delivering the request's body."""
        if self._connection is not None:
            self._connection.resume_body()

    def is_writing_paused(self) -> bool:
        """Whether more bytes wait for the peer than the high-water mark allows."""
        return self._connection is not None and self._connection.is_writing_paused

    def disconnect(self) -> None:
        """Ignore every call from now on: the connection is lost."""
        self._connection = None
