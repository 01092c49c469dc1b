"""Locations in a response that name the inference server (`docs/wire.md` §3.7)."""

from collections.abc import Mapping

from http1.stream import Headers
from wire.decoded_envelope import Envelope
from wire.headers import (
    LOCATIONS,
    X_FORWARDED_HOST,
    X_FORWARDED_PREFIX,
    X_FORWARDED_PROTO,
)
from wire.hosts import HostError, parse_authority
from wire.locations import outer_location
from worker_agent.job.request import PlatformHeaders


def with_outer_locations(
    headers: Headers, envelope: Envelope, platform_headers: PlatformHeaders
) -> Headers:
    """Return the headers of a response, or of an interim one.

    Locations of the inference server become the client's.
    """
    for name, _ in headers:
        if name in LOCATIONS:
            break
    else:
        return headers
    found = dict(envelope.headers)
    url = _called_url(found)
    # The gateway adds it to a location without a host.
    prefix = found.get(X_FORWARDED_PREFIX, b"") if url else b""
    port, host = platform_headers.port, platform_headers.host
    return [
        (name, _outer(value, port, host, url, prefix) if name in LOCATIONS else value)
        for name, value in headers
    ]


def _outer(value: bytes, port: int, host: bytes, url: bytes, prefix: bytes) -> bytes:
    if value.startswith(b"/") and not value.startswith(b"//"):
        return value
    return outer_location(value, port, host, url, prefix)


def _called_url(found: Mapping[bytes, bytes]) -> bytes:
    """Return scheme and authority that the client called, empty if the envelope does not tell."""
    host, scheme = found.get(X_FORWARDED_HOST, b""), found.get(X_FORWARDED_PROTO, b"http")
    try:
        parse_authority(host)
    except HostError:
        return b""
    return b"%b://%b" % (scheme, host) if scheme in {b"http", b"https"} else b""
