"""The request envelope: the queue's message for one invocation (`docs/wire.md` §3.4).

It contains the request's head, the first part of its body, and the address and tokens with which
the worker attaches to the gateway process that holds the client. It is NVCF's protobuf message
``WorkerInvokeFunctionRequest``; `wire/nvcf.proto` is the contract. This module writes it without
protobuf, whose modules a gateway process therefore does not load; `wire.decoded_envelope` reads it.
"""

from collections.abc import Iterable
from functools import lru_cache

from wire.errors import WireError
from wire.headers import (
    NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY,
    NVCF_INVOCATION_REGION,
    NVCF_POLLED,
    REPEATING,
)

INLINE_BODY_BYTES = 32_768
"""Largest part of a request's body in its envelope; the worker fetches the rest by GET attach.
This does not bound the body itself, which has no limit."""
MAX_ENVELOPE_BYTES = 6 * 1024 * 1024
MAX_DIRECT_RESPONSE_BYTES = 5 * 1024 * 1024
"""Announced to every worker; only NVCF's compatibility mode uses it."""

_NS = 1_000_000_000


class EnvelopeError(WireError):
    """Fields that cannot be encoded as an envelope, or bytes that cannot be decoded as one."""


def encode_call_head(
    *,
    nca_id: str,
    subject: str,
    method: bytes,
    path: bytes,
    headers: list[tuple[bytes, bytes]],
) -> bytes:
    """Return the fields of an envelope that are the same for all calls with one head.

    The arguments are those of `wire.decoded_envelope.EnvelopeHead`. Header values are opaque bytes
    (RFC 9110 §5.5). Further headers, from `encode_headers`, may be put behind what this returns.

    Raises `EnvelopeError` if a header's name or the path is not UTF-8.
    """
    if not method.isascii() or not path.isascii():
        _check_utf8([method, path])
    header_fields, opaque_fields = _headers(headers)
    return b"".join(
        (
            _caller(nca_id, subject),
            header_fields,
            _method(method),
            _field(b"z", path),
            opaque_fields,
        )
    )


def encode_envelope(  # noqa: PLR0913 - one argument per field of the message
    head: bytes,
    *,
    request_id: str,
    requested_at_ns: int,
    body: bytes,
    target_uri: bytes,
    response_token: str,
    request_token: str | None,
    channel_token: str = "",
) -> bytes:
    """Return the encoded envelope of one request.

    The arguments are those of `wire.decoded_envelope.Envelope`.

    ``head`` is from `encode_call_head`.

    Raises `EnvelopeError` if the envelope is larger than `MAX_ENVELOPE_BYTES`.
    """
    data = b"".join(
        (
            _field(b"\n", request_id.encode()),
            head,
            _timestamp(requested_at_ns),
            _field(b"R", body) if body else b"",
            _attach(target_uri, response_token.encode(), request_token),
            _field(_CHANNEL_TAG, channel_token.encode()) if channel_token else b"",
        )
    )
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeError("The envelope is larger than 6 MiB")
    return data


def encode_assets(assets: Iterable[tuple[str, str, str]]) -> bytes:
    """Return the repeated field ``inputAssetReference``, to be put behind a call's head.

    ``assets`` are asset id, URL and content type of each.
    """
    return b"".join(
        _field(
            b"2",
            _field(b"\n", asset_id.encode())
            + _field(b"\x12", url.encode())
            + _field(b"\x1a", content_type.encode()),
        )
        for asset_id, url, content_type in assets
    )


# Encoding by hand takes two thirds of the time of upb, which first copies every field into a
# message. A field is its tag (number << 3 | 2, as a varint), its length as a varint, and its bytes;
# their order does not matter. Decoding is left to upb: by hand it is no faster,
# and upb accepts every valid encoding that a peer may send.


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SIZES = [_varint(size) for size in range(1024)]
_OPAQUE_TAG = _varint(1001 << 3 | 2)
_CHANNEL_TAG = _varint(1002 << 3 | 2)
_MAX_DIRECT_RESPONSE = b"(" + _varint(MAX_DIRECT_RESPONSE_BYTES)

_REPEATING = REPEATING | {
    NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY,
    NVCF_INVOCATION_REGION,
    NVCF_POLLED,
}
_MAX_KNOWN_HEADERS = 1024
_MAX_KNOWN_HEADER_BYTES = 200
_known_headers: dict[tuple[bytes, bytes], bytes] = {}
"""Headers that repeat, encoded once."""


def _field(tag: bytes, value: bytes) -> bytes:
    size = len(value)
    return tag + (_SIZES[size] if size < 1024 else _varint(size)) + value


def _headers(headers: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Return the repeated fields ``requestHeaders`` and ``opaqueHeaderValues``."""
    block = encode_headers(headers)
    if block.isascii():
        return block, b""
    _check_utf8([name for name, _ in headers])
    opaque = [(at, value) for at, (_, value) in enumerate(headers) if not _is_utf8(value)]
    if not opaque:
        return block, b""
    readable = headers.copy()
    for at, value in opaque:
        readable[at] = (headers[at][0], value.decode("latin-1").encode())
    fields = [
        _field(_OPAQUE_TAG, b"\x08%b%b" % (_varint(at), _field(b"\x12", value)))
        for at, value in opaque
    ]
    return encode_headers(readable), b"".join(fields)


def encode_headers(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the repeated field ``requestHeaders``; names and values must be UTF-8."""
    known = _known_headers.get
    return b"".join([known(header) or _header(header) for header in headers])


def _header(header: tuple[bytes, bytes]) -> bytes:
    name, value = header
    name_bytes = len(name)
    value_bytes = len(value)
    size = name_bytes + value_bytes + 4
    if size < 128:
        # All three lengths fit in one byte.
        field = b"j%c\n%c%b\x12%c%b" % (size, name_bytes, name, value_bytes, value)
    else:
        field = _field(b"j", _field(b"\n", name) + _field(b"\x12", value))
    if name in _REPEATING and size <= _MAX_KNOWN_HEADER_BYTES:
        if len(_known_headers) >= _MAX_KNOWN_HEADERS:
            _known_headers.clear()
        _known_headers[header] = field
    return field


@lru_cache(maxsize=1024)
def _caller(nca_id: str, subject: str) -> bytes:
    """Return what tells who calls; and a limit, the field whose number comes next."""
    caller = _field(b"\x12", nca_id.encode()) + _field(b"\x1a", subject.encode())
    return caller + _MAX_DIRECT_RESPONSE


@lru_cache(maxsize=16)
def _method(method: bytes) -> bytes:
    return _field(b"r", method)


def _timestamp(ns: int) -> bytes:
    """Return ``requestTime``, a ``google.protobuf.Timestamp``."""
    seconds, nanos = divmod(ns, _NS)
    return _field(b"B", b"%b\x10%b" % (_seconds(seconds), _varint(nanos)))


@lru_cache(maxsize=16)
def _seconds(seconds: int) -> bytes:
    return b"\x08" + _varint(seconds)


def _attach(target_uri: bytes, response_token: bytes, request_token: str | None) -> bytes:
    """Return ``statelessConfig`` with its one HTTP/1 connection config."""
    if request_token is None:
        return _attach_start(target_uri, len(response_token), 0) + response_token
    rest = _field(b'"', request_token.encode())
    return _attach_start(target_uri, len(response_token), len(rest)) + response_token + rest


@lru_cache(maxsize=64)
def _attach_start(target_uri: bytes, token_bytes: int, more_bytes: int) -> bytes:
    """Return what stands before the response token: the same for all calls of a process."""
    start = _field(b"\x12", target_uri) + b"\x1a" + _varint(token_bytes)
    size = len(start) + token_bytes + more_bytes
    for tag in (b"\n", b"\n", b"\x92\x01"):
        opening = tag + _varint(size)
        size += len(opening)
        start = opening + start
    return start


def _check_utf8(texts: list[bytes]) -> None:
    if not all(map(_is_utf8, texts)):
        raise EnvelopeError("A header name or the path is not UTF-8")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
