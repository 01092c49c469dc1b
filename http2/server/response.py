"""One stream of a server's connection: `http1.stream.ResponseWriter` for one request.

It holds what its client cannot take yet, and what its reader does not want yet; both are bounded by
windows. A call after the end is ignored.
"""

from collections import deque
from typing import Protocol

from http1.stream import NO_TRAILERS, EncodedHead, Headers, RequestStream, TakeChunk
from http2.server.limits import STREAM_WINDOW
from wire.http1 import chunk_data

NOTHING: deque[bytes] = deque()
"""What most streams have waiting; a collection of its own would be as large as the stream."""


class StreamConnection(Protocol):
    """What a stream needs of its connection."""

    is_writing_paused: bool

    def send_interim(self, stream: "Http2Response", status: int, headers: Headers) -> None:
        """Send the head of an interim response."""

    def send_head(
        self, stream: "Http2Response", status: int, headers: Headers, body_bytes: int | None
    ) -> None:
        """Send the head of the response."""

    def send_whole(
        self,
        stream: "Http2Response",
        head: EncodedHead,
        more_lines: bytes,
        body_bytes: int | None,
        body: bytes,
        trailers: Headers,
    ) -> None:
        """Send the head of the response, and ``body`` and ``trailers``, which are all of it."""

    def send_data(self, stream: "Http2Response", data: bytes, *, ends: bool) -> None:
        """Send the next bytes of the body, as far as the windows allow."""

    def response_ended(self, stream: "Http2Response") -> None:
        """The response is complete but for what it holds."""

    def reset_stream(self, stream: "Http2Response") -> None:
        """End the stream so that the client sees a broken response."""

    def body_wanted(self, stream: "Http2Response") -> None:
        """The reader takes the request's body again."""


class Http2Response:
    """One stream, ``to_head``: of a HEAD request.

    ``stream`` is what the dispatch returned, ``None`` until then and after the end. ``pending`` is
    what waits for a window; ``window`` is the client's for this stream, which SETTINGS can make
    negative. ``held`` is what waits for the reader; ``credit`` was delivered and is not granted
    again, ``recv_left`` what the client may still send; ``lingered`` counts what came after the
    response. ``is_tunnel``: its data are the bytes of another protocol, and it is not over yet.
    ``body_left`` is what is missing of the announced body, ``None``: not announced.
    ``is_sent``: the response is complete, ``is_received``: the request. ``is_patient``: its client
    may send nothing for as long as it likes.
    """

    __slots__ = (
        "_left",
        "begun_at",
        "body_left",
        "connection",
        "credit",
        "expects_continue",
        "heard_at",
        "held",
        "id",
        "is_body_paused",
        "is_patient",
        "is_paused",
        "is_received",
        "is_sent",
        "is_started",
        "is_tunnel",
        "lingered",
        "owes_first_part_end",
        "pending",
        "pending_bytes",
        "recv_left",
        "request_trailers",
        "stream",
        "target",
        "to_head",
        "trailers",
        "window",
    )

    def __init__(
        self,
        connection: StreamConnection,
        number: int,
        target: bytes,
        window: int,
        *,
        to_head: bool,
    ) -> None:
        self.connection: StreamConnection | None = connection
        self.id = number
        self.target = target
        self.to_head = to_head
        self.window = window
        self.stream: RequestStream | None = None
        self.pending = self.held = NOTHING
        self.pending_bytes = 0
        self.recv_left = STREAM_WINDOW
        self.credit = self.lingered = 0
        self.body_left: int | None = None
        self.trailers: Headers = []
        self.request_trailers: Headers = []
        self.is_tunnel = False
        self.heard_at = self.begun_at = 0.0
        self._left: int | None = None
        self.is_started = self.is_sent = self.is_received = False
        self.is_paused = self.is_body_paused = self.is_patient = False
        self.expects_continue = self.owes_first_part_end = False

    def __repr__(self) -> str:
        sent = "sent" if self.is_sent else "started" if self.is_started else "waiting"
        return f"<{type(self).__name__} {self.id} {sent} pending={self.pending_bytes}>"

    # ResponseWriter

    def send_interim(self, status: int, headers: Headers) -> None:
        """Send an interim response's head, unless the client reads slowly."""
        connection = self.connection
        if connection is None or connection.is_writing_paused:
            return
        if self.is_started or not 102 <= status < 200:
            raise AssertionError(f"interim {status} sent in {self!r}")
        connection.send_interim(self, status, headers)

    def send_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Send the response head; ``status`` is final, from 200 on."""
        if self.connection is None:
            return
        if self.is_started or status < 200:
            raise AssertionError(f"head {status} sent in {self!r}")
        self.is_started = True
        if status in (204, 304) or body_bytes == 0:
            # It ends with its head, as gRPC has it for errors.
            self.to_head = True
        self._left = body_bytes
        self.connection.send_head(self, status, headers, body_bytes)

    def send_whole(
        self,
        head: EncodedHead,
        more_lines: bytes,
        body_bytes: int | None,
        body: bytes,
        trailers: Headers = NO_TRAILERS,
    ) -> None:
        """Send a whole response; one with another length than announced is broken off."""
        connection = self.connection
        if connection is None:
            return
        if self.is_started:
            raise AssertionError(f"response {head.status} sent in {self!r}")
        self.is_started = True
        if self.to_head or head.status in (204, 304):
            body, trailers = b"", NO_TRAILERS
        elif not trailers and len(body) != body_bytes:
            self.connection = self.stream = None
            connection.reset_stream(self)
            return
        self.connection = self.stream = None
        connection.send_whole(self, head, more_lines, body_bytes, body, trailers)

    def send_data(self, data: bytes) -> None:
        """Send the next bytes of the body; more than announced breaks the response off."""
        connection = self.connection
        if connection is None or self.to_head or not data:
            return
        if not self.is_started:
            raise AssertionError("body sent before the head")
        left = self._left
        if left is not None:
            self._left = left = left - len(data)
            if left < 0:
                stream = self.stream
                self.abort()
                if stream is not None:
                    stream.request_broken()
                return
        connection.send_data(self, data, ends=False)

    def send_chunk(self, chunk: bytes, size: int) -> None:
        """Send the next ``size`` bytes of the body."""
        self.send_data(chunk_data(chunk, size))

    def add_trailers(self, trailers: Headers) -> None:
        """Send ``trailers`` at the end of the response."""
        self.trailers = trailers

    def send_end(self) -> None:
        """Complete the response; one that is shorter than announced is broken off."""
        connection = self.connection
        if connection is None:
            return
        if not self.is_started:
            raise AssertionError("ended before the head")
        self.connection = self.stream = None
        self.is_tunnel = False
        if self._left and not self.to_head:
            connection.reset_stream(self)
        elif self.trailers or self.to_head:
            self.is_sent = True
            connection.response_ended(self)
        else:
            self.is_sent = True
            connection.send_data(self, b"", ends=True)

    def abort(self) -> None:
        """End so that the client sees a broken response."""
        connection = self.connection
        if self.is_tunnel:
            self.send_end()
        elif connection is not None:
            self.connection = self.stream = None
            connection.reset_stream(self)

    def open_tunnel(self, headers: Headers) -> None:
        """Respond 200 (RFC 8441 §5); data are passed on as they are from now on."""
        self.is_tunnel = True
        self.send_head(200, headers, None)

    def hand_over(self, headers: Headers, successor: object) -> None:  # noqa: ARG002
        """HTTP/2 hands no connection over (RFC 9113 §8.6)."""
        raise AssertionError("a stream is no connection that could be handed over")

    def pass_chunks(self, take_chunk: TakeChunk) -> None:
        """A body has no chunks here: it comes as data."""

    def pause_reading(self) -> None:
        """Hold the request's body, whose window is not filled up any more."""
        self.is_body_paused = True

    def resume_reading(self) -> None:
        """Deliver the request's body again, after this call has returned."""
        if self.is_body_paused:
            self.is_body_paused = False
            if self.connection is not None:
                self.connection.body_wanted(self)

    def is_writing_paused(self) -> bool:
        """Whether more bytes wait for the client than the high-water mark allows."""
        return self.is_paused

    # The connection

    def disconnect(self) -> RequestStream | None:
        """Ignore every call from now on; return the request's stream, which is to be told."""
        stream, self.stream, self.connection = self.stream, None, None
        self.pending.clear()
        self.held.clear()
        self.pending_bytes = 0
        return stream

    def grant(self) -> int:
        """Return how much window to grant now that ``credit`` bytes were delivered; 0: not yet."""
        if 4 * self.credit < STREAM_WINDOW:
            return 0
        granted, self.credit = self.credit, 0
        self.recv_left += granted
        return granted
