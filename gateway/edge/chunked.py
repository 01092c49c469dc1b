"""A chunked body, strictly and bounded (RFC 9112 §7.1)."""

import re

from gateway.edge.refusal import Refusal, malformed

MAX_SIZE_LINE_BYTES = 1024
MAX_EXTENSION_BYTES = 16_384
"""Of one body, over all its chunks. Nobody uses chunk extensions except to waste our time."""
MAX_TRAILER_BYTES = 16_384

_size_line = re.compile(
    rb"([0-9A-Fa-f]{1,15})((?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?)\r\n"
).fullmatch
_trailer_line = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n"
).fullmatch

_SIZE, _DATA, _DATA_END, _TRAILERS, _OVER = range(5)


class ChunkedBody:
    """Decodes one body. Extensions and trailers are checked and dropped.

    ``is_complete`` and then ``rest``, the bytes behind the body, are set by `feed`. Holds at most
    an incomplete line.
    """

    __slots__ = ("_extension_bytes", "_held", "_left", "_state", "_trailer_bytes", "rest")

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0
        self._held = b""
        self._extension_bytes = 0
        self._trailer_bytes = 0
        self.rest = b""

    @property
    def is_complete(self) -> bool:
        return self._state == _OVER

    def feed(self, data: bytes) -> bytes:
        """Return the body bytes that ``data`` brings. Raises `Refusal` for what is no such body.

        Not to be called again once the body is complete.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at = 0
        end = len(data)
        while at < end:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
                continue
            after = self._line(data, at)
            if not after:
                self._held = data[at:]
                break
            at = after
            if self._state == _OVER:
                self.rest = data[at:]
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _line(self, data: bytes, at: int) -> int:
        """Take the line at ``at``; return where it ends, 0 when it is not complete."""
        limit = 2 if self._state == _DATA_END else MAX_SIZE_LINE_BYTES
        after = data.find(b"\n", at, at + limit) + 1
        if not after:
            if len(data) - at >= limit:
                raise malformed("A line of the chunked body is too long")
            return 0
        line = data[at:after]
        if self._state == _SIZE:
            self._begin_chunk(line)
        elif self._state == _DATA_END:
            if line != b"\r\n":
                raise malformed("A chunk is longer than its size")
            self._state = _SIZE
        elif line == b"\r\n":
            self._state = _OVER
        else:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > MAX_TRAILER_BYTES:
                raise Refusal(431, "headers-too-large", "The trailers are too large")
            if not _trailer_line(line):
                raise malformed("A trailer line is malformed")
        return after

    def _begin_chunk(self, line: bytes) -> None:
        match = _size_line(line)
        if match is None:
            raise malformed("A chunk size is malformed")
        self._extension_bytes += len(match[2])
        if self._extension_bytes > MAX_EXTENSION_BYTES:
            raise malformed("The chunk extensions are too large")
        self._left = int(match[1], 16)
        self._state = _DATA if self._left else _TRAILERS
