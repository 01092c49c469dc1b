"""Frames of HTTP/2: kinds, error codes, and how they look in bytes (RFC 9113 §4 and §6).

    3 bytes   length of the payload, big-endian
    1 byte    kind
    1 byte    flags
    4 bytes   stream, big-endian; the first bit is ignored

Pure.
"""

from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (RFC 9113 §3.4)."""
HEAD_BYTES = 9
MIN_FRAME_BYTES = 16_384
"""The payload that every peer takes (SETTINGS_MAX_FRAME_SIZE is no less)."""
MAX_FRAME_BYTES = (1 << 24) - 1
MAX_WINDOW = (1 << 31) - 1
FIRST_WINDOW = 65_535
"""The window of a connection, and of each stream before SETTINGS (RFC 9113 §6.9.2)."""

FRAME_HEAD = Struct(">HBBBL")
"""The length in two parts, kind, flags, stream."""
_SETTING = Struct(">HL")
_NUMBER = Struct(">L")
_GOAWAY = Struct(">LL")

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20


class Kind(IntEnum):
    """What a frame is."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Code(IntEnum):
    """Error codes (RFC 9113 §7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """Settings (RFC 9113 §6.5.2, RFC 8441 §3, RFC 9218 §2.1)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8
    NO_RFC7540_PRIORITIES = 9


class ConnectionFault(Exception):
    """The peer broke the protocol: the connection ends with GOAWAY (RFC 9113 §5.4.1).

    The text says what was wrong, and repeats nothing that the peer sent.
    """

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class StreamFault(Exception):
    """The peer broke the protocol on one stream, which is reset (RFC 9113 §5.4.2)."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def encode_frame(kind: Kind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    size = len(payload)
    return FRAME_HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def encode_headers(block: bytes, stream: int, max_bytes: int, *, ends: bool) -> bytes:
    """Return a header block as HEADERS, and CONTINUATION if it is longer than ``max_bytes``.

    ``ends``: nothing follows on the stream.
    """
    flags = END_STREAM if ends else 0
    if len(block) <= max_bytes:
        return encode_frame(Kind.HEADERS, flags | END_HEADERS, stream, block)
    frames = [encode_frame(Kind.HEADERS, flags, stream, block[:max_bytes])]
    for at in range(max_bytes, len(block), max_bytes):
        part = block[at : at + max_bytes]
        flags = END_HEADERS if at + max_bytes >= len(block) else 0
        frames.append(encode_frame(Kind.CONTINUATION, flags, stream, part))
    return b"".join(frames)


def encode_settings(settings: dict[Setting, int]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join([_SETTING.pack(name, value) for name, value in settings.items()])
    return encode_frame(Kind.SETTINGS, 0, 0, payload)


SETTINGS_ACK = encode_frame(Kind.SETTINGS, ACK, 0)


def encode_rst_stream(stream: int, code: Code) -> bytes:
    """Return a RST_STREAM frame."""
    return encode_frame(Kind.RST_STREAM, 0, stream, _NUMBER.pack(code))


def encode_window_update(stream: int, size: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return encode_frame(Kind.WINDOW_UPDATE, 0, stream, _NUMBER.pack(size))


def encode_goaway(last_stream: int, code: Code, detail: bytes = b"") -> bytes:
    """Return a GOAWAY frame; ``detail`` is for people."""
    return encode_frame(Kind.GOAWAY, 0, 0, _GOAWAY.pack(last_stream, code) + detail)


def decode_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return names and values, those that are not known too. Raises `ConnectionFault`."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS is cut off")
    settings = list(_SETTING.iter_unpack(payload))
    for name, value in settings:
        if name == Setting.INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "The initial window is too large")
        if name in _FLAGS and value > 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A setting is neither 0 nor 1")
        if name == Setting.MAX_FRAME_SIZE and not MIN_FRAME_BYTES <= value <= MAX_FRAME_BYTES:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "The largest frame has no valid size")
    return settings


_FLAGS = frozenset(
    {Setting.ENABLE_PUSH, Setting.ENABLE_CONNECT_PROTOCOL, Setting.NO_RFC7540_PRIORITIES}
)


def decode_number(payload: bytes) -> int:
    """Return the number of a RST_STREAM or WINDOW_UPDATE. Raises `ConnectionFault`."""
    if len(payload) != _NUMBER.size:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame is not 4 bytes long")
    number: int = _NUMBER.unpack(payload)[0]
    return number


def decode_goaway(payload: bytes) -> int:
    """Return the last stream of a GOAWAY. Raises `ConnectionFault`."""
    if len(payload) < _GOAWAY.size:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "GOAWAY is cut off")
    last_stream: int = _GOAWAY.unpack_from(payload)[0]
    return last_stream & MAX_WINDOW


def without_padding(payload: bytes, flags: int) -> bytes:
    """Return a DATA or HEADERS payload without its padding. Raises `ConnectionFault`."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame is padded beyond its end")
    return payload[1 : len(payload) - payload[0]]


def without_priority(payload: bytes, flags: int, stream: int) -> bytes:
    """Return a HEADERS payload without its priority. Raises `ConnectionFault`, `StreamFault`."""
    if not flags & PRIORITY_FLAG:
        return payload
    if len(payload) < 5:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
    check_priority(payload[:5], stream)
    return payload[5:]


def check_priority(payload: bytes, stream: int) -> None:
    """Raise `StreamFault` for a priority that is none; it has no other effect (RFC 9113 §5.3)."""
    if len(payload) != 5:
        raise StreamFault(Code.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes long")
    if _NUMBER.unpack(payload[:4])[0] & MAX_WINDOW == stream:
        raise StreamFault(Code.PROTOCOL_ERROR, "A stream depends on itself")
