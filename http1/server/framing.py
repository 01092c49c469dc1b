"""How a response's body is delimited, and whether the connection stays open after it.

RFC 9112 §6.3 and §9.3.
"""

from enum import IntEnum
from typing import Final


class Framing(IntEnum):
    """How the end of a response's body is recognised."""

    NOT_STARTED = 0
    NO_BODY = 1
    SIZED = 2
    CHUNKED = 3
    TO_CLOSE = 4


NOT_STARTED: Final = Framing.NOT_STARTED
NO_BODY: Final = Framing.NO_BODY
SIZED: Final = Framing.SIZED
CHUNKED: Final = Framing.CHUNKED
TO_CLOSE: Final = Framing.TO_CLOSE

_CLOSE = b"connection: close\r\n"
_KEEP_ALIVE = b"connection: keep-alive\r\n"
_CHUNKED_LINE = b"transfer-encoding: chunked\r\n"


def frame_response(
    status: int, body_bytes: int | None, *, to_head: bool, to_http_1_0: bool, closes: bool
) -> tuple[Framing, bytes, bool]:
    """Return the framing, its header lines, and whether the connection closes after the response.

    ``to_head``: the request's method was HEAD. ``closes``: the connection closes in any case. A
    body of unknown length for an HTTP/1.0 client ends with the connection.
    """
    length = b"" if body_bytes is None else b"content-length: %d\r\n" % body_bytes
    if status == 204:
        framing, lines = NO_BODY, b""
    elif to_head or status == 304:
        framing, lines = NO_BODY, length
    elif body_bytes is not None:
        framing, lines = SIZED, length
    elif to_http_1_0:
        return TO_CLOSE, _CLOSE, True
    else:
        framing, lines = CHUNKED, _CHUNKED_LINE
    if closes:
        return framing, lines + _CLOSE, True
    if to_http_1_0:
        return framing, lines + _KEEP_ALIVE, False
    return framing, lines, False
