"""Header blocks (HPACK, RFC 7541): decoded with the peer's table, encoded without one.

Strings in Huffman code are decoded by `hpack`, once if they are short: the same names and values
come again and again. What is sent uses the static table alone, so the same head has the same bytes
on every connection, and can be kept.

Pure.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

Header = tuple[bytes, bytes]

TABLE_BYTES: Final = 4096
"""The largest table that a peer may make us keep (SETTINGS_HEADER_TABLE_SIZE, its default)."""
_ENTRY_BYTES: Final = 32
"""What an entry counts beside its name and value (RFC 7541 §4.1)."""
_MAX_NUMBER: Final = 1 << 24
MAX_KEPT_STRINGS = 2048
MAX_KEPT_BYTES = 100

_STATIC: Final[list[Header]] = list(HeaderTable.STATIC_TABLE)
_STATIC_SIZE: Final = len(_STATIC)
_STATIC_NAMES: Final = {name: at for at, (name, _) in reversed(list(enumerate(_STATIC, 1)))}
_STATUS: Final = {
    int(value): at for at, (name, value) in enumerate(_STATIC, 1) if name == b":status"
}

NO_TABLE = b"\x20"
"""Says, at the beginning of a connection's first block, that no table is used (RFC 7541 §4.2)."""

_strings: dict[bytes, bytes] = {}


class BlockError(Exception):
    """A header block cannot be decoded: the connection's tables may differ from now on."""


class BlockDecoder:
    """Decodes the header blocks of one connection.

    ``generation`` changes with the table: a block of an earlier generation may mean something else.
    """

    __slots__ = ("_bytes", "_entries", "_limit", "generation")

    def __init__(self) -> None:
        self._entries: deque[Header] = deque()
        self._bytes = 0
        self._limit = TABLE_BYTES
        self.generation = 0

    def decode(self, block: bytes, max_bytes: int) -> list[Header] | None:
        """Return the headers of a block, ``None`` if they are larger than ``max_bytes`` together.

        Raises `BlockError`.
        """
        headers: list[Header] = []
        at, end, left = 0, len(block), max_bytes
        try:
            while at < end:
                first = block[at]
                if first & 0x80:
                    index = first & 0x7F
                    at += 1
                    if index == 0x7F:
                        index, at = _number(block, at, index)
                    header = self._entry(index)
                elif first & 0xE0 == 0x20:
                    if headers:
                        raise BlockError("The size of the table changes within a block")
                    at = self._resize(block, at)
                    continue
                else:
                    header, at = self._literal(block, at, first)
                left -= len(header[0]) + len(header[1]) + _ENTRY_BYTES
                if left >= 0:
                    headers.append(header)
        except IndexError:
            raise BlockError("A header block is cut off") from None
        return headers if left >= 0 else None

    def _entry(self, index: int) -> Header:
        if 0 < index <= _STATIC_SIZE:
            return _STATIC[index - 1]
        index -= _STATIC_SIZE
        if not 0 < index <= len(self._entries):
            raise BlockError("A header block names an entry that the table has not")
        return self._entries[index - 1]

    def _literal(self, block: bytes, at: int, first: int) -> tuple[Header, int]:
        is_kept = first & 0x40
        prefix = 0x3F if is_kept else 0x0F
        index = first & prefix
        at += 1
        if index == prefix:
            index, at = _number(block, at, prefix)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        header = (name, value)
        if is_kept:
            self._keep(header)
        return header, at

    def _keep(self, header: Header) -> None:
        self.generation += 1
        self._entries.appendleft(header)
        self._bytes += len(header[0]) + len(header[1]) + _ENTRY_BYTES
        if self._bytes > self._limit:
            self._evict()

    def _evict(self) -> None:
        entries = self._entries
        while self._bytes > self._limit:
            name, value = entries.pop()
            self._bytes -= len(name) + len(value) + _ENTRY_BYTES

    def _resize(self, block: bytes, at: int) -> int:
        limit, at = block[at] & 0x1F, at + 1
        if limit == 0x1F:
            limit, at = _number(block, at, limit)
        if limit > TABLE_BYTES:
            raise BlockError("The table becomes larger than it may be")
        self.generation += 1
        self._limit = limit
        self._evict()
        return at


def _number(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """Read the rest of a number whose first bits are all ones (RFC 7541 §5.1)."""
    number, shift = prefix, 0
    while True:
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if number > _MAX_NUMBER or shift > 28:
            raise BlockError("A number in a header block is too large")
        if byte < 0x80:
            return number, at
        shift += 7


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    first = block[at]
    size = first & 0x7F
    at += 1
    if size == 0x7F:
        size, at = _number(block, at, size)
    end = at + size
    if end > len(block):
        raise BlockError("A header block is cut off")
    raw = block[at:end]
    if first < 0x80:
        return raw, end
    text = _strings.get(raw)
    if text is None:
        try:
            text = decode_huffman(raw)
        except HPACKDecodingError:
            raise BlockError("A string is not in Huffman code") from None
        if size <= MAX_KEPT_BYTES:
            if len(_strings) >= MAX_KEPT_STRINGS:
                _strings.clear()
            _strings[raw] = text
    return text, end


def encode_status(status: int) -> bytes:
    """Return the line of a status."""
    index = _STATUS.get(status)
    if index is not None:
        return bytes((0x80 | index,))
    return b"\x08\x03%d" % status


def encode_headers(headers: Iterable[Header]) -> bytes:
    """Return the lines of headers; none of them enters the peer's table."""
    parts = []
    for name, value in headers:
        index = _STATIC_NAMES.get(name, 0)
        if not index:
            parts.append(b"\x00%b%b%b%b" % (_size(len(name)), name, _size(len(value)), value))
        elif index < 0x0F:
            parts.append(b"%c%b%b" % (index, _size(len(value)), value))
        else:
            parts.append(b"\x0f%c%b%b" % (index - 0x0F, _size(len(value)), value))
    return b"".join(parts)


def _size(size: int) -> bytes:
    """Return the length of a string that is not in Huffman code."""
    if size < 0x7F:
        return bytes((size,))
    size -= 0x7F
    encoded = bytearray(b"\x7f")
    while size >= 0x80:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded)
