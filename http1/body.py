"""Decoders for a body: of known length, or chunked (RFC 9112 §6.3, §7.1).

Both decode in steps of bounded size, so that the receiver can pause between two steps.
"""

import re
from enum import IntEnum
from typing import Final

from http1.stream import Headers

MAX_SIZE_LINE_BYTES = 1024
MAX_EXTENSION_BYTES = 16_384
"""Maximum bytes of all chunk extensions of one body, which have no legitimate use."""
MAX_TRAILER_BYTES = 16_384
"""Maximum bytes of all trailer lines of one body, and of one of them."""
MAX_STEPS = 512
"""Maximum number of chunks, or of lines, that one call decodes: a read of 256 KB can bring 40,000
chunks of one byte, for which the other connections would wait."""
MAX_WHOLE_BYTES = 4096
"""Maximum length of a chunk that is passed on as it is: copying a larger one is the lesser cost."""

_size_line = re.compile(
    rb"([0-9A-Fa-f]{1,15})((?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?)\r\n"
).fullmatch
_plain_size = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n").match
_trailer_line = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)\r\n"
).fullmatch


class BodyError(ValueError):
    """The peer's bytes are not a chunked body.

    ``status`` is that of a response to a peer which sent a request, ``kind`` the last part of its
    problem's type.
    """

    def __init__(self, detail: str, *, status: int = 400, kind: str = "malformed-request") -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind


class ChunkState(IntEnum):
    """What a chunked body's next byte belongs to."""

    SIZE_LINE = 0
    DATA = 1
    DATA_END = 2
    TRAILERS = 3
    COMPLETE = 4


_SIZE_LINE: Final = ChunkState.SIZE_LINE
_DATA: Final = ChunkState.DATA
_DATA_END: Final = ChunkState.DATA_END
_TRAILERS: Final = ChunkState.TRAILERS
_COMPLETE: Final = ChunkState.COMPLETE
_LINE_LIMITS = (MAX_SIZE_LINE_BYTES, 0, 2, MAX_TRAILER_BYTES)
"""The longest line in each state."""
_MAX_KNOWN_FRAMINGS = 1024
_known_framings: dict[int, tuple[int, tuple[bytes, ...]]] = {}
"""What `_framing_of` returns, for lengths of events that have come."""


class SizedBody:
    """Decodes a body of ``length`` bytes; ``left`` of them have not arrived yet."""

    __slots__ = ("left",)

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def is_complete(self) -> bool:
        return not self.left

    def take(self, data: bytes, at: int, enough_bytes: int) -> tuple[bytes, int]:
        """Return up to ``enough_bytes`` body bytes from offset ``at``, and the offset reached."""
        taken = data[at : at + min(self.left, enough_bytes)]
        self.left -= len(taken)
        return taken, at + len(taken)

    def whole(self, data: bytes) -> int:  # noqa: ARG002  as `ChunkedBody.whole`
        """Return 0: there are no chunks."""
        return 0

    def is_truncated(self, held_bytes: int) -> bool:
        """Whether the body stays incomplete if only the ``held_bytes`` are still to be decoded."""
        return self.left > held_bytes


class ChunkedBody:
    """Decodes a chunked body. Extensions are checked and dropped.

    ``trailers`` are the lines of the trailer section so far, names lower case. Buffers at most one
    incomplete line. ``is_forgiving``: trailers that are none end the body, whose data is complete,
    and set ``is_flawed``; nothing that follows can be relied on.
    """

    __slots__ = (
        "_extension_bytes",
        "_held",
        "_is_forgiving",
        "_left",
        "_state",
        "_trailer_bytes",
        "is_flawed",
        "trailers",
    )

    def __init__(self, *, is_forgiving: bool = False) -> None:
        self._is_forgiving = is_forgiving
        self.is_flawed = False
        self._state: ChunkState = _SIZE_LINE
        self._left = 0
        self._held = b""
        self._extension_bytes = 0
        self._trailer_bytes = 0
        self.trailers: Headers = []

    @property
    def is_complete(self) -> bool:
        return self._state is _COMPLETE

    def take(self, data: bytes, at: int, enough_bytes: int) -> tuple[bytes, int]:
        """Return the body bytes decoded from offset ``at`` on, and the offset reached.

        Stops at ``enough_bytes``, at the end of ``data`` or after `MAX_STEPS`. Raises `BodyError`
        for bytes that are not a chunked body.
        """
        held = len(self._held)
        if held:
            decoded, reached = self._decode(self._held + data[at:], 0, enough_bytes)
            return decoded, at - held + reached
        return self._decode(data, at, enough_bytes)

    def whole(self, data: bytes) -> int:
        """Return the size of the chunk if ``data`` is exactly the body's next chunk, else 0.

        It is the usual read of a stream of events. Such a chunk needs no `take`, and can be passed
        on as it is: its first line is the size alone, in one case of letters and without zeros
        before it. One of more than `MAX_WHOLE_BYTES` is not looked at.
        """
        length = len(data)
        if length > MAX_WHOLE_BYTES or self._held or self._state is not _SIZE_LINE:
            return 0
        size, starts = _known_framings.get(length) or _framing_of(length)
        return size if data.startswith(starts) and data.endswith(b"\r\n") else 0

    def is_truncated(self, held_bytes: int) -> bool:
        """Whether the body stays incomplete if only the ``held_bytes`` are still to be decoded."""
        return not held_bytes

    def _decode(self, data: bytes, at: int, enough_bytes: int) -> tuple[bytes, int]:
        self._held = b""
        parts: list[bytes] = []
        end = len(data)
        steps = MAX_STEPS
        while at < end and enough_bytes > 0 and steps and self._state is not _COMPLETE:
            steps -= 1
            if self._state is _SIZE_LINE:
                # A chunk that has arrived completely takes one step: small chunks must be cheap.
                match = _plain_size(data, at)
                if match is not None:
                    size = int(match[1], 16)
                    start_of_data = match.end()
                    end_of_data = start_of_data + size
                    if 0 < size <= enough_bytes and data[end_of_data : end_of_data + 2] == b"\r\n":
                        parts.append(data[start_of_data:end_of_data])
                        enough_bytes -= size
                        at = end_of_data + 2
                        continue
            elif self._state is _DATA:
                taken = data[at : at + min(self._left, enough_bytes)]
                parts.append(taken)
                at += len(taken)
                enough_bytes -= len(taken)
                self._left -= len(taken)
                if not self._left:
                    self._state = _DATA_END
                continue
            after = self._line(data, at)
            if not after:
                self._held = data[at:]
                at = end
                break
            at = after
        return parts[0] if len(parts) == 1 else b"".join(parts), at

    def _line(self, data: bytes, at: int) -> int:
        """Decode the line at offset ``at``; return its end offset, 0 if it is incomplete."""
        limit = _LINE_LIMITS[self._state]
        after = data.find(b"\n", at, at + limit) + 1
        if not after:
            if len(data) - at < limit:
                return 0
            if self._state is _TRAILERS:
                return self._refuse_trailers(_large_trailers(), len(data))
            raise BodyError("A line of the chunked body is too long")
        line = data[at:after]
        if self._state is _SIZE_LINE:
            self._begin_chunk(line)
        elif self._state is _DATA_END:
            if line != b"\r\n":
                raise BodyError("A chunk is longer than its size")
            self._state = _SIZE_LINE
        elif line == b"\r\n":
            self._state = _COMPLETE
        else:
            return self._take_trailer(line, after)
        return after

    def _begin_chunk(self, line: bytes) -> None:
        match = _size_line(line)
        if match is None:
            raise BodyError("A chunk size is malformed")
        self._extension_bytes += len(match[2])
        if self._extension_bytes > MAX_EXTENSION_BYTES:
            raise BodyError("The chunk extensions are too large")
        self._left = int(match[1], 16)
        self._state = _DATA if self._left else _TRAILERS

    def _take_trailer(self, line: bytes, after: int) -> int:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            return self._refuse_trailers(_large_trailers(), after)
        match = _trailer_line(line)
        if match is None:
            return self._refuse_trailers(BodyError("A trailer line is malformed"), after)
        self.trailers.append((match[1].lower(), match[2].rstrip(b" \t")))
        return after

    def _refuse_trailers(self, error: BodyError, after: int) -> int:
        if not self._is_forgiving:
            raise error
        self.is_flawed = True
        self._state = _COMPLETE
        return after


def _framing_of(length: int) -> tuple[int, tuple[bytes, ...]]:
    """Return the size of a chunk that has ``length`` bytes with its framing, and its first line.

    The line is given in both cases of letters; 0 and none if no chunk has this length.
    """
    if len(_known_framings) >= _MAX_KNOWN_FRAMINGS:
        _known_framings.clear()
    for digits in range(1, 4):
        size = length - len(b"\r\n\r\n") - digits
        if size > 0 and len(b"%x" % size) == digits:
            _known_framings[length] = size, (b"%x\r\n" % size, b"%X\r\n" % size)
            return _known_framings[length]
    return 0, ()


def _large_trailers() -> BodyError:
    return BodyError("The trailers are too large", status=431, kind="headers-too-large")
