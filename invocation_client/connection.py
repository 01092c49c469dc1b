"""One HTTP/2 connection of a client: streams, flow control, PINGs and GOAWAY, without I/O.

A connection is STARTING until the server's SETTINGS have come, then OPEN. A GOAWAY makes it
DRAINING: no more streams begin, those that the server has taken go on. It is CLOSED when the last
of them ends, when it was idle for too long, or with a failure that every open stream gets.

A shell passes on what it reads (`receive`, `lost`) and the time (`tick`, due at `next_tick_at`).
After each call it sends `data_to_send` and wakes who waits for one of `changed`. The window of a
stream grows only as its data is taken, so a slow reader slows down its own response. The window of
the connection grows as data comes, so that nothing else is slowed down. Pure.
"""

from collections import deque
from contextlib import suppress
from enum import Enum, auto

import httpx
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error, StreamClosedError
from h2.settings import SettingCodes, Settings

from invocation_client.failures import CallFailure, Processing
from invocation_client.goaway import FrameTooLong, GoawayFilter, GoawayFrame
from invocation_client.pings import PingSchedule
from invocation_client.request_head import Fields

STREAM_WINDOW_BYTES = 1 << 20
"""How much of one response waits for its reader at most."""
CANCELLED = CallFailure(httpx.ReadError, "the call was cancelled")
CLOSED = CallFailure(httpx.ReadError, "the transport was closed")
_CONNECTION_WINDOW_BYTES = 1 << 22
_FIRST_WINDOW_BYTES = 65_535
_MAX_HEADERS_BYTES = 65_536
_SEND_BYTES = 65_536
"""How much of a body is framed at a time."""
_LAST_STREAM = (1 << 31) - 1


class ConnectionPhase(Enum):
    """Where a connection is in its life."""

    STARTING = auto()
    OPEN = auto()
    DRAINING = auto()
    CLOSED = auto()


class CallStream:
    """One request and its response.

    ``status`` is 0 until the response head has come; ``data`` what of the body waits for the
    reader, each part with the bytes that it took of the window. ``is_ended``: the response is
    complete, ``is_sent``: the request. ``heard_at``: when the server last sent something on it.
    """

    __slots__ = (
        "credit",
        "data",
        "failure",
        "headers",
        "heard_at",
        "id",
        "is_ended",
        "is_sent",
        "status",
        "trailers",
    )

    def __init__(self, number: int, now: float, *, is_sent: bool) -> None:
        self.id = number
        self.status = 0
        self.headers: Fields = []
        self.trailers: Fields = []
        self.data: deque[tuple[bytes, int]] = deque()
        self.credit = 0
        self.is_ended = False
        self.is_sent = is_sent
        self.failure: CallFailure | None = None
        self.heard_at = now

    @property
    def is_readable(self) -> bool:
        """Whether a reader of the body need not wait."""
        return bool(self.data) or self.is_ended or self.failure is not None


class ConnectionCore:
    """See the module. ``keepalive_expiry_s``: how long it stays open without a stream."""

    def __init__(self, pings: PingSchedule, keepalive_expiry_s: float | None) -> None:
        # One malformed head ends its own call, not all of them, so h2 does not check headers. A
        # content-length that does not fit the body still makes it give up the connection.
        # What goes out was checked before (request_head.py).
        self._h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_inbound_headers=False,
                validate_outbound_headers=False,
            )
        )
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: _MAX_HEADERS_BYTES,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW_BYTES - _FIRST_WINDOW_BYTES)
        self._frames = GoawayFilter()
        self._pings = pings
        self._ping_count = 0
        self._keepalive_expiry_s = keepalive_expiry_s
        self._streams: dict[int, CallStream] = {}
        self._credit = 0
        self._goaway_note = ""
        self._idle_since = 0.0
        self.phase = ConnectionPhase.STARTING
        self.failure: CallFailure | None = None
        self.changed: set[CallStream] = set()
        """Streams with news for those who wait; the shell empties it."""

    @property
    def can_open(self) -> bool:
        """Whether one more stream may begin."""
        limit = self._h2.remote_settings.max_concurrent_streams
        return (
            self.phase is ConnectionPhase.OPEN
            and len(self._streams) < limit
            and self._h2.highest_outbound_stream_id < _LAST_STREAM - 1
        )

    @property
    def refusal(self) -> CallFailure | None:
        """Why a connection that has just started is of no use, None if it is of use."""
        if self.failure is not None or self.can_open:
            return self.failure
        return CallFailure(httpx.ConnectError, "the server allows no calls")

    @property
    def next_tick_at(self) -> float | None:
        """When `tick` has something to do, None for never."""
        if self.phase is ConnectionPhase.CLOSED:
            return None
        if self._streams:
            return self._pings.next_at
        if self.phase is ConnectionPhase.STARTING or self._keepalive_expiry_s is None:
            return None
        return self._idle_since + self._keepalive_expiry_s

    def data_to_send(self) -> bytes:
        """Return what has to be sent now, and forget it."""
        return self._h2.data_to_send()

    # What the caller does

    def open(self, fields: Fields, now: float, *, is_whole: bool) -> CallStream:
        """Begin a stream; only if it `can_open`. ``is_whole``: no body follows."""
        number = self._h2.get_next_available_stream_id()
        stream = CallStream(number, now, is_sent=is_whole)
        self._h2.send_headers(number, fields, end_stream=is_whole)
        self._streams[number] = stream
        return stream

    def is_sendable(self, stream: CallStream) -> bool:
        """Whether some of the body can be sent now, or no more has to be."""
        return self._is_over(stream) or self._h2.local_flow_control_window(stream.id) > 0

    def send(self, stream: CallStream, data: memoryview) -> int:
        """Send a beginning of ``data`` as far as windows allow; return how many bytes.

        All of it is taken, and dropped, when the server does not read the body any more.
        """
        if self._is_over(stream):
            return len(data)
        window = self._h2.local_flow_control_window(stream.id)
        size = max(0, min(len(data), window, _SEND_BYTES))
        step = self._h2.max_outbound_frame_size
        for at in range(0, size, step):
            self._h2.send_data(stream.id, bytes(data[at : min(at + step, size)]))
        return size

    def end(self, stream: CallStream, now: float) -> None:
        """The request's body is complete."""
        if stream.is_ended:
            self._reset(stream, now)  # the server has answered without all of the body
        elif not self._is_over(stream):
            self._h2.end_stream(stream.id)
            stream.is_sent = True

    def take(self, stream: CallStream) -> bytes:
        """Return what of the response's body has come, b"" if nothing; the window opens again."""
        parts = list(stream.data)
        stream.data.clear()
        if stream.id in self._streams and not stream.is_ended:
            stream.credit += sum(size for _, size in parts)
            if stream.credit >= STREAM_WINDOW_BYTES // 4:
                self._h2.increment_flow_control_window(stream.credit, stream.id)
                stream.credit = 0
        return b"".join(data for data, _ in parts)

    def cancel(self, stream: CallStream, now: float) -> None:
        """The caller has no use for the stream any more: reset it, unless it has ended.

        Whoever still waits for it gets a failure, and nobody takes what was read of it for all.
        """
        if stream.data:
            stream.data.clear()
            stream.is_ended = False
        if not stream.is_ended and stream.failure is None:
            stream.failure = CANCELLED
            self.changed.add(stream)
        self._reset(stream, now)

    def close(self) -> None:
        """Close the connection; streams that are open fail."""
        self._fail(CLOSED, ErrorCodes.NO_ERROR)

    # What the shell reports

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes of the server."""
        self._pings.heard(now)
        try:
            for part in self._frames.feed(data):
                if self.phase is ConnectionPhase.CLOSED:
                    return
                if isinstance(part, GoawayFrame):
                    self._take_goaway(part, now)
                else:
                    for event in self._h2.receive_data(part):
                        self._take_event(event, now)
        except (H2Error, FrameTooLong) as error:
            text = f"the server broke the protocol: {error}"
            self._fail(CallFailure(httpx.RemoteProtocolError, text), None)

    def lost(self, reason: str) -> None:
        """The connection has ended below HTTP/2; ``reason`` completes a sentence."""
        text = f"the connection was lost: {reason}{self._goaway_note}"
        self._fail(CallFailure(httpx.ReadError, text, write_error=httpx.WriteError), None)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if not self._streams:
            if self.next_tick_at is not None and now >= self.next_tick_at:
                self.close()
        elif self._pings.is_unanswered(now):
            text = "the server is silent: no answer to a PING in time"
            self._fail(CallFailure(httpx.ReadError, text), None)
        elif self._pings.is_due(now):
            self._ping_count += 1
            self._h2.ping(self._ping_count.to_bytes(8, "big"))
            self._pings.sent(now)

    # Inside

    def _take_event(self, event: Event, now: float) -> None:
        match event:
            case RemoteSettingsChanged():
                if self.phase is ConnectionPhase.STARTING:
                    self.phase = ConnectionPhase.OPEN
                    self._idle_since = now
                self.changed.update(self._streams.values())  # windows may have grown
            case WindowUpdated(stream_id=0):
                self.changed.update(self._streams.values())
            case DataReceived():
                self._grow_window(event.flow_controlled_length)
        number = getattr(event, "stream_id", None)
        stream = self._streams.get(number) if number else None
        if stream is not None:
            self.changed.add(stream)
            self._take_stream_event(stream, event, now)

    def _take_stream_event(self, stream: CallStream, event: Event, now: float) -> None:
        match event:
            case ResponseReceived():
                stream.heard_at = now
                self._take_head(stream, event.headers, now)
            case DataReceived():
                stream.heard_at = now
                stream.data.append((event.data, event.flow_controlled_length))
            case TrailersReceived():
                stream.heard_at = now
                stream.trailers += [(bytes(name), bytes(value)) for name, value in event.headers]
            case InformationalResponseReceived():
                stream.heard_at = now
            case StreamEnded():
                stream.is_ended = True
                if stream.is_sent:
                    self._forget(stream, now)
            case StreamReset():
                self._take_reset(stream, event.error_code)
                self._forget(stream, now)

    def _take_head(self, stream: CallStream, fields: object, now: float) -> None:
        assert isinstance(fields, list)
        status = next((value for name, value in fields if name == b":status"), b"")
        if len(status) != 3 or not status.isdigit():
            text = "the response has no valid status"
            stream.failure = CallFailure(httpx.RemoteProtocolError, text)
            self._reset(stream, now)
            return
        stream.status = int(status)
        stream.headers = [
            (bytes(name), bytes(value)) for name, value in fields if not name.startswith(b":")
        ]

    def _take_reset(self, stream: CallStream, code: ErrorCodes | int) -> None:
        if stream.is_ended:
            return  # the response is whole, the server has no use for the rest of the request
        refused = code == ErrorCodes.REFUSED_STREAM and not stream.status
        stream.failure = CallFailure(
            httpx.RemoteProtocolError,
            f"the server reset the stream: {_name(code)}",
            Processing.REFUSED if refused else Processing.POSSIBLE,
        )

    def _take_goaway(self, frame: GoawayFrame, now: float) -> None:
        if self.phase is ConnectionPhase.STARTING:
            text = f"the server takes no calls: GOAWAY, {_name(frame.code)}"
            self._fail(CallFailure(httpx.RemoteProtocolError, text), None)
            return
        self.phase = ConnectionPhase.DRAINING
        self._goaway_note = f", after GOAWAY, {_name(frame.code)}"
        text = f"the server takes no more calls on this connection: GOAWAY, {_name(frame.code)}"
        for stream in [one for one in self._streams.values() if one.id > frame.last_stream]:
            processing = Processing.POSSIBLE if stream.status else Processing.LEFT_OUT
            stream.failure = CallFailure(httpx.RemoteProtocolError, text, processing)
            self.changed.add(stream)
            self._forget(stream, now)
        self._close_if_drained()

    def _grow_window(self, size: int) -> None:
        self._credit += size
        # A quarter: h2 holds back up to a half for data of streams that were reset.
        if self._credit >= _CONNECTION_WINDOW_BYTES // 4:
            self._h2.increment_flow_control_window(self._credit)
            self._credit = 0

    def _reset(self, stream: CallStream, now: float) -> None:
        if stream.id in self._streams:
            with suppress(StreamClosedError):  # h2 has read on, maybe to the end of the stream
                self._h2.reset_stream(stream.id, ErrorCodes.CANCEL)
            self._forget(stream, now)

    def _is_over(self, stream: CallStream) -> bool:
        return stream.is_ended or stream.id not in self._streams

    def _forget(self, stream: CallStream, now: float) -> None:
        del self._streams[stream.id]
        if not self._streams:
            self._idle_since = now
            self._close_if_drained()

    def _close_if_drained(self) -> None:
        if self.phase is ConnectionPhase.DRAINING and not self._streams:
            self.phase = ConnectionPhase.CLOSED
            self._h2.close_connection()

    def _fail(self, failure: CallFailure, goaway: ErrorCodes | None) -> None:
        if self.phase is ConnectionPhase.CLOSED:
            return
        self.phase = ConnectionPhase.CLOSED
        self.failure = failure
        for stream in self._streams.values():
            stream.failure = stream.failure or failure
        self.changed.update(self._streams.values())
        self._streams.clear()
        if goaway is not None:
            self._h2.close_connection(goaway)


def _name(code: ErrorCodes | int) -> str:
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error code {code}"
