"""Locations in a response that name the inference server (`docs/wire.md` §3.7)."""

from http1.stream import Headers
from wire.envelope import Envelope
from wire.headers import CONTENT_LOCATION, LOCATION, X_FORWARDED_HOST, X_FORWARDED_PROTO
from wire.hosts import HostError, parse_authority
from wire.locations import outer_location
from worker_agent.job.request import PlatformHeaders

_LOCATIONS = frozenset({LOCATION, CONTENT_LOCATION})


def outer_headers(
    headers: Headers, envelope: Envelope, platform_headers: PlatformHeaders
) -> Headers:
    """Return the headers of a response; locations of the inference server become the client's."""
    for name, _ in headers:
        if name in _LOCATIONS:
            break
    else:
        return headers
    url = _called_url(envelope.headers)
    port, host = platform_headers.port, platform_headers.host
    return [
        (name, outer_location(value, port, host, url) if name in _LOCATIONS else value)
        for name, value in headers
    ]


def _called_url(headers: Headers) -> bytes:
    """Return scheme and authority that the client called, empty if the envelope does not tell."""
    found = dict(headers)
    host, scheme = found.get(X_FORWARDED_HOST, b""), found.get(X_FORWARDED_PROTO, b"http")
    try:
        parse_authority(host)
    except HostError:
        return b""
    return b"%b://%b" % (scheme, host) if scheme in {b"http", b"https"} else b""
