"""What the programs know of gRPC: statuses, errors and deadlines (gRPC over HTTP/2).

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and ``docs/wire.md`` §21.
"""

import re
from urllib.parse import quote

from wire.deadlines import MAX_POLL_S
from wire.headers import CONTENT_TYPE
from wire.http1 import encode_response_head

CONTENT = b"application/grpc"
STATUS = b"grpc-status"
MESSAGE = b"grpc-message"
TIMEOUT = b"grpc-timeout"

UNKNOWN = 2
DEADLINE_EXCEEDED = 4
RESOURCE_EXHAUSTED = 8
INTERNAL = 13
UNAVAILABLE = 14
_STATUSES = {
    400: 3,  # INVALID_ARGUMENT
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 5,  # NOT_FOUND
    405: 12,  # UNIMPLEMENTED
    408: DEADLINE_EXCEEDED,
    409: 10,  # ABORTED
    413: RESOURCE_EXHAUSTED,
    415: 3,
    417: 3,
    421: 5,
    429: RESOURCE_EXHAUSTED,
    431: RESOURCE_EXHAUSTED,
    499: 1,  # CANCELLED
    500: INTERNAL,
    501: 12,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
_timeout = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch
_UNITS_NS = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1_000,
    b"n": 1,
}
_MAX_DIGITS = 99_999_999
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
"""What a message holds as it is; everything else is percent-encoded."""

MESSAGE_OF_NO_BYTES = b"\0" * 5
"""A message of no bytes, such as `grpc.health.v1.HealthCheckRequest` for the whole server."""


def is_grpc(content_type: bytes) -> bool:
    """Return whether a content type is gRPC's; that of gRPC-Web is not."""
    return content_type.startswith(CONTENT) and content_type[len(CONTENT) :][:1] in b"+;"


def status_of(http_status: int) -> int:
    """Return the gRPC status that says what a status of HTTP says."""
    return _STATUSES.get(http_status, UNKNOWN)


def encode_error(status: int, detail: str) -> list[tuple[bytes, bytes]]:
    """Return the trailers of an error; ``status`` is gRPC's, ``detail`` for people."""
    return [(STATUS, b"%d" % status), (MESSAGE, quote(detail, safe=_PLAIN).encode())]


def error_response(status: int, detail: str) -> bytes:
    """Return a whole HTTP/1.1 response that is nothing but an error ("Trailers-Only")."""
    headers = [(CONTENT_TYPE, CONTENT), *encode_error(status, detail)]
    return encode_response_head(200, headers, b"content-length: 0\r\n")


def window_s(timeout: bytes | None, poll_s: int | None) -> int | None:
    """Return the poll window of a call, in seconds; ``None`` if the deadline is not valid.

    ``timeout`` is its deadline; ``poll_s`` is the window that it asks for besides. Without both it
    waits for as long as a call may.
    """
    if timeout is None:
        return MAX_POLL_S if poll_s is None else poll_s
    timeout_ns = decode_timeout(timeout)
    if timeout_ns is None:
        return None
    asked_s = max(-(-timeout_ns // _UNITS_NS[b"S"]), 1)
    return min(asked_s, MAX_POLL_S if poll_s is None else poll_s)


def decode_timeout(value: bytes) -> int | None:
    """Return a deadline in nanoseconds from now, ``None`` if it is not valid."""
    match = _timeout(value)
    return int(match[1]) * _UNITS_NS[match[2]] if match is not None else None


def encode_timeout(left_ns: int) -> bytes:
    """Return a deadline, at least one nanosecond from now, in the finest unit that holds it."""
    left_ns = max(left_ns, 1)
    for unit in (b"n", b"u", b"m", b"S", b"M"):
        count = left_ns // _UNITS_NS[unit]
        if count <= _MAX_DIGITS:
            return b"%d%b" % (max(count, 1), unit)
    return b"%dH" % min(left_ns // _UNITS_NS[b"H"], _MAX_DIGITS)


def request_head(path: bytes, authority: bytes) -> bytes:
    """Return the HTTP/1.1 head of a call of this program's own, with its blank line."""
    return b"POST %b HTTP/1.1\r\nHost: %b\r\ncontent-type: %b\r\n\r\n" % (
        path,
        authority,
        CONTENT,
    )
