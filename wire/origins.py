"""Web origins, as browsers write them in the header ``Origin`` (RFC 6454 §7)."""

import re

ANY_ORIGIN = "*"
"""Stands for every origin in settings, and in ``Access-Control-Allow-Origin``."""
ORIGIN_PATTERN = (
    r"^(\*|[A-Za-z][A-Za-z0-9+.\-]*://"
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~\-]+)(:[0-9]{1,5})?)$"
)
"""``*``, or ``scheme://host[:port]`` without a path; a name that is not ASCII in punycode."""
MAX_ORIGIN_CHARS = 300
"""The longest host name, with scheme and port."""

_is_origin = re.compile(ORIGIN_PATTERN).fullmatch
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def normal_origin(text: str) -> str:
    """Return an origin as browsers send it: lower case, without its scheme's default port.

    ``*`` stays. Raises ValueError for a text that is not an origin: with a path, or ``null``, which
    many unrelated pages have in common.
    """
    if len(text) > MAX_ORIGIN_CHARS or not _is_origin(text):
        raise ValueError("an origin is scheme://host or scheme://host:port, or * for all")
    origin = text.lower()
    scheme, _, authority = origin.partition("://")
    host, colon, port = authority.rpartition(":")
    if colon and _DEFAULT_PORTS.get(scheme) == port:
        return f"{scheme}://{host}"
    return origin
