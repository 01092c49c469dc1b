"""Takes GOAWAY out of what a server sends, before h2 reads it.

h2 closes its state machine at a GOAWAY and refuses every later frame. But streams up to the last
one that the server names go on to their ends (RFC 9113 §6.8). Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_HEAD_BYTES = 9
_GOAWAY = 7
_GOAWAY_BYTES = 8
_MAX_FRAME_BYTES = 16_384
"""What this client allows: it never raises SETTINGS_MAX_FRAME_SIZE."""


@dataclass(frozen=True, slots=True)
class GoawayFrame:
    """The server takes no stream above ``last_stream``; ``code`` is an error code, 0 for none."""

    last_stream: int
    code: int


class FrameTooLong(Exception):
    """The server sent no HTTP/2, or a frame above the limit."""


class GoawayFilter:
    """Splits a byte stream into whole frames for h2, and GOAWAY frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes | GoawayFrame]:
        """Yield the frames that are complete now: runs of frames for h2 as bytes.

        Raises `FrameTooLong`, where h2 would wait for the end of the frame: the first bytes of a
        server that speaks something else announce millions.
        """
        buffer = self._buffer
        buffer += data
        begin = end = 0
        while len(buffer) >= end + _HEAD_BYTES:
            size = int.from_bytes(buffer[end : end + 3], "big")
            if size > _MAX_FRAME_BYTES:
                raise FrameTooLong("a frame is longer than this client allows")
            following = end + _HEAD_BYTES + size
            if len(buffer) < following:
                break
            if buffer[end + 3] == _GOAWAY and size >= _GOAWAY_BYTES:
                if begin < end:
                    yield bytes(buffer[begin:end])
                yield _goaway(buffer[end + _HEAD_BYTES : following])
                begin = following
            end = following
        if begin < end:
            yield bytes(buffer[begin:end])
        del buffer[:end]


def _goaway(payload: bytearray) -> GoawayFrame:
    last_stream = int.from_bytes(payload[:4], "big") & 0x7FFF_FFFF
    return GoawayFrame(last_stream, int.from_bytes(payload[4:8], "big"))
