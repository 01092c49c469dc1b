"""The channel between a worker and a gateway process: frames and contents (`docs/wire.md` §20).

A channel is a connection that the worker opens to the attach address with ``Upgrade`` (RFC 9110
§7.8). From then on both sides send frames:

    4 bytes   length of the payload, big-endian, at most `MAX_FRAME_BYTES`
    1 byte    kind
    8 bytes   number of the call, big-endian; 0 for frames that concern no call

A kind that the receiver does not know is skipped. Calls are numbered by the gateway from 1 on, and
go on with the next number when the worker opens the connection again.

Pure.
"""

from collections.abc import Callable
from enum import IntEnum
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple, Protocol

from wire.errors import WireError

PROTOCOL = b"nvcf-channel/1"
"""The value of ``Upgrade``: the name of the protocol and its version."""
MAX_FRAME_BYTES = 1 << 20
"""The largest payload. A call that needs a larger frame goes through the queue."""
MAX_TRAILER_BYTES = 8_192
"""The most trailers of a response in a frame."""
MAX_RESPONSE_BYTES = 32_768
"""The largest response, head and body, in a frame; a longer one is delivered by POST attach."""
_HEAD = Struct("!IBQ")
HEAD_BYTES = _HEAD.size
_CALL = Struct("!36sQBQI")
_SLOTS = Struct("!Q")
_RESPONSE = Struct("!BI")
_TRAILERS = Struct("!H")
_HAS_TRAILERS = 0x80
_NUMBER_BYTES = 8
REQUEST_ID_BYTES = 36


class Kind(IntEnum):
    """What a frame is."""

    SLOTS = 1
    """Worker: the gateway may send calls up to this number in all. Payload: the number, 8 bytes."""
    CALL = 2
    """Gateway: a call. Payload: see `encode_call`."""
    BUSY = 3
    """Worker: it does not run the call, or not to its end. Payload: one byte, a `Reason`."""
    RESPONSE = 4
    """Worker: the whole response to a call. Payload: see `encode_response`."""
    QUEUED_RESPONSE = 5
    """Worker: the same for a request that it leased from the queue. Payload: see
    `encode_queued_response`."""
    LEASED = 6
    """Worker: it has leased a request from the queue. Payload: the request id, 36 bytes."""
    CANCEL = 7
    """Gateway: nobody waits for the call any more."""
    CONFIRM = 8
    """Gateway: it has so many responses of this channel, counted from its beginning. Payload: the
    count, 8 bytes. The first one after the connection was opened again has the number of the last
    call that was sent, from which on the worker counts its slots."""
    RUNNING = 9
    """Worker: after the connection was opened again; the calls that it has and has not responded
    to. Payload: their numbers, 8 bytes each. The frame's own number is that of the last call that
    arrived."""
    PING = 10
    """Gateway: the worker is to respond at once."""
    PONG = 11
    """Worker: the response to a PING."""


class Reason(IntEnum):
    """Why a worker does not complete a call."""

    HANDED_BACK = 0
    """It was not begun, or may be run again: it counts as never delivered."""
    LATE = 1
    """It was not begun, because its poll window would have ended before the response head."""
    LOST = 2
    """It was begun and has no response: it counts as one delivery."""
    BROKEN_OFF = 3
    """Its inference server broke off: it may be run once more, which does not count as a run."""


class FrameError(WireError):
    """Bytes that are no frame, or a payload that is not valid."""


def encode_frame(kind: Kind, number: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return _HEAD.pack(len(payload), kind, number) + payload


class FrameReader:
    """Cuts received bytes into frames. Holds at most one frame and one read."""

    __slots__ = ("_held", "_missing")

    def __init__(self) -> None:
        self._held = bytearray()
        self._missing = 0

    def feed(self, data: bytes, on_frame: Callable[[int, int, bytes], object]) -> None:
        """Call ``on_frame(kind, number, payload)`` for each complete frame.

        Raises `FrameError` for a frame that is larger than it may be.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._missing:
                return
            data = bytes(self._held)
            self._held.clear()
        at, end = 0, len(data)
        read = _HEAD.unpack_from
        while end - at >= HEAD_BYTES:
            size, kind, number = read(data, at)
            if size > MAX_FRAME_BYTES:
                raise FrameError("A frame is larger than 1 MiB")
            body = at + HEAD_BYTES
            if end - body < size:
                self._hold(data, at, HEAD_BYTES + size)
                return
            at = body + size
            on_frame(kind, number, data[body:at])
        if at < end:
            self._hold(data, at, HEAD_BYTES)

    def _hold(self, data: bytes, at: int, missing: int) -> None:
        self._held += data[at:] if at else data
        self._missing = missing


class FrameLink(Protocol):
    """The connection under a channel; ``is_writing_paused``: the peer does not read."""

    is_writing_paused: bool

    def send(self, frame: bytes) -> None:
        """Send a frame at the end of this turn of the loop."""

    def send_last(self) -> None:
        """Ask the user for its last frame at the end of this turn of the loop."""

    def close(self) -> None:
        """Close after sending what was sent."""

    def abort(self) -> None:
        """Close at once."""


class FrameUser(Protocol):
    """Receives frames."""

    def on_frame(self, kind: int, number: int, payload: bytes) -> None:
        """Take one frame. Raises `wire.errors.WireError`: the connection is aborted."""

    def last_frame(self) -> bytes:
        """Return what is to be sent after the other frames of this turn; empty: nothing."""

    def link_lost(self, link: object) -> None:
        """The connection ``link`` is over. Called once."""


class CallFrame:
    """A decoded CALL: what `encode_call` was given. ``head`` is an envelope of the call's head."""

    __slots__ = ("body", "confirmed", "has_rest", "head", "request_id", "requested_at_ns")

    def __init__(self, payload: bytes) -> None:
        """Raises `FrameError`."""
        if len(payload) < _CALL.size:
            raise FrameError("A call is too short")
        request_id, self.requested_at_ns, flags, self.confirmed, head_bytes = _CALL.unpack_from(
            payload
        )
        body_at = _CALL.size + head_bytes
        if body_at > len(payload):
            raise FrameError("The head of a call is longer than its frame")
        try:
            self.request_id: str = request_id.decode("ascii")
        except UnicodeDecodeError as error:
            raise FrameError("A request id is not ASCII") from error
        self.has_rest = bool(flags & 1)
        self.head = payload[_CALL.size : body_at]
        self.body = payload[body_at:]


def encode_call(  # noqa: PLR0913 - one argument per field
    number: int,
    request_id: bytes,
    requested_at_ns: int,
    head: bytes,
    body: bytes,
    *,
    has_rest: bool,
    confirmed: int,
) -> bytes | None:
    """Return the CALL frame of one call, ``None`` if it would be larger than a frame may be.

    ``request_id`` is canonical UUID text. ``requested_at_ns`` is Unix time in nanoseconds, as in
    the envelope. ``head`` is from `wire.envelope.encode_call_head`, ``body`` the first part of the
    body; ``has_rest``: the worker has to fetch more of it. ``confirmed`` is as in a CONFIRM.
    """
    size = _CALL.size + len(head) + len(body)
    if size > MAX_FRAME_BYTES:
        return None
    return b"%b%b%b%b" % (
        _HEAD.pack(size, Kind.CALL, number),
        _CALL.pack(request_id, requested_at_ns, has_rest, confirmed, len(head)),
        head,
        body,
    )


FAULTS = (b"", b"inference-lost", b"inference-invalid", b"worker", b"run-timeout")
"""What failed, if the response is a problem document of the worker (`wire.headers.NVCF_FAULT`)."""
_MAX_US = 0xFFFF_FFFF


def encode_response(
    number: int, fault: bytes, leased_us: int, response: bytes, trailers: bytes = b""
) -> bytes:
    """Return the RESPONSE frame of a call.

    ``fault`` is one of `FAULTS`, ``leased_us`` how long the worker has had the call, in
    microseconds. ``response`` is an HTTP/1.1 response as in POST attach, head and body;
    ``trailers`` are header lines, at most `MAX_TRAILER_BYTES`.
    """
    content = _encode_content(fault, leased_us, response, trailers)
    return _HEAD.pack(len(content), Kind.RESPONSE, number) + content


def encode_queued_response(
    request_id: bytes, fault: bytes, leased_us: int, response: bytes, trailers: bytes = b""
) -> bytes:
    """Return the QUEUED_RESPONSE frame of a request; the arguments are as above."""
    content = _encode_content(fault, leased_us, response, trailers)
    size = REQUEST_ID_BYTES + len(content)
    return b"%b%b%b" % (_HEAD.pack(size, Kind.QUEUED_RESPONSE, 0), request_id, content)


def _encode_content(fault: bytes, leased_us: int, response: bytes, trailers: bytes) -> bytes:
    number, leased_us = FAULTS.index(fault), min(leased_us, _MAX_US)
    if not trailers:
        return _RESPONSE.pack(number, leased_us) + response
    start = _RESPONSE.pack(number | _HAS_TRAILERS, leased_us)
    return b"%b%b%b%b" % (start, _TRAILERS.pack(len(trailers)), trailers, response)


class ResponseFrame(NamedTuple):
    """A decoded response: what `encode_response` was given, and the lease's age in seconds."""

    fault: bytes
    worker_s: float
    response: bytes
    trailers: bytes


def decode_response(payload: bytes) -> ResponseFrame:
    """Return what the payload of a RESPONSE holds. Raises `FrameError`."""
    if len(payload) < _RESPONSE.size or payload[0] & ~_HAS_TRAILERS >= len(FAULTS):
        raise FrameError("A response is too short, or its fault is unknown")
    fault, leased_us = _RESPONSE.unpack_from(payload)
    at, trailers = _RESPONSE.size, b""
    if fault & _HAS_TRAILERS:
        begin = at + _TRAILERS.size
        if len(payload) < begin:
            raise FrameError("The trailers of a response are cut off")
        at = begin + _TRAILERS.unpack_from(payload, at)[0]
        trailers = payload[begin:at]
        if len(payload) < at:
            raise FrameError("The trailers of a response are cut off")
    return ResponseFrame(FAULTS[fault & ~_HAS_TRAILERS], leased_us / 1e6, payload[at:], trailers)


def decode_request_id(payload: bytes) -> str:
    """Return the request id that a payload begins with. Raises `FrameError`."""
    text = payload[:REQUEST_ID_BYTES]
    if len(text) < REQUEST_ID_BYTES or not text.isascii():
        raise FrameError("A frame has no request id")
    return text.decode()


def encode_count(kind: Kind, count: int, number: int = 0) -> bytes:
    """Return a frame whose payload is one count: SLOTS or CONFIRM."""
    return _HEAD.pack(_SLOTS.size, kind, number) + _SLOTS.pack(count)


def decode_count(payload: bytes) -> int:
    """Return the count of a SLOTS or CONFIRM. Raises `FrameError`."""
    if len(payload) != _SLOTS.size:
        raise FrameError("A count is not 8 bytes long")
    count: int = _SLOTS.unpack(payload)[0]
    return count


def decode_reason(payload: bytes) -> Reason:
    """Return the reason of a BUSY. Raises `FrameError`."""
    try:
        return Reason(payload[0])
    except (IndexError, ValueError) as error:
        raise FrameError("A call was given back without a known reason") from error


def encode_running(last_number: int, numbers: list[int]) -> bytes:
    """Return a RUNNING frame; ``last_number`` is that of the last call that arrived."""
    payload = b"".join([number.to_bytes(_NUMBER_BYTES) for number in numbers])
    return encode_frame(Kind.RUNNING, last_number, payload)


def decode_running(payload: bytes) -> set[int]:
    """Return the numbers in a RUNNING. Raises `FrameError`."""
    if len(payload) % _NUMBER_BYTES:
        raise FrameError("A list of calls is cut off")
    starts = range(0, len(payload), _NUMBER_BYTES)
    return {int.from_bytes(payload[at : at + _NUMBER_BYTES]) for at in starts}


def channel_token(secret: bytes, request_id: str, version_id: str) -> str:
    """Return the token with which the worker that gets an envelope may open a channel.

    ``secret`` is the gateway process's own. So a token costs the process no memory; who checks one
    remembers for which requests it has been used.
    """
    text = f"{request_id}.{version_id}".encode()
    return blake2b(text, digest_size=16, key=secret).hexdigest()
