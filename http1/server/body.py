"""A request body out of a connection's bytes: by its length, or chunked (RFC 9112 §6.3, §7.1).

Both are read in steps, so that whoever gets the bytes can ask for no more of them.
"""

import re

from http1.server.http_error import Refusal, malformed

MAX_SIZE_LINE_BYTES = 1024
MAX_EXTENSION_BYTES = 16_384
"""Of one body, over all its chunks. Nobody uses chunk extensions except to waste our time."""
MAX_TRAILER_BYTES = 16_384

_size_line = re.compile(
    rb"([0-9A-Fa-f]{1,15})((?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?)\r\n"
).fullmatch
_plain_size = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n").match
_trailer_line = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n"
).fullmatch

_SIZE, _DATA, _DATA_END, _TRAILERS, _OVER = range(5)


class SizedBody:
    """A body of ``length`` bytes; ``left`` have not come yet."""

    __slots__ = ("left",)

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def is_complete(self) -> bool:
        return not self.left

    def take(self, data: bytes, at: int, enough_bytes: int) -> tuple[bytes, int]:
        """Return the next bytes from ``at`` on, at most ``enough_bytes``, and where they end."""
        piece = data[at : at + min(self.left, enough_bytes)]
        self.left -= len(piece)
        return piece, at + len(piece)

    def is_lost(self, held_bytes: int) -> bool:
        """Whether it will never be complete when nothing comes but what is held already."""
        return self.left > held_bytes


class ChunkedBody:
    """Decodes one body. Extensions and trailers are checked and dropped.

    Holds at most an incomplete line.
    """

    __slots__ = ("_extension_bytes", "_held", "_left", "_state", "_trailer_bytes")

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0
        self._held = b""
        self._extension_bytes = 0
        self._trailer_bytes = 0

    @property
    def is_complete(self) -> bool:
        return self._state == _OVER

    def take(self, data: bytes, at: int, enough_bytes: int) -> tuple[bytes, int]:
        """Return body bytes decoded from ``at`` on, and how far that went.

        Goes on until there are ``enough_bytes`` or more, or nothing is left. Raises `Refusal` for
        what is no such body.
        """
        held = len(self._held)
        if held:
            data = self._held + data[at:]
            start, at = at - held, 0
            self._held = b""
        else:
            start = 0
        pieces: list[bytes] = []
        end = len(data)
        while at < end and enough_bytes > 0 and self._state != _OVER:
            if self._state == _SIZE:
                # A chunk that is all here in one step: many small ones must not cost much more.
                match = _plain_size(data, at)
                if match is not None:
                    size = int(match[1], 16)
                    start_of_data = match.end()
                    end_of_data = start_of_data + size
                    if 0 < size <= enough_bytes and data[end_of_data : end_of_data + 2] == b"\r\n":
                        pieces.append(data[start_of_data:end_of_data])
                        enough_bytes -= size
                        at = end_of_data + 2
                        continue
            elif self._state == _DATA:
                piece = data[at : at + min(self._left, enough_bytes)]
                pieces.append(piece)
                at += len(piece)
                enough_bytes -= len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
                continue
            after = self._line(data, at)
            if not after:
                self._held = data[at:]
                at = end
                break
            at = after
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), start + at

    def is_lost(self, held_bytes: int) -> bool:
        """Whether it will never be complete when nothing comes but what is held already."""
        return not held_bytes

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
