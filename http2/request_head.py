"""From the headers of an HTTP/2 request to a `http1.stream.Request` (RFC 9113 §8.2, §8.3).

The one place that decides what they mean. A malformed request is a stream error; a request that is
well formed and cannot be served gets an error response, as in HTTP/1.1. Pure.
"""

import re
from functools import lru_cache
from typing import Final

from http1.server.http_error import HttpError, bad_request
from http1.server.limits import ServerLimits
from http1.server.request_head import MAX_LENGTH_DIGITS, MAX_METHOD_BYTES
from http1.stream import Headers, Peer, Request
from http2.frames import Code, StreamFault
from wire.hosts import HostError, parse_authority
from wire.websocket import WEBSOCKET

_METHOD: Final = b":method"
_SCHEME: Final = b":scheme"
_AUTHORITY: Final = b":authority"
_PATH: Final = b":path"
_PROTOCOL: Final = b":protocol"
_PSEUDO = frozenset({_METHOD, _SCHEME, _AUTHORITY, _PATH, _PROTOCOL})
_CONNECTION = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_is_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_is_method = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
# RFC 9113 §8.2.1: nothing that another parser may take for the end of a line, no blank at the ends.
_is_value = re.compile(
    rb"(?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?"
).fullmatch
_is_path = re.compile(rb"/[!-\"$-~]*").fullmatch
_authority = lru_cache(maxsize=1024)(parse_authority)


def read_head(
    headers: Headers, limits: ServerLimits, now: float, peer: Peer, *, ends: bool
) -> Request:
    """Return the request with these headers; ``ends``: it has no body.

    ``now`` becomes ``received_at``. Raises `StreamFault` and `HttpError`.
    """
    pseudo, plain = _split(headers)
    try:
        method, path = pseudo[_METHOD], pseudo.get(_PATH, b"")
    except KeyError:
        raise _malformed("A request has no method") from None
    protocol = b""
    if method == b"CONNECT" or _PROTOCOL in pseudo:
        method, protocol = b"GET", _protocol_of(pseudo)
    if not path or not pseudo.get(_SCHEME):
        raise _malformed("A request has no path or no scheme")
    values = dict(plain)
    length = _length(plain, values, ends=ends)
    _check(method, path, limits)
    if len(headers) > limits.max_headers:
        raise HttpError(431, "headers-too-large", "The headers are too many or too large", path)
    if (expected := values.get(b"expect")) is not None and expected.lower() != b"100-continue":
        raise HttpError(417, "expectation-failed", "Only 100-continue can be expected", path)
    try:
        authority, host = _host(pseudo.get(_AUTHORITY, b""), plain, values)
    except HttpError as error:
        error.target = path
        raise
    request = Request(method, path, authority, plain, length, now, host, peer, values)
    request.protocol = protocol
    return request


def _protocol_of(pseudo: dict[bytes, bytes]) -> bytes:
    """Return the protocol of an extended CONNECT (RFC 8441 §4).

    It is to HTTP/2 what GET with Upgrade is to HTTP/1.1, and is read as that method.
    """
    if pseudo[_METHOD] != b"CONNECT":
        raise _malformed("A request that connects nothing names a protocol")
    if pseudo.get(_PROTOCOL) != WEBSOCKET:
        raise HttpError(501, "method-not-implemented", "CONNECT is only for websocket")
    if not pseudo.get(_AUTHORITY):
        raise _malformed("A request to connect has no authority")
    return WEBSOCKET


def _check(method: bytes, path: bytes, limits: ServerLimits) -> None:
    if not _is_method(method):
        raise _malformed("The method is malformed")
    if len(method) > MAX_METHOD_BYTES:
        raise bad_request("The method is malformed")
    if len(path) > limits.max_request_line_bytes:
        raise HttpError(414, "request-line-too-long", "The request line is too long")
    if not _is_path(path) and not (path == b"*" and method == b"OPTIONS"):
        raise bad_request("The request target is malformed")


def read_trailers(headers: Headers) -> Headers:
    """Return the trailers of a request. Raises `StreamFault`."""
    pseudo, plain = _split(headers)
    if pseudo:
        raise _malformed("Trailers have a pseudo-header")
    return plain


def _malformed(detail: str) -> StreamFault:
    return StreamFault(Code.PROTOCOL_ERROR, detail)


def _split(headers: Headers) -> tuple[dict[bytes, bytes], Headers]:
    """Return pseudo-headers and others, with cookies in one line (RFC 9113 §8.2.3)."""
    pseudo: dict[bytes, bytes] = {}
    plain: Headers = []
    cookies: list[bytes] = []
    for header in headers:
        name, value = header
        if not _is_value(value):
            raise _malformed("A header's value is malformed")
        if name in _PSEUDO:
            if plain or cookies or name in pseudo:
                raise _malformed("A pseudo-header comes twice, or after others")
            pseudo[name] = value
        elif not _is_name(name) or name in _CONNECTION:
            raise _malformed("A header's name is malformed, or belongs to a connection")
        elif name == b"cookie":
            cookies.append(value)
        elif name == b"te" and value != b"trailers":
            raise _malformed("TE is more than trailers")
        else:
            plain.append(header)
    if cookies:
        plain.append((b"cookie", b"; ".join(cookies)))
    return pseudo, plain


def _length(plain: Headers, values: dict[bytes, bytes], *, ends: bool) -> int | None:
    """Return the length of the body, ``None`` if it is not known."""
    length = values.get(b"content-length")
    if length is None:
        return 0 if ends else None
    if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
        raise _malformed("Content-Length is not a number")
    if sum(name == b"content-length" for name, _ in plain) > 1:
        raise _malformed("Content-Length is given twice")
    if ends and int(length):
        raise _malformed("Content-Length is more than there is")
    return int(length)


def _host(named: bytes, plain: Headers, values: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return authority and host; ``plain`` and ``values`` have Host afterwards."""
    hosts = [value for name, value in plain if name == b"host"]
    if len(hosts) > 1:
        raise HttpError(400, "invalid-host", "Host is given twice")
    host = named or (hosts[0] if hosts else b"")
    if not host:
        raise HttpError(400, "invalid-host", "Host is missing")
    try:
        authority = _authority(host)
        if named and hosts and _authority(hosts[0]) != authority:
            raise HttpError(400, "invalid-host", "Host and :authority name different hosts")
    except HostError as error:
        raise HttpError(400, "invalid-host", str(error)) from None
    if not hosts:
        plain.insert(0, (b"host", host))
        values[b"host"] = host
    return authority, host
