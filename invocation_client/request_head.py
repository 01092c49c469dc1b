"""The header fields of a request as HTTP/2 sends them (RFC 9113 §8.2 and §8.3). Pure."""

import re

import httpx

Fields = list[tuple[bytes, bytes]]

_OF_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"host")
)
"""Fields about an HTTP/1.1 connection, and ``host``, which is ``:authority``."""
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_NOT_IN_VALUE = re.compile(rb"[\0\r\n]")


def request_fields(request: httpx.Request) -> Fields:
    """Return the pseudo-header fields and the header of ``request``.

    Raises `httpx.LocalProtocolError` if a name or a value is not allowed: an encoder that meets it
    half-way would be out of step with the server's decoder, on all streams.
    """
    url = request.url

    fields = [
        (b":method", request.method.encode("ascii")),
        (b":scheme", url.raw_scheme),
        (b":authority", _authority(request)),
        (b":path", url.raw_path),
    ]
    fields += [
        (name, value)
        for name, value in ((name.lower(), value) for name, value in request.headers.raw)
        if name not in _OF_CONNECTION and (name != b"te" or value.lower() == b"trailers")
    ]
    for name, value in fields:
        _check(name.removeprefix(b":"), value)
    return fields


def has_body(request: httpx.Request) -> bool:
    """Whether a body follows the header."""
    if "transfer-encoding" in request.headers:
        return True
    length: str = request.headers.get("content-length", "0")
    return length != "0"


def _authority(request: httpx.Request) -> bytes:
    host: str = request.headers.get("host", "")
    return host.encode(request.headers.encoding) or request.url.netloc


def _check(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise httpx.LocalProtocolError(f"not a header name: {name!r}")
    if _NOT_IN_VALUE.search(value):
        raise httpx.LocalProtocolError(f"a value of {name.decode()} has a line break or NUL in it")
