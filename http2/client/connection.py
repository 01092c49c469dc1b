"""One HTTP/2 connection as a client, many requests at a time (RFC 9113), without TLS.

What is sent in one turn of the loop is written once. A response that one read brings is reported
whole. A reader that pauses stops its own stream: the server gets no more window for it, and the
others go on. A request that the server has surely not processed (GOAWAY, REFUSED_STREAM) is
reported as one that may be sent again.
"""

import asyncio
from collections.abc import Callable
from typing import ClassVar, Protocol

from http1.client.response_head import MAX_HEAD_BYTES
from http1.client.watched import WatchedConnection
from http1.stream import Defect, Failure, Headers, ResponseStream
from http2.client.request import (
    HIGH_WATER_BYTES,
    STREAM_WINDOW,
    Http2Request,
    encode_request,
)
from http2.client.response_head import ReceivedHead, read_head, read_trailers
from http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    FRAME_HEAD,
    HEAD_BYTES,
    MAX_WINDOW,
    MIN_FRAME_BYTES,
    PREFACE,
    SETTINGS_ACK,
    Code,
    ConnectionFault,
    Kind,
    Setting,
    StreamFault,
    decode_goaway,
    decode_number,
    decode_settings,
    encode_frame,
    encode_goaway,
    encode_headers,
    encode_rst_stream,
    encode_settings,
    encode_window_update,
    without_padding,
    without_priority,
)
from http2.header_blocks import NO_TABLE, BlockDecoder, BlockError
from http2.pending import take
from wire.http1 import BODILESS_STATUSES

CONNECTION_WINDOW = MAX_WINDOW
"""Each stream has a bound of its own; their number is bounded by the slots."""
FIRST_MAX_STREAMS = 100
"""Requests at a time before the server has said how many it takes (RFC 9113 §6.5.2)."""
MAX_BLOCK_FRAMES = 64
"""CONTINUATION frames of one header block."""
MAX_KNOWN_BLOCKS = 64
_LAST_ID = (1 << 31) - 3
"""With a higher id the next request needs a new connection."""


class RequestsOwner(Protocol):
    """Keeps the connections."""

    def lost(self, connection: "Http2Client") -> None:
        """``connection`` takes no request any more, or is closed."""


class Http2Client(WatchedConnection):
    """A connection to one server.

    ``ready`` is done when the server's settings have come: servers reset what is more than they
    take. ``is_open``: it takes requests, as far as there is room. ``idle_since`` is loop time in
    seconds, valid while no request is on it.
    """

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_frames",
        "_block_stream",
        "_blocked",
        "_credit",
        "_decoder",
        "_fresh",
        "_generation",
        "_held",
        "_is_connected",
        "_is_writing_paused",
        "_known",
        "_loop",
        "_max_frame",
        "_max_streams",
        "_next_id",
        "_out",
        "_owner",
        "_prefix",
        "_stream_window",
        "_streams",
        "_window",
        "idle_since",
        "is_lost",
        "is_open",
        "ready",
    )

    def __init__(self, owner: RequestsOwner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._owner = owner
        self._loop = loop
        self._streams: dict[int, Http2Request] = {}
        self._next_id = 1
        self._max_streams = FIRST_MAX_STREAMS
        self.is_open = self.is_lost = self._is_connected = False
        self.idle_since = loop.time()
        self.ready: asyncio.Future[None] = loop.create_future()
        # Sending
        self._out: list[bytes] = []
        self._window = self._stream_window = FIRST_WINDOW
        self._max_frame = MIN_FRAME_BYTES
        self._prefix = NO_TABLE
        self._blocked: dict[int, Http2Request] = {}
        self._is_writing_paused = False
        # Receiving
        self._held = bytearray()
        self._credit = 0
        self._decoder = BlockDecoder()
        self._generation = 0
        self._known: dict[bytes, ReceivedHead | Headers] = {}
        self._block: bytearray | None = None
        self._block_stream = self._block_flags = self._block_frames = 0
        self._fresh: list[Http2Request] = []

    def __repr__(self) -> str:
        state = "open" if self.is_open else "lost" if self.is_lost else "closing"
        return f"<{type(self).__name__} {state}, {len(self._streams)} streams>"

    def __len__(self) -> int:
        return len(self._streams)

    def has_room(self) -> bool:
        """Return whether another request can be sent now."""
        return self.is_open and len(self._streams) < self._max_streams

    # Requests

    def start(  # noqa: PLR0913 - what the head means to the client
        self,
        response_stream: ResponseStream,
        head: bytes,
        body: bytes,
        *,
        is_chunked: bool = False,  # noqa: ARG002  a body needs no framing here
        is_complete: bool = True,
        is_head: bool = False,
        is_safe: bool = False,  # noqa: ARG002  the server says what it has not processed
        reports_interim: bool = False,  # noqa: ARG002  gRPC clients take none
        accepts_upgrade: bool = False,  # noqa: ARG002  gRPC servers speak nothing else
    ) -> Http2Request:
        """Send a request as `http1.client.connection.ClientConnection.start`; return its stream."""
        number = self._next_id
        self._next_id = number + 2
        if number >= _LAST_ID:
            self._close_soon()
        request = Http2Request(self, number, self._stream_window, response_stream, to_head=is_head)
        self._streams[number] = request
        block = encode_request(head)
        if self._prefix:
            block, self._prefix = self._prefix + block, b""
        ends = is_complete and not body
        self._write(encode_headers(block, number, self._max_frame, ends=ends))
        if ends:
            request.is_sent = True
        else:
            self.send_data(request, body, ends=is_complete)
        return request

    def send_data(self, request: Http2Request, data: bytes, *, ends: bool) -> None:
        """Send the next bytes of a body, as far as the windows allow."""
        size = len(data)
        if (
            request.pending
            or self._is_writing_paused
            or size > request.window
            or size > self._window
            or size > self._max_frame
        ):
            if data:
                request.pending.append(data)
                request.pending_bytes += size
            request.ends = ends
            self._blocked[request.id] = request
            self._pump()
            self._pause_if_full(request)
            return
        if size or ends:
            self._send_frame(request, data, size, ends=ends)

    def _send_frame(self, request: Http2Request, data: bytes, size: int, *, ends: bool) -> None:
        self._window -= size
        request.window -= size
        flags = END_STREAM if ends else 0
        self._write(FRAME_HEAD.pack(size >> 8, size & 0xFF, Kind.DATA, flags, request.id) + data)
        if ends:
            request.is_sent = True
            if request.is_received:
                self._forget(request)

    def _pause_if_full(self, request: Http2Request) -> None:
        if request.pending_bytes > HIGH_WATER_BYTES and not request.is_paused:
            request.is_paused = True
            if request.response_stream is not None:
                request.response_stream.pause_writing()

    def _pump(self) -> None:
        """Send what waits, a frame of each stream in turn, as far as the windows allow."""
        is_sending = True
        while is_sending:
            is_sending = False
            for request in list(self._blocked.values()):
                size = min(request.window, self._window, self._max_frame, request.pending_bytes)
                if self._is_writing_paused or (request.pending_bytes and size <= 0):
                    continue
                self._send_pending(request, size)
                is_sending = True

    def _send_pending(self, request: Http2Request, size: int) -> None:
        pending = request.pending
        data = take(pending, size)
        request.pending_bytes -= size
        if not pending:
            self._blocked.pop(request.id, None)
        if size or request.ends:
            ends = request.ends and not pending
            self._send_frame(request, data, size, ends=ends)
        if request.is_paused and request.pending_bytes <= HIGH_WATER_BYTES // 2:
            request.is_paused = False
            if request.response_stream is not None:
                request.response_stream.resume_writing()

    def cancel(self, request: Http2Request) -> None:
        """Reset a stream: nobody waits for its response any more."""
        self._write(encode_rst_stream(request.id, Code.CANCEL))
        request.disconnect()
        self._forget(request)

    def grant(self, request: Http2Request, size: int) -> None:
        """Let the server send ``size`` bytes more on a stream."""
        if not request.is_received:
            self._write(encode_window_update(request.id, size))

    # Ends

    def release(self) -> None:
        """Do nothing: the connection is shared, and others have it already."""

    def close(self) -> None:
        """Close at once; no response stream is called again."""
        self._retire()
        for request in self._streams.values():
            request.disconnect()
        self._streams.clear()
        self._transport.abort()

    def give_up(self) -> None:
        """Nobody waits any more for the connection to be ready."""
        self.ready.cancel()
        if self._is_connected:
            self._transport.abort()

    def break_off(self) -> None:
        """End as if the peer had sent a reset."""
        self._transport.abort()
        self._break_streams(Failure.RESET)

    def _close_soon(self) -> None:
        """Take no further request; close when those that run are over."""
        self._retire()
        if not self._streams and not self.is_lost:
            self._transport.close()

    def _retire(self) -> None:
        if self.is_open:
            self.is_open = False
            self._owner.lost(self)

    def _forget(self, request: Http2Request) -> None:
        if self._streams.pop(request.id, None) is None:
            return
        self._blocked.pop(request.id, None)
        request.connection = None
        if not self._streams:
            self.idle_since = self._loop.time()
            if not self.is_open:
                self._close_soon()

    def _break_streams(self, failure: Failure) -> None:
        streams, self._streams = self._streams, {}
        self._blocked.clear()
        for request in streams.values():
            self._report_broken(request, failure)

    def _report_broken(
        self,
        request: Http2Request,
        failure: Failure,
        *,
        is_stale: bool = False,
        defect: Defect | None = None,
    ) -> None:
        self._report_fresh(request)
        response_stream = request.disconnect()
        if response_stream is not None:
            is_stale = is_stale and not request.has_head
            response_stream.response_broken(failure, is_stale=is_stale, defect=defect)

    # Writing

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out = self._out
        if out and not self.is_lost:
            self._transport.write(b"".join(out))
        out.clear()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface; requests can follow at once."""
        super().connection_made(transport)
        self.is_open = self._is_connected = True
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        settings = {Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW}
        self._write(PREFACE)
        self._write(encode_settings(settings))
        self._write(encode_window_update(0, CONNECTION_WINDOW - FIRST_WINDOW))

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is on it."""
        self.is_lost = True
        self._retire()
        self._fail_ready("the server closed the connection")
        self._break_streams(Failure.RESET if exc is not None else Failure.CLOSED)

    def pause_writing(self) -> None:
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        self._is_writing_paused = False
        self._pump()

    def data_received(self, data: bytes) -> None:
        if self._held:
            self._held += data
            data = bytes(self._held)
            self._held.clear()
        at = len(data)
        try:
            at = self._read(data)
        except ConnectionFault as fault:
            self._fail(fault.code, str(fault))
        except BlockError as error:
            self._fail(Code.COMPRESSION_ERROR, str(error))
        if at < len(data):
            self._held += data[at:] if at else data
        if self._fresh:
            fresh, self._fresh = self._fresh, []
            for request in fresh:
                self._report_fresh(request)

    def _fail_ready(self, reason: str) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(f"no HTTP/2 server: {reason}"))

    def _fail(self, code: Code, detail: str) -> None:
        """End the connection because of a fault of the server."""
        self._fail_ready(detail)
        self._write(encode_goaway(0, code, detail.encode()))
        self._flush()
        self._close_soon()
        self._transport.close()
        streams, self._streams = self._streams, {}
        self._blocked.clear()
        defect = Defect("http2", detail)
        for request in streams.values():
            self._report_broken(request, Failure.INVALID, defect=defect)

    # Frames

    def _read(self, data: bytes) -> int:
        """Return the offset in ``data`` up to which it was read. Raises `ConnectionFault`."""
        at, end = 0, len(data)
        read = FRAME_HEAD.unpack_from
        while end - at >= HEAD_BYTES:
            high, low, kind, flags, number = read(data, at)
            size = high << 8 | low
            if not self.ready.done() and data.startswith(_HTTP_1):
                raise ConnectionFault(Code.HTTP_1_1_REQUIRED, "it speaks HTTP/1.1")
            if size > MIN_FRAME_BYTES:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame is larger than 16 KiB")
            begin = at + HEAD_BYTES
            if end - begin < size:
                break
            at = begin + size
            number &= MAX_WINDOW
            try:
                self._on_frame(kind, flags, number, data[begin:at])
            except StreamFault as fault:
                self._fail_stream(number, fault)
        return at

    def _on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != Kind.CONTINUATION:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A header block is interrupted")
        if kind == Kind.DATA and self.ready.done():
            self._on_data(flags, number, payload)
        elif not self.ready.done() and kind != Kind.SETTINGS:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "The first frame is no SETTINGS")
        elif kind == Kind.HEADERS:
            self._on_headers(flags, number, payload)
        elif (on_frame := self._others.get(kind)) is not None:
            on_frame(self, flags, number, payload)

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        block = without_priority(without_padding(payload, flags), flags, number)
        if flags & END_HEADERS:
            self._on_block(number, block, ends=bool(flags & END_STREAM))
            return
        self._block = bytearray(block)
        self._block_stream, self._block_flags, self._block_frames = number, flags, 0

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        block = self._block
        if block is None or number != self._block_stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION continues nothing")
        self._block_frames += 1
        block += payload
        if len(block) > MAX_HEAD_BYTES or self._block_frames > MAX_BLOCK_FRAMES:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "A header block is too large")
        if flags & END_HEADERS:
            self._block = None
            self._on_block(number, bytes(block), ends=bool(self._block_flags & END_STREAM))

    def _on_block(self, number: int, block: bytes, *, ends: bool) -> None:
        request = self._streams.get(number)
        is_trailers = request is not None and (request.has_head or request.head is not None)
        found = self._known.get(block)
        if found is None or isinstance(found, ReceivedHead) is is_trailers:
            found = self._read_block(block, is_trailers=is_trailers)
        if request is None or request.is_received:
            self._check_opened(number)
            return
        if isinstance(found, ReceivedHead):
            self._on_head(request, found, ends=ends)
        elif ends:
            request.trailers = found
            self._receive_end(request)
        else:
            raise StreamFault(Code.PROTOCOL_ERROR, "Trailers do not end the stream")

    def _read_block(self, block: bytes, *, is_trailers: bool) -> ReceivedHead | Headers:
        """Decode a block, and keep what it means if it always means the same."""
        decoder = self._decoder
        lines = decoder.decode(block, MAX_HEAD_BYTES)
        if decoder.generation != self._generation:
            self._generation = decoder.generation
            self._known.clear()
            is_lasting = False
        else:
            is_lasting = True
        if lines is None:
            raise StreamFault(Code.PROTOCOL_ERROR, "The headers are too large")
        found = read_trailers(lines) if is_trailers else read_head(lines)
        if is_lasting:
            if len(self._known) >= MAX_KNOWN_BLOCKS:
                self._known.clear()
            self._known[block] = found
        return found

    def _on_head(self, request: Http2Request, head: ReceivedHead, *, ends: bool) -> None:
        if head.status < 200:
            if ends:
                raise StreamFault(Code.PROTOCOL_ERROR, "An interim response ends the stream")
            return
        request.head = head
        if ends:
            self._receive_end(request)
        else:
            self._fresh.append(request)

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._credit += size
        if self._credit > CONNECTION_WINDOW // 4:
            self._write(encode_window_update(0, self._credit))
            self._credit = 0
        request = self._streams.get(number)
        if request is None or request.is_received:
            self._check_opened(number)
            return
        data = without_padding(payload, flags)
        if request.head is None and not request.has_head:
            raise StreamFault(Code.PROTOCOL_ERROR, "A body comes before its head")
        if data:
            if request.has_head:
                if request.response_stream is not None:
                    request.response_stream.response_data(data)
            else:
                request.parts.append(data)
        if flags & END_STREAM:
            if not request.is_received:
                self._receive_end(request)
        else:
            request.took(size)

    def _receive_end(self, request: Http2Request) -> None:
        request.is_received = True
        head = request.head
        response_stream, request.response_stream = request.response_stream, None
        if not request.is_sent:
            # Nothing more of the request is needed (RFC 9113 §8.1).
            self._write(encode_rst_stream(request.id, Code.CANCEL))
            request.pending.clear()
            request.pending_bytes = 0
        self._forget(request)
        if response_stream is None:
            return
        if head is None:
            response_stream.response_end()
            return
        request.head = None
        status, headers, body_bytes = head
        body = b"".join(request.parts)
        request.parts.clear()
        if not request.to_head and status not in BODILESS_STATUSES:
            if body_bytes is not None and body_bytes != len(body):
                defect = Defect("body_length", "The body is not as long as announced")
                response_stream.response_broken(Failure.INVALID, is_stale=False, defect=defect)
                return
            body_bytes = len(body)
        response_stream.response_whole(status, headers, body_bytes, body)

    def _report_fresh(self, request: Http2Request) -> None:
        """Report the head and what has come of the body of a response that is not complete."""
        head, response_stream = request.head, request.response_stream
        if head is None or response_stream is None:
            return
        request.head = None
        request.has_head = True
        parts, request.parts = request.parts, []
        response_stream.response_head(*head)
        if parts and request.response_stream is not None:
            request.response_stream.response_data(b"".join(parts))

    def _on_rst_stream(self, flags: int, number: int, payload: bytes) -> None:  # noqa: ARG002
        code = decode_number(payload)
        request = self._streams.get(number)
        if request is None:
            self._check_opened(number)
            return
        self._forget(request)
        if code == Code.REFUSED_STREAM:
            self._report_broken(request, Failure.CLOSED, is_stale=True)
            return
        name = Code(code).name if code in _CODES else "an unknown code"
        defect = Defect("reset", f"The inference server has reset the stream with {name}")
        self._report_broken(request, Failure.INVALID, defect=defect)

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS names a stream")
        if flags & ACK:
            return
        for name, value in decode_settings(payload):
            if name == Setting.INITIAL_WINDOW_SIZE:
                change, self._stream_window = value - self._stream_window, value
                for request in self._streams.values():
                    request.window += change
            elif name == Setting.MAX_FRAME_SIZE:
                self._max_frame = min(value, HIGH_WATER_BYTES)
            elif name == Setting.MAX_CONCURRENT_STREAMS:
                self._max_streams = value
        self._write(SETTINGS_ACK)
        if not self.ready.done():
            self.ready.set_result(None)
        self._pump()

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:  # noqa: ARG002
        if len(payload) != 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "PING is not 8 bytes long")
        if not flags & ACK:
            self._write(encode_frame(Kind.PING, ACK, 0, payload))

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:  # noqa: ARG002
        last_id = decode_goaway(payload)
        self._close_soon()
        for request in [one for one in self._streams.values() if one.id > last_id]:
            self._forget(request)
            self._report_broken(request, Failure.CLOSED, is_stale=True)

    def _on_window_update(self, flags: int, number: int, payload: bytes) -> None:  # noqa: ARG002
        size = decode_number(payload) & MAX_WINDOW
        if not number:
            self._window += size
        elif (request := self._streams.get(number)) is not None:
            request.window += size
        else:
            self._check_opened(number)
            return
        if self._window > MAX_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "A window is too large")
        if self._blocked:
            self._pump()

    def _on_push_promise(self, flags: int, number: int, payload: bytes) -> None:  # noqa: ARG002
        raise ConnectionFault(Code.PROTOCOL_ERROR, "Push is not enabled")

    def _check_opened(self, number: int) -> None:
        """Raise `ConnectionFault` if a stream was never opened."""
        if not number & 1 or number >= self._next_id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A stream is not open")

    def _fail_stream(self, number: int, fault: StreamFault) -> None:
        """Reset a stream because of a fault of the server."""
        request = self._streams.get(number)
        if request is None:
            return
        self._write(encode_rst_stream(number, fault.code))
        self._forget(request)
        self._report_broken(request, Failure.INVALID, defect=Defect("http2", str(fault)))

    _others: ClassVar[dict[int, Callable[["Http2Client", int, int, bytes], None]]] = {
        Kind.CONTINUATION: _on_continuation,
        Kind.RST_STREAM: _on_rst_stream,
        Kind.SETTINGS: _on_settings,
        Kind.PING: _on_ping,
        Kind.GOAWAY: _on_goaway,
        Kind.WINDOW_UPDATE: _on_window_update,
        Kind.PUSH_PROMISE: _on_push_promise,
    }


_HTTP_1 = b"HTTP/1."
_CODES = frozenset(Code)
