"""Strict parser for a request head (RFC 9112 §2-§6, RFC 9110 §5-§7).

The one place that decides what a head means. Where parsers are known to differ (bare LF, folded
lines, blanks before a colon, two lengths, length and coding together, two hosts, control
characters) the head is rejected: the next hop might read it differently. The module parses the
bytes itself instead of checking them for a more lenient parser: one grammar, and faster.
"""

import re
from functools import lru_cache
from typing import Final

from http1.server.http_error import HttpError, bad_request
from http1.server.limits import ServerLimits
from http1.stream import Headers, KnownHead, Peer, Request
from wire.headers import REPEATING
from wire.hosts import HostError, parse_authority
from wire.repeated import Repeated
from wire.websocket import UPGRADE, WEBSOCKET, names_websocket

HTTP_1_0: Final = 1
"""Flag: the peer speaks HTTP/1.0."""
CLOSE: Final = 2
"""Flag: the connection ends after this exchange."""
EXPECTS_CONTINUE: Final = 4
"""Flag: the peer waits for 100 (Continue) before it sends the body."""
_KEEP_ALIVE: Final = 8
"""Flag: the peer asked for the connection to stay open."""
TAKES_TRAILERS: Final = 16
"""Flag: the peer wants the trailers of the response."""
UPGRADES: Final = 32
"""Flag: the peer asks for another protocol on this connection."""

MAX_METHOD_BYTES = 32
MAX_LENGTH_DIGITS = 15
"""Digits of a content-length: up to a petabyte, which is exact in every JSON number."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
_is_token = re.compile(_TOKEN).fullmatch
_is_version = re.compile(rb"HTTP/[0-9]\.[0-9]").fullmatch
# No "#" (RFC 9112 §3.2), no bytes outside ASCII: an invalid URI is not repaired by guessing.
_is_origin_form = re.compile(rb"/[!-\"$-~]*").fullmatch
_is_absolute_form = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]*)((?:[/?][!-\"$-~]*)?)").fullmatch
_header_line = re.compile(rb"(%b):[ \t]*(%b)" % (_TOKEN, _VALUE)).fullmatch

# RFC 9110 gives trailers no weight, clients do; a weight of zero means "not acceptable" (§12.4.2).
_asks_for_trailers = re.compile(
    rb"(?:^|,)[ \t]*trailers[ \t]*"
    rb"(?:;[ \t]*q=(?:1(?:\.0{0,3})?|0\.(?=0{0,2}[1-9])[0-9]{1,3})[ \t]*)?(?:,|$)",
    re.IGNORECASE,
).search

_HEAD = b"HEAD "
_METHODS = frozenset({b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS"})

HOST = b"host"
_CONTENT_LENGTH = b"content-length"
_TRANSFER_ENCODING = b"transfer-encoding"
_CONNECTION = b"connection"
_EXPECT = b"expect"
_TE = b"te"
_FRAMING = frozenset({HOST, _CONTENT_LENGTH, _TRANSFER_ENCODING, _CONNECTION, _EXPECT, _TE})

MAX_KNOWN_LINES = 1024
MAX_KNOWN_LINE_BYTES = 200
_known_lines: dict[bytes, tuple[bytes, bytes]] = {}
"""Lines of `REPEATING` headers: parsed once, then looked up."""

_repeated: Repeated[tuple[KnownHead, int, ServerLimits]] = Repeated()
"""Heads that came at least twice, with their flags and the limits that they keep to."""

_repeated_lines: Repeated[tuple[KnownHead, int, ServerLimits]] = Repeated()
"""Header lines that came at least twice below different request lines: one of the heads, its flags
and limits. None of them has HTTP/1.0, an absolute target or asks for a protocol."""

MAX_KNOWN_NAMES = 512
MAX_KNOWN_NAME_BYTES = 64
_known_names: dict[bytes, bytes] = {
    spelling: name
    for name in (*sorted(REPEATING), b"authorization", b"traceparent", b"x-request-id")
    for spelling in (name, name.title())
}

_authority = lru_cache(maxsize=MAX_KNOWN_LINES)(parse_authority)


def read_head(block: bytes, limits: ServerLimits, now: float, peer: Peer) -> tuple[Request, int]:
    """Return the request of ``peer`` in ``block`` and its flags.

    A head that repeats is parsed twice, then looked up: its requests share what must not be
    changed, and `Request.known`. So are header lines that repeat below another request line.

    ``block`` is a head without its last CRLFCRLF. ``now`` becomes ``received_at``. The request's
    ``authority`` is the host alone as `parse_authority` returns it, empty for HTTP/1.0 without one.
    Raises `HttpError`.
    """
    repeated = _repeated.known.get(block)
    if repeated is not None and repeated[2] is limits:
        return repeated[0].request(now, peer), repeated[1]
    first, _, lines = block.partition(b"\r\n")
    below = _repeated_lines.known.get(lines)
    request, flags = None, 0
    if below is not None and below[2] is limits:
        request, flags = _with_lines_of(below[0], first, limits, now, peer), below[1]
    if request is None:
        request, flags = _read_whole(block, limits, now, peer)
        if (
            below is None
            and not flags & (UPGRADES | HTTP_1_0)
            and first.split(b" ")[1] == request.target
            and _repeated_lines.has_come(lines)
        ):
            _repeated_lines.keep(lines, (KnownHead(request), flags, limits))
    # One that asks for a protocol is not kept: who knows a head need not ask for which.
    if not request.protocol and _repeated.has_come(block):
        request.known = KnownHead(request)
        _repeated.keep(block, (request.known, flags, limits))
    return request, flags


def _with_lines_of(
    head: KnownHead, first: bytes, limits: ServerLimits, now: float, peer: Peer
) -> Request | None:
    """Return the request with the header lines of ``head``, `None` unless ``first`` is usual."""
    if len(first) > limits.max_request_line_bytes:
        return None
    parts = first.split(b" ")
    if len(parts) != 3 or parts[2] != b"HTTP/1.1":
        return None
    method, target, _ = parts
    if method not in _METHODS or not _is_origin_form(target):
        return None
    return head.request_for(method, target, now, peer)


def _read_whole(block: bytes, limits: ServerLimits, now: float, peer: Peer) -> tuple[Request, int]:
    """Return the request and its flags. Raises `HttpError`."""
    lines = block.split(b"\r\n")
    first = lines[0]
    known = _known_lines.get
    try:
        _check_size(first, len(block), len(lines) - 1, limits)
        headers = [known(line) or _read_line(line) for line in lines[1:]]
        values = dict(headers)
        if len(values) == len(headers):
            framing = [(name, values[name]) for name in _FRAMING.intersection(values)]
        else:
            framing = [header for header in headers if header[0] in _FRAMING]
        parts = first.split(b" ")
        if len(parts) != 3:
            raise bad_request("The request line is not method, target and version")
        method, target, version = parts
        flags = 0
        if version != b"HTTP/1.1":
            _check_version(version)
            flags = HTTP_1_0
        host, body_bytes, flags = _read_framing(framing, flags)
        if host is not None:
            authority = _read_authority(host)
        elif flags & HTTP_1_0:
            authority = host = b""
        else:
            raise _invalid_host("Host is missing")
        if method not in _METHODS or not _is_origin_form(target):
            target, authority, host = _unusual(method, target, authority, host)
    except HttpError as error:
        raise about(error, first, limits) from None
    request = Request(method, target, authority, headers, body_bytes, now, host, peer, values)
    request.protocol = _protocol_of(request, flags) if flags & UPGRADES else b""
    return request, flags


def _protocol_of(request: Request, flags: int) -> bytes:
    """Return the protocol that a request asks for, empty for those that are not known here.

    An upgrade that is asked for by HTTP/1.0 is ignored (RFC 9110 §7.8).
    """
    if flags & HTTP_1_0 or request.method != b"GET":
        return b""
    return WEBSOCKET if names_websocket(request.values.get(UPGRADE, b"")) else b""


def about(error: HttpError, head: bytes | bytearray, limits: ServerLimits) -> HttpError:
    """Return ``error`` with what ``head``, the beginning of a rejected one, says of its request."""
    error.target = target_of(head, limits)
    error.to_head = head.startswith(_HEAD)
    return error


def target_of(head: bytes | bytearray, limits: ServerLimits) -> bytes:
    """Return the path of a rejected head, empty if it cannot be read.

    ``head`` is the beginning of the head. ``OPTIONS *`` has no path.
    """
    beginning = bytes(head[: limits.max_request_line_bytes])
    parts = beginning.partition(b"\r\n")[0].split(b" ", 3)
    # The path is complete if something follows it: the version or, in a partial line, a query.
    if len(parts) != 3 and not (len(parts) == 2 and b"?" in parts[1]):
        return b""
    absolute = _is_absolute_form(parts[1])
    path = (_origin_form(absolute[2]) if absolute else parts[1]).partition(b"?")[0]
    return path if _is_origin_form(path) else b""


def check_partial(held: bytes | bytearray, limits: ServerLimits, checked_bytes: int = 0) -> None:
    """Raise `HttpError` if an incomplete head is already too large or has a line without CRLF.

    The first ``checked_bytes`` of ``held`` have been checked before.
    """
    try:
        _check_lines(held, limits, checked_bytes)
    except HttpError as error:
        raise about(error, held, limits) from None


def _check_lines(held: bytes | bytearray, limits: ServerLimits, checked_bytes: int) -> None:
    size = len(held)
    # A head whose lines end with LF alone would otherwise be waited for until its timeout.
    if held.count(b"\n", checked_bytes) != held.count(b"\r\n", max(checked_bytes - 1, 0)):
        raise bad_request("A line does not end with CRLF")
    if size > limits.max_request_line_bytes:
        line_end = held.find(b"\r\n", 0, limits.max_request_line_bytes + 2)
        if line_end < 0:
            raise _long_line()
        if size - line_end - 2 > limits.max_header_bytes:
            raise _large_headers()


def _check_size(first: bytes, size: int, count: int, limits: ServerLimits) -> None:
    if len(first) > limits.max_request_line_bytes:
        raise _long_line()
    if size - len(first) > limits.max_header_bytes + 2 or count > limits.max_headers:
        raise _large_headers()


def _long_line() -> HttpError:
    return HttpError(414, "request-line-too-long", "The request line is too long")


def _large_headers() -> HttpError:
    return HttpError(431, "headers-too-large", "The headers are too many or too large")


def _check_version(version: bytes) -> None:
    if version == b"HTTP/1.0":
        return
    if _is_version(version):
        raise HttpError(505, "version-not-supported", "This is an HTTP/1.1 server")
    raise bad_request("The HTTP version is malformed")


def _check_method(method: bytes) -> None:
    if method == b"CONNECT":
        raise HttpError(501, "method-not-implemented", "CONNECT is not supported")
    if len(method) > MAX_METHOD_BYTES or not _is_token(method):
        raise bad_request("The method is malformed")


def _unusual(
    method: bytes, target: bytes, authority: bytes, host: bytes
) -> tuple[bytes, bytes, bytes]:
    """Return target, authority and host for a rare method or form of target (RFC 9112 §3.2)."""
    if method not in _METHODS:
        _check_method(method)
    if _is_origin_form(target):
        return target, authority, host
    if target == b"*" and method == b"OPTIONS":
        return target, authority, host
    match = _is_absolute_form(target)
    if match is None:
        raise bad_request("The request target is malformed")
    named = _read_authority(match[1])
    # RFC 9112 §3.2.2 prefers the target. Here two different names in one request are an error.
    if authority and authority != named:
        raise _invalid_host("Host and the request target name different hosts")
    return _origin_form(match[2]), named, match[1]


def _origin_form(path: bytes) -> bytes:
    """Return the part of an absolute form after its authority as an origin form."""
    return path if path.startswith(b"/") else b"/" + path


def _read_authority(value: bytes) -> bytes:
    try:
        return _authority(value)
    except HostError as error:
        raise _invalid_host(str(error)) from None


def _invalid_host(detail: str) -> HttpError:
    return HttpError(400, "invalid-host", detail)


def _read_line(line: bytes) -> tuple[bytes, bytes]:
    match = _header_line(line)
    if match is None:
        raise bad_request("A header line is malformed")
    spelled, value = match.groups()
    name = _known_names.get(spelled)
    if name is None:
        name = spelled.lower()
        if len(_known_names) < MAX_KNOWN_NAMES and len(name) <= MAX_KNOWN_NAME_BYTES:
            name = _known_names[spelled] = _known_names.setdefault(name, name)
    header = (name, value.rstrip(b" \t"))
    if name in REPEATING and len(line) <= MAX_KNOWN_LINE_BYTES:
        if len(_known_lines) >= MAX_KNOWN_LINES:
            _known_lines.clear()
        _known_lines[line] = header
    return header


def _read_framing(framing: Headers, flags: int) -> tuple[bytes | None, int | None, int]:
    """Return the Host value, the body's length and the flags from these headers."""
    host: bytes | None = None
    length: bytes | None = None
    coding: bytes | None = None
    for name, value in framing:
        if (read_flags := _FLAG_READERS.get(name)) is not None:
            flags = read_flags(value, flags)
        elif name == HOST:
            if host is not None:
                raise _invalid_host("Host is given twice")
            host = value
        elif name == _CONTENT_LENGTH:
            if length is not None:
                raise bad_request("Content-Length is given twice")
            length = value
        elif coding is not None:
            raise bad_request("Transfer-Encoding is given twice")
        else:
            coding = value
    if flags & (HTTP_1_0 | _KEEP_ALIVE) == HTTP_1_0:
        flags |= CLOSE
    return host, _read_body_bytes(length, coding, flags), flags


def _persistence(value: bytes, flags: int) -> int:
    """Return ``flags`` after a Connection header (RFC 9112 §9.3)."""
    if value == b"keep-alive":
        return flags | _KEEP_ALIVE
    options = [option.strip(b" \t") for option in value.lower().split(b",")]
    if b"close" in options:
        flags |= CLOSE
    if b"keep-alive" in options:
        flags |= _KEEP_ALIVE
    if UPGRADE in options:
        flags |= UPGRADES
    return flags


def _expectation(value: bytes, flags: int) -> int:
    """Return ``flags`` after an Expect header; in HTTP/1.0 it is ignored (RFC 9110 §10.1.1)."""
    if flags & HTTP_1_0:
        return flags
    if value.lower() != b"100-continue":
        raise HttpError(417, "expectation-failed", "Only 100-continue can be expected")
    return flags | EXPECTS_CONTINUE


def _read_te(value: bytes, flags: int) -> int:
    """Return ``flags`` after a TE header (RFC 9110 §10.1.4)."""
    return flags | TAKES_TRAILERS if _asks_for_trailers(value) else flags


_FLAG_READERS = {_CONNECTION: _persistence, _EXPECT: _expectation, _TE: _read_te}


def _read_body_bytes(length: bytes | None, coding: bytes | None, flags: int) -> int | None:
    """Return the body's length, ``None`` for chunked (RFC 9112 §6.1, §6.3)."""
    if coding is None:
        if length is None:
            return 0
        if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
            raise bad_request("Content-Length is not a number")
        return int(length)
    if length is not None:
        raise bad_request("Content-Length and Transfer-Encoding exclude each other")
    if flags & HTTP_1_0:
        raise bad_request("HTTP/1.0 has no Transfer-Encoding")
    if coding.lower() != b"chunked":
        raise HttpError(501, "coding-not-implemented", "The only transfer coding here is chunked")
    return None
