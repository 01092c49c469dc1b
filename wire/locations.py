"""Locations in responses that name the inference server, which no client can reach.

An inference server that makes an absolute URL of itself takes it from the Host header, which is its
own address (`docs/wire.md` §3.7, §8.3), or from its configuration.
"""

import re

_absolute = re.compile(
    rb"(?:(https?):)?//(\[[0-9A-Fa-f:.]*\]|[^\[\]:/?#@\\]*)(?::([0-9]{0,5}))?([/?#].*)?",
    re.IGNORECASE,
).fullmatch
_is_loopback = re.compile(rb"127(?:\.[0-9]{1,3}){3}").fullmatch
_THIS_MACHINE = frozenset({b"localhost", b"0.0.0.0", b"[::]", b"[::1]"})
_PORTS = {b"http": 80, b"https": 443}


def outer_location(value: bytes, port: int, host: bytes, url: bytes, prefix: bytes = b"") -> bytes:
    """Return the value of a Location for the outside; ``value`` itself if nothing changes.

    It changes if it names ``port`` of ``host`` or of this machine. ``url`` is scheme and authority
    that the client called; without it the location becomes relative (RFC 9110 §10.2.2). ``prefix``
    is the beginning of the path that the client called and the inference server does not see; a
    path without a host gets it too.
    """
    match = _absolute(value)
    if match is None:
        is_path = value.startswith(b"/") and not value.startswith(b"//")
        return _below(prefix, value) if prefix and is_path else value
    scheme, named, named_port, path = match.groups()
    # Without a scheme it is that of the request (RFC 3986 §4.2): to the server, http.
    if (int(named_port) if named_port else _PORTS[(scheme or b"http").lower()]) != port:
        return value
    named = named.lower()
    if named != host and named not in _THIS_MACHINE and not _is_loopback(named):
        return value
    path = path or b"/"
    if not path.startswith(b"/"):
        path = b"/" + path
    path = _below(prefix, path)
    if not url and path.startswith(b"//"):
        # Alone it would name another host (RFC 3986 §4.2).
        path = b"/." + path
    return url + path


def _below(prefix: bytes, path: bytes) -> bytes:
    """Return ``path`` with ``prefix``, which a server that knows of it may have added already."""
    return path if path == prefix or path.startswith(prefix + b"/") else prefix + path
