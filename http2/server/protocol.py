"""One HTTP/2 connection: bytes to requests, responses to bytes, and every wait and flood bounded.

A connection begins as HTTP/1.1 and becomes this one when its first bytes are the preface. A request
is one `Http2Response`; what is sent in one turn of the loop is written once. Of what a client sends
ahead at most a window is held for each request whose reader has paused, so that one of them neither
blocks its neighbours nor grows. A peer that sends what nobody needs (`http2.server.limits`) gets
GOAWAY with ENHANCE_YOUR_CALM.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic

from http1.server.connections import Connections
from http1.server.http_error import HttpError, internal_error, request_timeout
from http1.server.transport import LINGERING, OPEN, PeerConnection
from http1.stream import EncodedHead, Headers, KnownHead, Request
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
    check_priority,
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
from http2.header_blocks import NO_TABLE, BlockDecoder, BlockError, encode_status
from http2.header_blocks import encode_headers as encode_lines
from http2.pending import take
from http2.request_head import read_head, read_trailers
from http2.server.limits import (
    CONNECTION_WINDOW,
    LARGE_HEAD,
    LINGER_BYTES,
    LONG_LIVED_S,
    MAX_BLOCK_FRAMES,
    MAX_HELD_BYTES,
    MAX_NOISE,
    MAX_STREAMS,
    NOISE_OF_LARGE_HEAD,
    NOISE_OF_REFUSED,
    NOISE_OF_RESET,
    NOISE_PER_S,
    STREAM_HIGH_WATER,
    STREAM_WINDOW,
    USE_OF_FRAME,
    WORK_A_TURN,
    WORK_OF_HEAD,
)
from http2.server.response import NOTHING, Http2Response
from runtime.ids import new_uuid
from wire.grpc import is_grpc
from wire.headers import CONTENT_TYPE
from wire.http1 import BODILESS_STATUSES, split_lines
from wire.repeated import Repeated

MAX_KNOWN_BLOCKS = 64
LAST_IDLE_S = 0.5
"""So long after the last response of a drain the connection ends."""
_MAX_RESET = 256
"""So many streams that we reset are remembered: what was on its way for them is no fault."""
_MAX_REPLY_BYTES = 65_536
"""Replies to frames that wait for a peer which reads nothing; with more it is cut off."""

_BLOCKS = frozenset({Kind.HEADERS, Kind.CONTINUATION})
_repeated: Repeated[KnownHead] = Repeated()
"""Heads that came at least twice, on any connection, by all that makes them up."""
_own_lines: dict[tuple[bytes, bool, bool], bytes] = {}

log = logging.getLogger("http2.server")


class Http2Protocol(PeerConnection):
    """One connection of a client; `http1.server.protocol` makes it at the preface."""

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_frames",
        "_block_stream",
        "_blocked",
        "_credit",
        "_decoder",
        "_final_id",
        "_first_parts",
        "_generation",
        "_has_preface",
        "_has_settings",
        "_held",
        "_held_bytes",
        "_is_grpc_only",
        "_is_leaving",
        "_known",
        "_last_id",
        "_max_frame",
        "_noise",
        "_noise_at",
        "_prefix",
        "_reads_on_soon",
        "_recv_left",
        "_reply_bytes",
        "_reset",
        "_stream_window",
        "_streams",
        "_waits_s",
        "_window",
    )

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._held = bytearray()
        self._has_preface = self._has_settings = False
        self._decoder = BlockDecoder()
        self._known: tuple[dict[bytes, KnownHead], dict[bytes, KnownHead]] = ({}, {})
        self._generation = 0
        self._block: bytearray | None = None
        self._block_stream = self._block_flags = self._block_frames = 0
        self._streams: dict[int, Http2Response] = {}
        self._last_id = 0
        self._reset: dict[int, None] = {}
        self._first_parts: list[Http2Response] = []
        # Sending
        self._window = self._stream_window = FIRST_WINDOW
        self._max_frame = MIN_FRAME_BYTES
        self._prefix = NO_TABLE
        self._blocked: dict[int, Http2Response] = {}
        self._reply_bytes = 0
        # Receiving
        self._recv_left = CONNECTION_WINDOW
        self._credit = 0
        self._held_bytes = 0
        self._reads_on_soon = False
        self._is_leaving = False
        self._is_grpc_only = True
        self._final_id = MAX_WINDOW
        self._waits_s = 0.0
        self._noise = 0.0
        self._noise_at = connections.now

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {len(self._streams)} streams>"

    @property
    def held_bytes(self) -> int:
        """Bytes received that wait for their turn, or for a reader."""
        return len(self._held) + self._held_bytes

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the connection, and say what we take."""
        super().connection_made(transport)
        self._connections.add(self)
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: self._limits.max_header_bytes,
            Setting.ENABLE_CONNECT_PROTOCOL: 1,
            Setting.NO_RFC7540_PRIORITIES: 1,
        }
        self.write(encode_settings(settings))
        self.write(encode_window_update(0, CONNECTION_WINDOW - FIRST_WINDOW))

    def data_received(self, data: bytes) -> None:
        """Read bytes from the client."""
        if self._state is not OPEN:
            self.discard(len(data))
            return
        if self._held:
            self._held += data
            if self._reads_on_soon:
                self._limit_held()
                return
            data = bytes(self._held)
            self._held.clear()
        self._read(data)

    def eof_received(self) -> bool:
        """The client sends nothing more: not even the windows that a response needs."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from those of its listener and end its streams."""
        super().connection_lost(exc)
        self._connections.remove(self)
        self._break_streams()

    def pause_writing(self) -> None:
        """Hold what responses send from now on: the client does not read."""
        self.is_writing_paused = True

    def resume_writing(self) -> None:
        """Send what responses hold."""
        self.is_writing_paused = False
        self._reply_bytes = 0
        self._pump()

    # From bytes to frames

    def _read(self, data: bytes) -> None:
        """Read as far as possible now; hold the rest."""
        self._is_corked = True
        at = len(data)
        try:
            at = self._read_from(data)
        except ConnectionFault as fault:
            self._fail(fault.code, str(fault))
        except BlockError as error:
            self._fail(Code.COMPRESSION_ERROR, str(error))
        except Exception:
            log.exception("edge.connection_failed")
            self._fail(Code.INTERNAL_ERROR, "The gateway failed")
        self._is_corked = False
        if self._first_parts:
            self._end_first_parts()
        if self._out:
            self.flush()
        if self._state is not OPEN:
            return
        if at < len(data):
            self._held += data[at:] if at else data
            self._limit_held()
        self._set_deadline()

    def _read_from(self, data: bytes) -> int:
        """Return the offset in ``data`` up to which it was read."""
        at, end = 0, len(data)
        if not self._has_preface:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "The preface is incomplete")
            if end < len(PREFACE):
                return 0
            self._has_preface = True
            at = len(PREFACE)
        left = WORK_A_TURN
        read = FRAME_HEAD.unpack_from
        while end - at >= HEAD_BYTES and self._state is OPEN:
            high, low, kind, flags, number = read(data, at)
            size = high << 8 | low
            if size > MIN_FRAME_BYTES:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame is larger than 16 KiB")
            begin = at + HEAD_BYTES
            if end - begin < size:
                break
            if left <= 0:
                self._read_on_soon()
                break
            left -= WORK_OF_HEAD + (size >> 6) if kind in _BLOCKS else 1
            at = begin + size
            try:
                self._on_frame(kind, flags, number & MAX_WINDOW, data[begin:at])
            except StreamFault as fault:
                self._fail_stream(number & MAX_WINDOW, fault)
        return at

    def _on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != Kind.CONTINUATION:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A header block is interrupted")
        if kind == Kind.DATA:
            self._on_data(flags, number, payload)
        elif kind == Kind.HEADERS:
            self._on_headers(flags, number, payload)
        elif not self._has_settings and kind != Kind.SETTINGS:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "The first frame is no SETTINGS")
        elif kind == Kind.WINDOW_UPDATE:
            self._on_window_update(number, payload)
        elif kind == Kind.CONTINUATION:
            self._on_continuation(flags, number, payload)
        elif kind == Kind.RST_STREAM:
            self._on_rst_stream(number, payload)
        else:
            self._on_rare(kind, flags, number, payload)

    def _on_rare(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        self._make_noise(1.0)
        if kind == Kind.SETTINGS:
            self._on_settings(flags, number, payload)
        elif kind == Kind.PING:
            self._on_ping(flags, number, payload)
        elif kind == Kind.PRIORITY:
            _check_number(number)
            check_priority(payload, number)
        elif kind == Kind.GOAWAY:
            _check_connection(number)
            self._is_leaving = True
        elif kind == Kind.PUSH_PROMISE:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A client cannot push")

    # Header blocks

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not self._has_settings:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "The first frame is no SETTINGS")
        if not number & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A client opens a stream of a server")
        block = without_padding(payload, flags)
        try:
            block = without_priority(block, flags, number)
        except StreamFault as fault:
            raise ConnectionFault(fault.code, str(fault)) from None
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
        is_long = len(block) > LARGE_HEAD * self._limits.max_header_bytes
        if is_long or self._block_frames > MAX_BLOCK_FRAMES:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "A header block is too large")
        if flags & END_HEADERS:
            self._block = None
            self._on_block(number, bytes(block), ends=bool(self._block_flags & END_STREAM))

    def _on_block(self, number: int, block: bytes, *, ends: bool) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            self._on_trailers(stream, block, ends=ends)
            return
        if number <= self._last_id:
            # What is not decoded makes the tables differ.
            self._decode(block)
            if number not in self._reset:
                raise ConnectionFault(Code.STREAM_CLOSED, "A stream is opened a second time")
            return
        self._last_id = number
        self._open(number, block, ends=ends)

    def _open(self, number: int, block: bytes, *, ends: bool) -> None:
        """Open a stream for a request."""
        known = self._known[ends].get(block)
        if len(self._streams) >= MAX_STREAMS or number > self._final_id:
            if known is None:
                self._decode(block)
            raise StreamFault(Code.REFUSED_STREAM, "No more streams can be opened")
        if known is not None:
            self._begin(number, known.request(monotonic(), self._peer), ends=ends)
            return
        generation = self._decoder.generation
        headers = self._decode(block)
        if headers is None:
            self._make_noise(NOISE_OF_LARGE_HEAD)
            error = HttpError(431, "headers-too-large", "The headers are too many or too large")
            self._begin_refused(number, error, ends=ends)
            return
        try:
            request = self._request_of(headers, ends=ends)
        except HttpError as error:
            self._begin_refused(number, error, ends=ends)
            return
        if request.known is not None and self._decoder.generation == generation:
            # A block that enters something into the table does so each time that it comes.
            blocks = self._known[ends]
            if len(blocks) >= MAX_KNOWN_BLOCKS:
                blocks.clear()
            blocks[block] = request.known
        self._begin(number, request, ends=ends)

    def _decode(self, block: bytes) -> Headers | None:
        headers = self._decoder.decode(block, self._limits.max_header_bytes)
        if self._decoder.generation != self._generation:
            self._generation = self._decoder.generation
            for known in self._known:
                known.clear()
        return headers

    def _request_of(self, headers: Headers, *, ends: bool) -> Request:
        """Return the request with these headers; keep it if it came before."""
        parts = [part for header in headers for part in header]
        key = b"%d\n%b" % (ends, b"\n".join(parts))
        known = _repeated.known.get(key)
        # No name or value of a valid request has a line feed.
        if known is not None and key.count(b"\n") == len(parts):
            return known.request(monotonic(), self._peer)
        request = read_head(headers, self._limits, monotonic(), self._peer, ends=ends)
        if known is None and not request.protocol and _repeated.has_come(key):
            request.known = KnownHead(request)
            _repeated.keep(key, request.known)
        return request

    def _on_trailers(self, stream: Http2Response, block: bytes, *, ends: bool) -> None:
        headers = self._decode(block)
        if stream.is_received:
            raise StreamFault(Code.STREAM_CLOSED, "A request is over")
        if not ends or headers is None:
            raise StreamFault(Code.PROTOCOL_ERROR, "Trailers do not end the stream")
        stream.request_trailers = read_trailers(headers)
        if stream.body_left:
            raise StreamFault(Code.PROTOCOL_ERROR, "A body is shorter than announced")
        self._receive_end(stream)

    # Requests

    def _begin(self, number: int, request: Request, *, ends: bool) -> None:
        """Dispatch a request."""
        is_head = request.method == b"HEAD"
        response = Http2Response(self, number, request.target, self._stream_window, to_head=is_head)
        response.is_received = ends
        response.heard_at = response.begun_at = self._connections.now
        self._streams[number] = response
        self._waits_s = self._deadline = inf
        if not ends:
            response.body_left = request.body_bytes
            response.expects_continue = b"expect" in request.values
            response.is_patient = is_grpc(request.values.get(CONTENT_TYPE, b""))
        if not response.is_patient:
            self._is_grpc_only = False
        self._make_use()
        try:
            stream = self._connections.dispatch(request, response)
            if response.connection is None:
                return
            response.stream = stream
            if response.is_paused:
                stream.pause_writing()
            if ends:
                stream.request_end()
            elif request.body_bytes is None:
                response.owes_first_part_end = True
                self._first_parts.append(response)
        except Exception:
            log.exception("edge.exchange_failed", extra=self._fail_exchange(response))
        if response.expects_continue and not response.is_body_paused:
            self.body_wanted(response)

    def _begin_refused(self, number: int, error: HttpError, *, ends: bool) -> None:
        response = Http2Response(self, number, error.target, self._stream_window, to_head=False)
        response.is_received = ends
        response.heard_at = self._connections.now
        self._streams[number] = response
        self._waits_s = self._deadline = inf
        self._send_error(response, error)

    def _call(
        self, response: Http2Response, report: Callable[..., object], *arguments: object
    ) -> None:
        """Report an event to a request's stream; if that fails, so does its exchange alone."""
        try:
            report(*arguments)
        except Exception:
            log.exception("edge.exchange_failed", extra=self._fail_exchange(response))

    def _fail_exchange(self, response: Http2Response) -> dict[str, dict[str, str]]:
        """Respond 500; return what the log tells besides the error."""
        request_id = new_uuid()
        self._send_error(response, internal_error(), request_id)
        return {"fields": {"request_id": request_id}}

    def _send_error(self, response: Http2Response, error: HttpError, request_id: str = "") -> None:
        """Respond with an error, and end the request's stream; a response that began is reset."""
        stream, response.stream = response.stream, None
        request_id = request_id or new_uuid()
        if response.connection is not None:
            if response.is_started:
                response.abort()
            else:
                headers, body = error.response(response.target, request_id)
                response.send_head(error.status, headers, len(body))
                response.send_data(body)
                response.send_end()
            address = self._peer.address
            self._connections.on_error(error, response.target, address, request_id)
        if stream is not None:
            stream.request_broken()

    def _end_first_parts(self) -> None:
        """Tell of bodies of unknown length that all that came with their heads is delivered."""
        first_parts, self._first_parts = self._first_parts, []
        for response in first_parts:
            stream = response.stream
            if response.owes_first_part_end and stream is not None:
                response.owes_first_part_end = False
                self._call(response, stream.first_part_end)

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._recv_left -= size
        if self._recv_left < 0:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "The connection's window is used up")
        self._credit += size
        self._grant()
        stream = self._streams.get(number)
        if stream is None or stream.is_received:
            self._check_opened(number)
            if number in self._reset:
                return
            raise StreamFault(Code.STREAM_CLOSED, "A request is over")
        stream.recv_left -= size
        if stream.recv_left < 0:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "A stream's window is used up")
        data = without_padding(payload, flags)
        ends = bool(flags & END_STREAM)
        left = stream.body_left
        if left is not None:
            stream.body_left = left = left - len(data)
            if left < 0 or (ends and left):
                raise StreamFault(Code.PROTOCOL_ERROR, "A body is not as long as announced")
        stream.credit += size - len(data)
        stream.heard_at = self._connections.now
        stream.expects_continue = False
        if data:
            self._make_use()
            self._receive(stream, data, ends=ends)
        elif not ends:
            self._make_noise(1.0)
        if ends:
            self._receive_end(stream)

    def _receive(self, stream: Http2Response, data: bytes, *, ends: bool) -> None:
        """Deliver the next bytes of a body, or hold them."""
        if stream.stream is None:
            # The response is over. Its client may wait until it has sent everything.
            stream.lingered += len(data)
            if stream.lingered > LINGER_BYTES:
                raise StreamFault(Code.NO_ERROR, "The response is complete")
        elif stream.is_body_paused or stream.held:
            if stream.held is NOTHING:
                stream.held = deque()
            stream.held.append(data)
            self._held_bytes += len(data)
            return
        else:
            self._call(stream, stream.stream.request_data, data)
        stream.credit += len(data)
        if not ends and stream.id in self._streams:
            self._grant_stream(stream)

    def _receive_end(self, stream: Http2Response) -> None:
        stream.is_received = True
        if not stream.held:
            self._deliver_end(stream)

    def _deliver_end(self, stream: Http2Response) -> None:
        stream.owes_first_part_end = False
        if stream.stream is not None:
            if stream.request_trailers:
                self._call(stream, stream.stream.request_trailers, stream.request_trailers)
            if stream.stream is not None:
                self._call(stream, stream.stream.request_end)
        elif stream.is_sent and not stream.pending:
            self._forget(stream)

    def _grant(self) -> None:
        """Grant window for the connection: it need not wait for readers, as long as few wait."""
        if 4 * self._credit >= CONNECTION_WINDOW and self._held_bytes <= MAX_HELD_BYTES:
            self._reply(encode_window_update(0, self._credit))
            self._recv_left += self._credit
            self._credit = 0

    def _grant_stream(self, stream: Http2Response) -> None:
        granted = stream.grant()
        if granted:
            self._reply(encode_window_update(stream.id, granted))

    # Other frames

    def _on_rst_stream(self, number: int, payload: bytes) -> None:
        _check_number(number)
        decode_number(payload)
        stream = self._streams.get(number)
        if stream is None:
            self._check_opened(number)
            self._make_noise(1.0)
            return
        if not stream.is_sent:
            is_old = self._connections.now - stream.begun_at >= LONG_LIVED_S
            self._make_noise(1.0 if is_old else NOISE_OF_RESET)
        self._break(stream)

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        _check_connection(number)
        if flags & ACK:
            if payload:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "An acknowledgement is not empty")
            if not self._has_settings:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "The first frame is no SETTINGS")
            return
        self._has_settings = True
        settings = decode_settings(payload)
        self._make_noise(float(len(settings)))
        # Of several values for one setting the last one counts (RFC 9113 §6.5.3).
        for name, value in dict(settings).items():
            if name == Setting.INITIAL_WINDOW_SIZE:
                change, self._stream_window = value - self._stream_window, value
                for stream in self._streams.values():
                    stream.window += change
                    if stream.window > MAX_WINDOW:
                        raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "A window is too large")
                    self._unblock(stream)
            elif name == Setting.MAX_FRAME_SIZE:
                self._max_frame = min(value, self._limits.high_water_bytes)
        self._reply(SETTINGS_ACK)
        self._pump()

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        _check_connection(number)
        if len(payload) != 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "PING is not 8 bytes long")
        if not flags & ACK:
            self._reply(encode_frame(Kind.PING, ACK, 0, payload))

    def _on_window_update(self, number: int, payload: bytes) -> None:
        size = decode_number(payload) & MAX_WINDOW
        self._make_noise(1.0)
        if not number:
            if not size:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "A window grows by nothing")
            self._window += size
            if self._window > MAX_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "A window is too large")
            self._pump()
            return
        stream = self._streams.get(number)
        if stream is None:
            self._check_opened(number)
            return
        if not size:
            raise StreamFault(Code.PROTOCOL_ERROR, "A window grows by nothing")
        stream.window += size
        if stream.window > MAX_WINDOW:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "A window is too large")
        stream.heard_at = self._connections.now
        self._unblock(stream)
        self._pump()

    def _check_opened(self, number: int) -> None:
        """Raise `ConnectionFault` if a stream was never opened."""
        if not number or number > self._last_id or not number & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A stream is not open")

    # Floods

    def _make_noise(self, size: float) -> None:
        """Count frames that are of no use. Raises `ConnectionFault`."""
        self._noise += size
        if self._noise > MAX_NOISE:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "Too many frames of no use")

    def _make_use(self) -> None:
        if self._noise > 0.0:
            self._noise -= USE_OF_FRAME

    def _reply(self, frame: bytes) -> None:
        """Send a reply to a frame; a peer that reads none is cut off."""
        self.write(frame)
        if self.is_writing_paused:
            self._reply_bytes += len(frame)
            if self._reply_bytes > _MAX_REPLY_BYTES:
                self.peer_lost()

    # Called by streams (`http2.server.response.StreamConnection`)

    def send_interim(self, stream: Http2Response, status: int, headers: Headers) -> None:
        """Send the head of an interim response."""
        self._write_block(stream, encode_status(status) + encode_lines(headers), ends=False)

    def send_head(
        self, stream: Http2Response, status: int, headers: Headers, body_bytes: int | None
    ) -> None:
        """Send the head of a response."""
        date = server = True
        for name, _ in headers:
            if name == b"date":
                date = False
            elif name == b"server":
                server = False
        block = encode_status(status) + encode_lines(headers) + self._own_lines(date, server)
        if body_bytes is not None and status not in BODILESS_STATUSES:
            block += encode_lines([(b"content-length", b"%d" % body_bytes)])
        self._write_block(stream, block, ends=stream.to_head)

    def send_whole(
        self,
        stream: Http2Response,
        head: EncodedHead,
        more_lines: bytes,
        body_bytes: int | None,
        body: bytes,
        trailers: Headers,
    ) -> None:
        """Send a whole response, at once if the windows allow it."""
        block = head.block
        if not block:
            block = head.block = encode_status(head.status) + encode_lines(head.headers)
        more = split_lines(more_lines)
        if body_bytes is not None and head.status not in BODILESS_STATUSES:
            more.append((b"content-length", b"%d" % body_bytes))
        block += encode_lines(more) + self._own_lines(not head.has_date, not head.has_server)
        stream.is_sent = True
        stream.trailers = trailers
        size = len(body)
        self._write_block(stream, block, ends=not size and not trailers)
        if size:
            self.send_data(stream, body, ends=not trailers)
        if trailers:
            self.response_ended(stream)
        elif not size:
            self._end(stream)

    def send_data(self, stream: Http2Response, data: bytes, *, ends: bool) -> None:
        """Send the next bytes of a body, as far as the windows allow."""
        size = len(data)
        if (
            stream.pending
            or self.is_writing_paused
            or size > stream.window
            or size > self._window
            or size > self._max_frame
        ):
            self._queue(stream, data)
            return
        self._window -= size
        stream.window -= size
        flags = END_STREAM if ends else 0
        self.write(FRAME_HEAD.pack(size >> 8, size & 0xFF, Kind.DATA, flags, stream.id) + data)
        self._make_use()
        if ends:
            self._end(stream)

    def response_ended(self, stream: Http2Response) -> None:
        """Send a stream's trailers, unless something has to be sent before."""
        if stream.to_head:
            self._end(stream)
        elif not stream.pending:
            self._send_last(stream)

    def reset_stream(self, stream: Http2Response) -> None:
        """End a stream so that the client sees a broken response."""
        self._reset_stream(stream, Code.INTERNAL_ERROR)

    def body_wanted(self, stream: Http2Response) -> None:
        """Ask for a request's body if the client waits to be asked; deliver what is held."""
        if stream.expects_continue and not stream.is_started and stream.connection is not None:
            stream.expects_continue = False
            self._write_block(stream, encode_status(100), ends=False)
        if stream.held:
            self._read_on_soon()

    # Sending

    def _write_block(self, stream: Http2Response, block: bytes, *, ends: bool) -> None:
        if self._prefix:
            block, self._prefix = self._prefix + block, b""
        self.write(encode_headers(block, stream.id, self._max_frame, ends=ends))
        self._make_use()

    def _own_lines(self, date: bool, server: bool) -> bytes:
        """Return the lines that the server adds, encoded once a second."""
        connections = self._connections
        key = (connections.date_line, date, server)
        lines = _own_lines.get(key)
        if lines is None:
            plain = [line for line in (date and key[0], server and connections.server_line) if line]
            headers = [line[:-2].partition(b": ")[::2] for line in plain]
            if len(_own_lines) >= 8:
                _own_lines.clear()
            lines = _own_lines[key] = encode_lines(headers)
        return lines

    def _queue(self, stream: Http2Response, data: bytes) -> None:
        if not stream.pending:
            stream.heard_at = self._connections.now
        if stream.pending is NOTHING:
            stream.pending = deque()
        stream.pending.append(data)
        stream.pending_bytes += len(data)
        self._unblock(stream)
        if not self.is_writing_paused:
            self._pump()
        if stream.pending_bytes > STREAM_HIGH_WATER and not stream.is_paused:
            stream.is_paused = True
            if stream.stream is not None:
                stream.stream.pause_writing()

    def _unblock(self, stream: Http2Response) -> None:
        if stream.pending and (stream.window > 0 or not stream.pending_bytes):
            self._blocked[stream.id] = stream

    def _pump(self) -> None:
        """Send what waits, a frame of each stream in turn, as far as the windows allow."""
        blocked = self._blocked
        while blocked and not self.is_writing_paused and self._state is OPEN:
            number, stream = next(iter(blocked.items()))
            del blocked[number]
            size = 0
            if stream.pending_bytes:
                size = min(stream.window, self._window, self._max_frame, stream.pending_bytes)
                if size <= 0:
                    if self._window <= 0:
                        blocked[number] = stream
                        return
                    # It comes back with its own window.
                    continue
            self._send_pending(stream, size)
            if stream.pending and stream.window > 0:
                blocked[number] = stream

    def _send_pending(self, stream: Http2Response, size: int) -> None:
        """Send ``size`` bytes of what waits, and the end if it comes then."""
        pending = stream.pending
        data = take(pending, size)
        while pending and not pending[0]:
            pending.popleft()
        stream.pending_bytes -= size
        stream.window -= size
        self._window -= size
        stream.heard_at = self._connections.now
        is_last = stream.is_sent and not pending
        flags = END_STREAM if is_last and not stream.trailers else 0
        if size or flags:
            self.write(FRAME_HEAD.pack(size >> 8, size & 0xFF, Kind.DATA, flags, stream.id) + data)
            self._make_use()
        if is_last:
            if stream.trailers:
                self._send_last(stream)
            else:
                self._end(stream)
        elif stream.is_paused and stream.pending_bytes <= STREAM_HIGH_WATER // 2:
            stream.is_paused = False
            if stream.stream is not None:
                stream.stream.resume_writing()

    def _send_last(self, stream: Http2Response) -> None:
        self._write_block(stream, encode_lines(stream.trailers), ends=True)
        self._end(stream)

    # Ends

    def _end(self, stream: Http2Response) -> None:
        """The response is sent."""
        stream.stream = None
        self._drop_held(stream)
        if stream.is_received:
            self._forget(stream)
        else:
            # An answer during an upload: the client may read it only when it has sent everything.
            stream.heard_at = self._connections.now
            self._grant_rest(stream)

    def _grant_rest(self, stream: Http2Response) -> None:
        granted = STREAM_WINDOW - stream.recv_left
        if granted > 0 and self._state is OPEN:
            stream.recv_left += granted
            stream.credit = 0
            self._reply(encode_window_update(stream.id, granted))

    def _forget(self, stream: Http2Response) -> None:
        """A stream is over on both sides."""
        self._streams.pop(stream.id, None)
        self._blocked.pop(stream.id, None)
        if not self._streams and self._state is OPEN and not self._is_corked:
            self._set_deadline()

    def _drop(self, stream: Http2Response) -> None:
        self._drop_held(stream)
        self._forget(stream)

    def _drop_held(self, stream: Http2Response) -> None:
        """Nobody reads any more what is held of a body: others may have its room."""
        if stream.held:
            self._held_bytes -= sum(map(len, stream.held))
            stream.held.clear()
            if self._state is OPEN:
                self._grant()

    def _break(self, stream: Http2Response) -> None:
        """A stream is over because its client says so, or because of a fault of the client."""
        self._drop(stream)
        reader = stream.disconnect()
        if reader is not None:
            reader.request_broken()

    def _reset_stream(self, stream: Http2Response, code: Code) -> None:
        if self._state is OPEN:
            self.write(encode_rst_stream(stream.id, code))
            self._remember_reset(stream.id)
        self._drop(stream)

    def _remember_reset(self, number: int) -> None:
        if len(self._reset) >= _MAX_RESET:
            del self._reset[next(iter(self._reset))]
        self._reset[number] = None

    def _fail_stream(self, number: int, fault: StreamFault) -> None:
        """Reset a stream because of a fault of the client."""
        if number > self._last_id or not number:
            raise ConnectionFault(fault.code, str(fault))
        if fault.code is Code.REFUSED_STREAM:
            self._make_noise(NOISE_OF_REFUSED)
        elif fault.code is not Code.NO_ERROR:
            self._make_noise(NOISE_OF_RESET)
        self.write(encode_rst_stream(number, fault.code))
        self._remember_reset(number)
        stream = self._streams.get(number)
        if stream is not None:
            self._break(stream)

    def _fail(self, code: Code, detail: str) -> None:
        """End the connection because of a fault."""
        if self._state is OPEN:
            self._go_away(code, detail.encode())

    def _go_away(self, code: Code, detail: bytes = b"") -> None:
        """Say which stream was the last one, and close."""
        self.write(encode_goaway(self._last_id, code, detail))
        self._held.clear()
        self._deadline = inf
        # With TLS the end can be said only by closing, and the transport waits for the peer's.
        self.close(linger=code is not Code.NO_ERROR and self._transport.can_write_eof())
        self._break_streams()

    def _break_streams(self) -> None:
        streams, self._streams = self._streams, {}
        self._blocked.clear()
        self._first_parts.clear()
        self._held_bytes = 0
        for stream in streams.values():
            reader = stream.disconnect()
            if reader is not None:
                try:
                    reader.request_broken()
                except Exception:
                    log.exception("edge.exchange_failed")

    def peer_lost(self) -> None:
        """End every stream with `request_broken` and reset the connection."""
        self._held.clear()
        self.reset()
        self._break_streams()

    def drain(self) -> None:
        """Close soon after the last request is over (`_set_deadline`).

        With requests of gRPC alone, the client is told now: its next ones go elsewhere.
        """
        if self._state is not OPEN:
            return
        if not self._streams:
            self._set_deadline()
        elif self._is_grpc_only:
            self.write(encode_goaway(self._last_id, Code.NO_ERROR))
            self._final_id = self._last_id

    # Held bytes

    def _limit_held(self) -> None:
        if len(self._held) >= self._limits.high_water_bytes and self._reads_on_soon:
            self.pause_reading()

    def _read_on_soon(self) -> None:
        if not self._reads_on_soon:
            self._reads_on_soon = True
            self._connections.read_on_soon(self)

    def read_on(self) -> None:
        """Deliver held bodies, then read the held bytes, then the socket."""
        self._reads_on_soon = False
        if self._state is not OPEN:
            return
        for stream in [one for one in self._streams.values() if one.held]:
            self._deliver_held(stream)
        if self._held and self._state is OPEN:
            data = bytes(self._held)
            self._held.clear()
            self._read(data)
        if not self._reads_on_soon:
            self.resume_reading()

    def _deliver_held(self, stream: Http2Response) -> None:
        held = stream.held
        while held and not stream.is_body_paused and stream.stream is not None:
            data = held.popleft()
            self._held_bytes -= len(data)
            stream.credit += len(data)
            self._call(stream, stream.stream.request_data, data)
        if self._state is not OPEN or held:
            return
        if stream.is_received:
            self._deliver_end(stream)
        else:
            stream.heard_at = self._connections.now
            self._grant_stream(stream)
        self._grant()

    # Time

    def _set_deadline(self) -> None:
        """Set the deadline of the connection itself; that of a stream is its own."""
        if self._block is not None or (self._held and not self._streams):
            waits_s = self._limits.head_timeout_s
        elif self._streams:
            waits_s = inf
        elif self._connections.closes_idle or self._is_leaving:
            # Not at once: a GOAWAY that httpx reads with a response fails the call.
            waits_s = LAST_IDLE_S
        else:
            waits_s = self._limits.idle_timeout_s
        if waits_s != self._waits_s:
            # Else it goes on: neither a head in pieces nor PINGs put it off.
            self._waits_s = waits_s
            self.wait(waits_s)

    def check(self, now: float) -> None:
        """Apply every time limit; ``now`` is `Connections.now`."""
        self._noise = max(0.0, self._noise - NOISE_PER_S * (now - self._noise_at))
        self._noise_at = now
        if self._deadline <= now:
            self._deadline = inf
            if self._state is OPEN:
                self._go_away(Code.NO_ERROR)
            elif self._state is LINGERING:
                self.end_linger()
        elif self.is_peer_gone(now):
            self.peer_lost()
        elif not self._is_reading and self.has_socket_error():
            self.peer_lost()
        for stream in list(self._streams.values()):
            self._check_stream(stream, now)

    def _check_stream(self, stream: Http2Response, now: float) -> None:
        waited_s = now - stream.heard_at
        limits = self._limits
        if stream.pending:
            if waited_s > limits.write_stall_s and not self.is_writing_paused:
                self._reset_stream(stream, Code.CANCEL)
                self._break(stream)
        elif stream.is_received or stream.is_tunnel:
            return
        elif stream.stream is None:
            if waited_s > limits.linger_s:
                self._reset_stream(stream, Code.NO_ERROR)
        elif stream.is_body_paused or stream.held or stream.is_patient:
            return
        elif waited_s > limits.body_stall_s:
            self._send_error(stream, request_timeout())


def _check_connection(number: int) -> None:
    if number:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame of the connection names a stream")


def _check_number(number: int) -> None:
    if not number:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame of a stream names none")
