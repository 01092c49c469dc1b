"""Parser for a response head (RFC 9112 §2-§6).

The one place that decides what a response's head means. What a gateway has to mend is mended: a
blank before a colon (RFC 9112 §5.1), blanks around a value, the same length given twice. Everything
else outside the grammar is refused as a `DefectError`, which names the reason and the header line:
what follows such a head might be read differently by the next parser.
"""

import re
from math import inf
from typing import Final, NamedTuple

from http1.stream import Defect, Headers
from wire.headers import connection_names
from wire.http1 import MAX_INNER_HEAD_BYTES, MAX_INNER_HEADERS

MAX_HEAD_BYTES = MAX_INNER_HEAD_BYTES
"""The most that a gateway accepts of a response's head, here with its interim responses."""
MAX_HEADERS = MAX_INNER_HEADERS

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
_status_line = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: %b)?" % _VALUE).fullmatch
_header_line = re.compile(rb"(%b)[ \t]*:[ \t]*(%b)" % (_TOKEN, _VALUE)).fullmatch
_is_token = re.compile(_TOKEN).fullmatch
_is_length = re.compile(rb"[0-9]{1,14}").fullmatch
"""With its head a response must still have a length that every HTTP server takes."""
_timeout = re.compile(rb"(?:^|[,;\s])timeout=\"?([0-9]{1,9})", re.IGNORECASE).search
_STATUS_LINE_START = b"HTTP/1."

_CONTENT_LENGTH: Final = b"content-length"
_TRANSFER_ENCODING: Final = b"transfer-encoding"
_CONNECTION: Final = b"connection"
_KEEP_ALIVE: Final = b"keep-alive"
_FRAMING = frozenset({_CONTENT_LENGTH, _TRANSFER_ENCODING, _CONNECTION, _KEEP_ALIVE})


class ResponseHead(NamedTuple):
    """A response head.

    ``headers`` are in order, names lower case, without content-length. ``body_bytes`` is the
    announced length, ``None`` for none. ``is_persistent``: the server keeps the connection (RFC
    9112 §9.3), for ``idle_s`` seconds without a request if it says so, else infinite.
    """

    status: int
    headers: Headers
    body_bytes: int | None
    is_chunked: bool
    is_persistent: bool
    idle_s: float


_REPEATING = _FRAMING | {
    b"access-control-allow-origin",
    b"cache-control",
    b"content-encoding",
    b"content-type",
    b"date",
    b"server",
    b"vary",
    b"x-accel-buffering",
}
"""Headers whose whole lines repeat often: parsed once, then looked up."""
MAX_KNOWN = 1024
MAX_KNOWN_BYTES = 200
MAX_KNOWN_HEADS = 256
MAX_KNOWN_HEAD_BYTES = 512
_known_heads: dict[bytes, ResponseHead] = {}
"""Heads that consist of such lines."""
_known_lines: dict[bytes, tuple[bytes, bytes]] = {}
_known_status_lines: dict[bytes, tuple[int, bool]] = {}
_MAX_SHOWN_NAME = 64


class DefectError(ValueError):
    """Bytes that are no acceptable response; ``defect`` says why."""

    def __init__(self, reason: str, detail: str, header: bytes = b"") -> None:
        super().__init__(detail)
        self.defect = Defect(reason, detail, _shown(header))


known_head = _known_heads.get
"""The head in a block, as of `read_head`, if it is among those that repeat."""


def read_head(block: bytes) -> ResponseHead:
    """Return the head in ``block``, which lacks its last CRLFCRLF. Raises `DefectError`.

    Its ``headers`` must not be changed: heads that repeat are parsed once, then looked up.
    """
    return _known_heads.get(block) or _read_head(block)


def _read_head(block: bytes) -> ResponseHead:
    lines = block.split(b"\r\n")
    if len(block) > MAX_HEAD_BYTES - 4:
        raise _too_large()
    if len(lines) > MAX_HEADERS + 1:
        raise _too_many()
    if not lines[0] and len(lines) > 1:
        # An empty line after the last body, which some servers send.
        del lines[0]
    first = lines[0]
    status, is_persistent = _known_status_lines.get(first) or _read_status_line(first)
    del lines[0]
    known = _known_lines.get
    headers: Headers = []
    framing: Headers = []
    repeats = len(block) <= MAX_KNOWN_HEAD_BYTES
    for line in lines:
        header = known(line)
        if header is None:
            header = _read_line(line, headers)
            repeats = repeats and header[0] in _REPEATING
        if header[0] in _FRAMING:
            framing.append(header)
            if header[0] == _CONTENT_LENGTH:
                continue
        headers.append(header)
    head = _framed(status, headers, framing, is_persistent)
    if repeats:
        if len(_known_heads) >= MAX_KNOWN_HEADS:
            _known_heads.clear()
        _known_heads[block] = head
    return head


def _framed(status: int, headers: Headers, framing: Headers, is_persistent: bool) -> ResponseHead:
    """Return the head with what the ``framing`` headers say about body and connection."""
    body_bytes: int | None = None
    is_chunked = names_options = False
    idle_s = inf
    for name, value in framing:
        if name == _CONTENT_LENGTH:
            length = _read_length(value)
            if body_bytes is not None and length != body_bytes:
                raise DefectError("content_length", "Content-Length is given twice", name)
            body_bytes = length
        elif name == _TRANSFER_ENCODING:
            if is_chunked or value.lower() != b"chunked":
                raise DefectError("transfer_encoding", "The coding is not chunked", name)
            is_chunked = True
        elif name == _CONNECTION:
            names_options = True
        elif (match := _timeout(value)) is not None:
            idle_s = float(match[1])
    if names_options:
        options = connection_names(framing)
        is_persistent = b"close" not in options and (is_persistent or _KEEP_ALIVE in options)
    if is_chunked and body_bytes is not None:
        detail = "Content-Length and Transfer-Encoding exclude each other"
        raise DefectError("content_length", detail, _CONTENT_LENGTH)
    is_persistent = is_persistent and idle_s > 0.0
    return ResponseHead(status, headers, body_bytes, is_chunked, is_persistent, idle_s)


def _read_length(value: bytes) -> int:
    if _is_length(value):
        return int(value)
    parts = {part.strip(b" \t") for part in value.split(b",")}
    # RFC 9110 §8.6: the same length repeated in one field is that length.
    if len(parts) == 1 and _is_length(part := parts.pop()):
        return int(part)
    raise DefectError("content_length", "Content-Length is not a length", _CONTENT_LENGTH)


def _read_status_line(line: bytes) -> tuple[int, bool]:
    """Return the status, and whether the version's connections persist by default."""
    match = _status_line(line)
    if match is None:
        raise _line_defect(line) or DefectError("status_line", "The status line is malformed")
    status = int(match[2])
    if not 100 <= status <= 599:
        raise DefectError("status", "The status is not between 100 and 599")
    read = (status, match[1] == b"1")
    if len(_known_status_lines) < MAX_KNOWN and len(line) <= MAX_KNOWN_BYTES:
        _known_status_lines[line] = read
    return read


def _read_line(line: bytes, before: Headers) -> tuple[bytes, bytes]:
    """Return the header of a line that follows the headers ``before``."""
    match = _header_line(line)
    if match is None:
        raise _header_defect(line, before[-1][0] if before else b"")
    header = (match[1].lower(), match[2].rstrip(b" \t"))
    if header[0] in _REPEATING and len(line) <= MAX_KNOWN_BYTES:
        if len(_known_lines) >= MAX_KNOWN:
            _known_lines.clear()
        _known_lines[line] = header
    return header


def _header_defect(line: bytes, before: bytes) -> DefectError:
    """Return what is wrong with a header line that follows the header ``before``."""
    name, colon, _ = line.partition(b":")
    if line.startswith((b" ", b"\t")):
        return DefectError("folded_line", "A header line is folded", before)
    name = name.rstrip(b" \t")
    if (defect := _line_defect(line, name)) is not None:
        return defect
    if not colon:
        return DefectError("header_line", "A header line has no colon", name)
    if not _is_token(name):
        return DefectError("header_name", "A header name is not a token", name)
    return DefectError("header_value", "A header value holds a control character", name)


def _line_defect(line: bytes, name: bytes = b"") -> DefectError | None:
    if b"\r" in line or b"\n" in line:
        return DefectError("line_end", "A line does not end with CRLF", name)
    return None


def _too_large() -> DefectError:
    return DefectError("too_large", "The head is larger than 417,792 bytes")


def _too_many() -> DefectError:
    return DefectError("too_many_headers", "The head has more than 256 headers")


def _shown(name: bytes) -> str:
    """Return a name that may be logged: what is no part of a token becomes ``?``."""
    shown = name[:_MAX_SHOWN_NAME].lower()
    return "".join(chr(code) if _is_token(bytes([code])) else "?" for code in shown)


_head_end = re.compile(rb"\r?\n\r?\n").search
_announced_lengths = re.compile(
    rb"\ncontent-length[ \t]*:[ \t]*([0-9]{1,14})[ \t]*(?=\r?\n)", re.IGNORECASE
).findall


def seems_complete(refused: bytes) -> bool:
    """Return whether all that a refused response announces has arrived: its server is done."""
    end = _head_end(refused)
    if end is None:
        return False
    lengths = _announced_lengths(refused[: end.end()])
    return bool(lengths) and len(refused) - end.end() >= max(map(int, lengths))


class PartialHead:
    """The beginning of a head that comes in several reads.

    Each line is checked as soon as it is complete: a server that sends what is not HTTP may never
    send the end of its head.
    """

    __slots__ = ("_data", "_last", "_line_at", "_lines")

    def __init__(self) -> None:
        self._data = bytearray()
        self._last: Headers = []
        self._line_at = 0
        self._lines = 0

    def add(self, data: bytes) -> bytes | None:
        """Return all bytes so far once the head is complete among them. Raises `DefectError`."""
        held = self._data
        searched = max(len(held) - 3, 0)
        held += data
        while not self._lines and held.startswith(b"\r\n"):
            del held[:2]
            searched = 0
        if held.find(b"\r\n\r\n", searched) >= 0:
            return bytes(held)
        self._check()
        return None

    def _check(self) -> None:
        held = self._data
        if len(held) > MAX_HEAD_BYTES:
            raise _too_large()
        at = self._line_at
        while (end := held.find(b"\r\n", at)) >= 0:
            line = bytes(held[at:end])
            if self._lines:
                self._last = [_read_line(line, self._last)]
            else:
                _read_status_line(line)
            self._lines += 1
            at = end + 2
        self._line_at = at
        if self._lines > MAX_HEADERS + 1:
            raise _too_many()
        if held.find(b"\n", at) >= 0:
            raise DefectError("line_end", "A line does not end with CRLF")
        start = bytes(held[: len(_STATUS_LINE_START)])
        if not self._lines and start != b"\r" and not _STATUS_LINE_START.startswith(start):
            raise DefectError("status_line", "The status line is malformed")
