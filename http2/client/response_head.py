"""From the lines of an HTTP/2 response to status, headers and length (RFC 9113 §8.3.2). Pure."""

import re
from typing import NamedTuple

from http1.client.response_head import MAX_HEADERS
from http1.stream import Headers
from http2.frames import Code, StreamFault

_CONNECTION = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_is_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_is_value = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*").fullmatch
_is_status = re.compile(rb"[1-5][0-9][0-9]").fullmatch
_is_length = re.compile(rb"[0-9]{1,14}").fullmatch


class ReceivedHead(NamedTuple):
    """A response head: ``headers`` without content-length, whose value is ``body_bytes``."""

    status: int
    headers: Headers
    body_bytes: int | None


def read_head(lines: Headers) -> ReceivedHead:
    """Return the head with these lines, in order. Raises `StreamFault`."""
    status = b""
    headers: Headers = []
    lengths: list[bytes] = []
    for header in lines:
        name, value = header
        if name == b":status" and not status and not headers:
            status = value
        elif name == b"content-length":
            lengths.append(value)
        else:
            headers.append((name, value.strip(b" \t")))
    _check(headers)
    if not _is_status(status):
        raise _malformed("A response has no valid status")
    if len(lengths) > 1 or not all(map(_is_length, lengths)):
        raise _malformed("Content-Length is malformed or repeated")
    return ReceivedHead(int(status), headers, int(lengths[0]) if lengths else None)


def read_trailers(lines: Headers) -> Headers:
    """Return the trailers of a response. Raises `StreamFault`."""
    _check(lines)
    return [(name, value.strip(b" \t")) for name, value in lines]


def _check(headers: Headers) -> None:
    if len(headers) > MAX_HEADERS:
        raise _malformed("A response has more than 256 headers")
    for name, value in headers:
        if not _is_name(name) or name in _CONNECTION:
            raise _malformed("A header's name is malformed, or belongs to a connection")
        if not _is_value(value):
            raise _malformed("A header's value is malformed")


def _malformed(detail: str) -> StreamFault:
    return StreamFault(Code.PROTOCOL_ERROR, detail)
