"""HTTP/1.1 heads and chunks (RFC 9112): encoding, and strict parsing of a worker's inner head.

The inner head is the beginning of a worker's attach POST body: status line, headers, blank line
(`docs/wire.md` §5.3). Heads of interim responses may come before it. Parsing is strict, because its
contents are written to a client on a connection that is reused for other requests.
"""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from wire.errors import WireError
from wire.headers import HOP_BY_HOP, connection_names

MAX_INNER_HEAD_BYTES = 417_792
"""Largest inner head, including its blank line."""
MAX_INNER_HEADERS = 256
MAX_INTERIM_HEADS = 16
"""Maximum number of interim heads before the inner head."""
MAX_INTERIM_BYTES = 65_536
"""Maximum bytes of all of them."""

LAST_CHUNK = b"0\r\n\r\n"

BODILESS_STATUSES = frozenset({204, 304})
"""Final statuses whose responses have no body, whatever they announce (RFC 9112 §6.3, rule 1)."""

REASONS: dict[int, bytes] = {
    **{status.value: status.phrase.encode() for status in HTTPStatus},
    413: b"Content Too Large",
    414: b"URI Too Long",
    416: b"Range Not Satisfiable",
    422: b"Unprocessable Content",
}
"""The reason phrases of RFC 9110 §15; Python before 3.13 has older ones for four of them."""

_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b"")) for status in range(100, 600)
}

_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VISIBLE = bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100))
_CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if code not in b"\t\r\n")
_INNER_SPECIAL = HOP_BY_HOP | {b"content-length"}
_is_length = re.compile(rb"[0-9]{1,18}").fullmatch
_is_status_line = re.compile(
    rb"HTTP/1\.[01] (1(?!0[01])[0-9][0-9]|[2-5][0-9][0-9])(?: .*)?"
).fullmatch


class HeadError(WireError):
    """A head that cannot be encoded or is refused; ``status`` is 431 if it is only too large."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class InnerHead(NamedTuple):
    """A worker's response head, or that of an interim response (status 102 to 199).

    ``headers`` have lower-case names, without hop-by-hop headers and content-length.
    ``body_bytes`` is the value of content-length, ``None`` without one.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body_bytes: int | None


def status_line(status: int) -> bytes:
    """Return ``HTTP/1.1 200 OK`` with its line end. Raises `HeadError` unless 100 to 599."""
    try:
        return _STATUS_LINES[status]
    except KeyError:
        raise HeadError(f"Status {status} is not between 100 and 599") from None


def is_token(name: bytes) -> bool:
    """Return whether ``name`` can be a header's name (RFC 9110 §5.6.2)."""
    return bool(name) and not name.translate(None, _TOKEN)


def encode_lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return header lines; names and values must be valid already."""
    # Half the time of "%b: %b" for each.
    join = b": ".join
    return b"\r\n".join([*[join(header) for header in headers], b""])


def split_lines(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers in what `encode_lines` has made."""
    return [line.partition(b": ")[::2] for line in lines.split(b"\r\n")[:-1]]


def encode_response_head(status: int, headers: list[tuple[bytes, bytes]], framing: bytes) -> bytes:
    r"""Return a response head; ``framing`` is complete header lines (``b"content-length: 5\r\n"``).

    Names and values must be valid already: they come from a parser or from this program. Raises
    `HeadError` for a status outside 100 to 599.
    """
    return b"%b%b%b\r\n" % (status_line(status), encode_lines(headers), framing)


def encode_request_start(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the beginning of a request head: its first line and the lines of ``headers``.

    Names must be tokens already. Raises `HeadError` for other arguments that the server would parse
    as a different request (RFC 9112 §11.1): no HTTP parser has checked what an envelope holds.
    """
    if not is_token(method):
        raise HeadError("The method is not a token")
    if not target or target.translate(None, _VISIBLE):
        raise HeadError("The target is empty or holds a blank or control character")
    lines = encode_lines(headers)
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers) or b"\0" in lines:
        raise HeadError("A header value holds a line break or NUL")
    return b"%b %b HTTP/1.1\r\n%b" % (method, target, lines)


def encode_request_head(
    method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], framing: bytes
) -> bytes:
    """Return a request head; ``framing`` as in `encode_response_head`.

    Raises `HeadError` as `encode_request_start`.
    """
    return b"%b%b\r\n" % (encode_request_start(method, target, headers), framing)


def encode_chunk(data: bytes) -> bytes:
    """Return one chunk. ``data`` must not be empty: that would end the body (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunk_data(chunk: bytes, size: int) -> bytes:
    """Return the data of a whole chunk, of which there are ``size`` bytes."""
    return chunk[-2 - size : -2]


def encode_last_chunk(trailers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the last chunk and the trailer section (RFC 9112 §7.1.2).

    Names and values must be valid already.
    """
    return b"0\r\n%b\r\n" % encode_lines(trailers)


def parse_inner_head(data: bytes) -> tuple[InnerHead, int] | None:
    """Return the head at the start of ``data`` and the offset of the body behind it.

    Returns ``None`` while the head is incomplete. Raises `HeadError`.
    """
    end = data.find(b"\r\n\r\n", 0, MAX_INNER_HEAD_BYTES)
    if end < 0:
        if len(data) >= MAX_INNER_HEAD_BYTES:
            raise HeadError("The head is larger than 417,792 bytes", 431)
        return None
    return _read_head(data[:end]), end + 4


def _read_head(block: bytes) -> InnerHead:
    """Parse a head without its blank line."""
    first, *lines = block.split(b"\r\n")
    _check_block(block, len(lines))
    match = _is_status_line(first)
    if match is None:
        raise HeadError("The status line is malformed")
    names = []
    headers = []
    special = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise HeadError("A header line has no colon")
        name = name.lower()
        names.append(name)
        if name in _INNER_SPECIAL:
            special.append((name, value.strip(b" \t")))
        else:
            headers.append((name, value.strip(b" \t")))
    # This also detects a folded line and a blank before the colon.
    if b"" in names or b"".join(names).translate(None, _TOKEN):
        raise HeadError("A header name is not a token")
    body_bytes = None
    if special:
        body_bytes = _read_length(special)
        named = connection_names(special)
        if named:
            headers = [header for header in headers if header[0] not in named]
    return InnerHead(int(match[1]), headers, body_bytes)


def _check_block(block: bytes, breaks: int) -> None:
    """Check the head as a whole; ``breaks`` is its number of line breaks. Raises `HeadError`."""
    if breaks > MAX_INNER_HEADERS:
        raise HeadError("The head has more than 256 headers", 431)
    if block.count(b"\n") != breaks or block.count(b"\r") != breaks:
        raise HeadError("The head holds a bare CR or LF")
    if len(block.translate(None, _CONTROLS)) != len(block):
        raise HeadError("The head holds a control character")


def _read_length(special: list[tuple[bytes, bytes]]) -> int | None:
    """Return the value of content-length. Raises `HeadError` for ambiguous body framing.

    That is more than one content-length, a malformed one, or a transfer coding.
    """
    lengths = [value for name, value in special if name == b"content-length"]
    if len(lengths) > 1 or any(not _is_length(length) for length in lengths):
        raise HeadError("Content-Length is malformed or repeated")
    for name, value in special:
        if name == b"transfer-encoding" and value.lower() != b"identity":
            raise HeadError("Transfer-Encoding has no meaning inside a body")
    return int(lengths[0]) if lengths else None


def parse_trailers(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers in complete header lines. Raises `HeadError` as for an inner head."""
    if not lines:
        return []
    return _read_head(b"HTTP/1.1 200 OK\r\n" + lines.removesuffix(b"\r\n")).headers


class InnerHeadParser:
    """Parses one inner head from a stream; buffers at most `MAX_INNER_HEAD_BYTES` plus one read.

    ``head`` is ``None`` until it is complete; do not call `feed` after that. ``interim`` are the
    interim heads that the last call of `feed` has brought.
    """

    __slots__ = ("_held", "_interim_bytes", "_interim_heads", "head", "interim")

    def __init__(self) -> None:
        self._held: bytearray | None = None
        self._interim_heads = self._interim_bytes = 0
        self.head: InnerHead | None = None
        self.interim: Sequence[InnerHead] = ()

    def feed(self, data: bytes) -> bytes | None:
        """Return the bytes after the head once it is complete, ``None`` before.

        Raises `HeadError`.
        """
        self.interim = ()
        held = self._held
        if held is not None:
            searched = max(len(held) - 3, 0)
            held += data
            if len(held) < MAX_INNER_HEAD_BYTES and held.find(b"\r\n\r\n", searched) < 0:
                return None
            data = bytes(held)
        parsed = parse_inner_head(data)
        while parsed is not None and parsed[0].status < 200:
            head, offset = parsed
            self._take_interim(head, offset)
            data = data[offset:]
            parsed = parse_inner_head(data)
        if parsed is None:
            self._held = bytearray(data)
            return None
        self._held = None
        self.head, offset = parsed
        return data[offset:]

    def _take_interim(self, head: InnerHead, head_bytes: int) -> None:
        self._interim_heads += 1
        self._interim_bytes += head_bytes
        if self._interim_heads > MAX_INTERIM_HEADS or self._interim_bytes > MAX_INTERIM_BYTES:
            raise HeadError("More than 16 interim responses, or 65,536 bytes of them", 431)
        self.interim = (*self.interim, head)
