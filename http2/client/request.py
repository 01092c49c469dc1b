"""One request of a client's connection: its head as a header block, and its stream.

A stream is a `http1.stream.RequestWriter`. What the server's windows do not let through yet waits
in it, and pauses whoever sends.
"""

from collections import deque
from typing import Protocol

from http1.stream import NO_TRAILERS, Failure, Headers, ResponseStream, TakeChunk
from http2.header_blocks import encode_headers
from wire.repeated import Repeated

STREAM_WINDOW = 262_144
"""Bytes of a response that the server may send while its reader pauses."""
HIGH_WATER_BYTES = 65_536
"""Unsent bytes of one request beyond which its sender is paused."""
_NOT_SENT = frozenset({b"transfer-encoding", b"connection", b"te", b"expect", b"upgrade"})
_TRAILERS = encode_headers([(b"te", b"trailers")])
_AUTHORITY = encode_headers([(b":authority", b"")])[:1]
"""How the line of ``:authority`` begins, and no other: with its place in the static table."""
_lines: Repeated[bytes] = Repeated()
"""Header lines that came at least twice, as a header block has them."""


def encode_request(head: bytes) -> bytes:
    """Return the header block of a request whose HTTP/1.1 head, with its blank line, is ``head``.

    It asks for trailers, as gRPC requires it.
    """
    first, *lines = head[:-4].split(b"\r\n")
    known = _lines.known
    blocks = [known.get(first) or _encode_first(first), b"", _TRAILERS]
    for line in lines:
        block = known.get(line)
        if block is None:
            block = _encode_line(line)
        if block[:1] == _AUTHORITY:
            blocks[1] = block
        else:
            blocks.append(block)
    return b"".join(blocks)


def _encode_first(line: bytes) -> bytes:
    method, path, _ = line.split(b" ")
    return _kept(line, [(b":method", method), (b":scheme", b"http"), (b":path", path)])


def _encode_line(line: bytes) -> bytes:
    name, _, value = line.partition(b": ")
    name = name.lower()
    if name in _NOT_SENT:
        return _kept(line, [])
    return _kept(line, [(b":authority" if name == b"host" else name, value)])


def _kept(line: bytes, headers: Headers) -> bytes:
    block = encode_headers(headers)
    if _lines.has_come(line):
        _lines.keep(line, block)
    return block


class RequestConnection(Protocol):
    """What a request needs of its connection."""

    def send_data(self, request: "Http2Request", data: bytes, *, ends: bool) -> None:
        """Send the next bytes of the body, as far as the windows allow."""

    def cancel(self, request: "Http2Request") -> None:
        """Reset the stream: nobody waits for the response any more."""

    def grant(self, request: "Http2Request", size: int) -> None:
        """Let the server send ``size`` bytes more of the response."""


class Http2Request:
    """One stream. ``response_stream`` gets the response, ``trailers`` are the response's.

    ``window`` is the server's for this stream. ``pending`` waits for it; ``ends``: the request is
    complete but for that. ``is_sent``, ``is_received``: all of the request, the response. ``head``
    and ``parts`` are of a response that was not reported yet, ``has_head``: its head was reported.
    """

    __slots__ = (
        "_credit",
        "_is_reading_paused",
        "connection",
        "ends",
        "has_head",
        "head",
        "id",
        "is_paused",
        "is_received",
        "is_sent",
        "parts",
        "pending",
        "pending_bytes",
        "response_stream",
        "to_head",
        "trailers",
        "window",
    )

    def __init__(
        self,
        connection: RequestConnection,
        number: int,
        window: int,
        response_stream: ResponseStream,
        *,
        to_head: bool,
    ) -> None:
        """``to_head``: the request's method is HEAD."""
        self.connection: RequestConnection | None = connection
        self.id = number
        self.window = window
        self.response_stream: ResponseStream | None = response_stream
        self.to_head = to_head
        self.trailers = NO_TRAILERS
        self.head: tuple[int, Headers, int | None] | None = None
        self.parts: list[bytes] = []
        self.has_head = self.is_received = self.is_sent = False
        self.pending: deque[bytes] = deque()
        self.pending_bytes = 0
        self.ends = self.is_paused = False
        self._credit = 0
        self._is_reading_paused = False

    def __repr__(self) -> str:
        state = "received" if self.is_received else "begun" if self.has_head else "waiting"
        return f"<{type(self).__name__} {self.id} {state} pending={self.pending_bytes}>"

    # RequestWriter

    def send_data(self, data: bytes) -> None:
        """Send the next bytes of the body."""
        if self.connection is not None and data:
            self.connection.send_data(self, data, ends=False)

    def send_end(self) -> None:
        """Complete the request."""
        if self.connection is not None:
            self.connection.send_data(self, b"", ends=True)

    def pass_chunks(self, take_chunk: TakeChunk) -> None:
        """A body has no chunks here: it comes as data."""

    def pause_reading(self) -> None:
        """Let the server send no more than its window."""
        self._is_reading_paused = True

    def resume_reading(self) -> None:
        """Let the server send more again."""
        self._is_reading_paused = False
        self.took(0)

    def discard(self, response_stream: ResponseStream) -> None:
        """Reset the stream, and report at once that nothing more comes.

        Nothing shows when the server is done: it is told, and that is all that HTTP/2 has.
        """
        self.reset()
        response_stream.response_broken(Failure.CLOSED, is_stale=False)

    def reset(self) -> None:
        """Reset the stream. No response stream is called again."""
        self.response_stream = None
        if self.connection is not None:
            self.connection.cancel(self)

    def end(self) -> None:
        """As `reset`: a stream has no end of its own that a server had to notice."""
        self.reset()

    # The connection

    def took(self, size: int) -> None:
        """``size`` bytes of the response were reported: the server may send as many more, soon."""
        self._credit += size
        is_much = 4 * self._credit >= STREAM_WINDOW
        if is_much and not self._is_reading_paused and self.connection is not None:
            credit, self._credit = self._credit, 0
            self.connection.grant(self, credit)

    def disconnect(self) -> ResponseStream | None:
        """Ignore every call from now on; return whom to tell that no more comes."""
        response_stream, self.response_stream, self.connection = self.response_stream, None, None
        self.pending.clear()
        self.pending_bytes = 0
        return response_stream
