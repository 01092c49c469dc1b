"""Host names: the grammar of an authority, and the function that a host name addresses.

``{functionId}.<suffix>`` and ``{versionId}.{functionId}.<suffix>`` address a function
(`docs/wire.md` §1.2). Requests with any other host name are routed by their path.
"""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

from wire.errors import WireError
from wire.ids import UUID_CHARACTERS, parse_uuid

MAX_HOST_BYTES = 253
"""RFC 1035 §2.3.4, without the final dot."""

_name_and_port = re.compile(
    rb"([0-9A-Za-z_-]{1,63}(?:\.[0-9A-Za-z_-]{1,63})*)\.?(?::([0-9]{0,5}))?"
).fullmatch
_ipv6_and_port = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?").fullmatch


class HostError(WireError):
    """A Host or ``:authority`` that is not ``host[:port]``; gets 400 (RFC 9112 §3.2)."""


class HostRoute(NamedTuple):
    """The function that a host name addresses; without a version, routing selects one."""

    function_id: str
    version_id: str | None


def parse_authority(value: bytes) -> bytes:
    """Return the host of ``host[:port]``, lower case, without port and final dot.

    Accepts names of letters, digits, hyphens and underscores, IPv4 addresses (which match the same
    pattern), and IPv6 addresses in brackets, which are kept. Stricter than RFC 3986 §3.2.2: no
    percent-encoding and no sub-delimiters, which DNS names do not contain. Raises `HostError`.
    """
    match = _name_and_port(value)
    if match is None:
        match = _ipv6_and_port(value)
        if match is None or not _is_ipv6(match[1][1:-1]):
            raise HostError("Host is not host[:port]")
    host, port = match.groups()
    if len(host) > MAX_HOST_BYTES:
        raise HostError("Host is longer than 253 bytes")
    if port and int(port) > 65535:
        raise HostError("Host has a port above 65535")
    return host.lower()


def route_host(host: bytes, suffix: bytes) -> HostRoute | None:
    """Return the function that ``host`` addresses, ``None`` if it addresses none.

    ``host`` comes from `parse_authority`. ``suffix`` is lower case and starts with a dot
    (``b".invocation.example.com"``); the rest of the host must equal it. An empty suffix accepts
    any rest, for development.
    """
    first = parse_uuid(host[:UUID_CHARACTERS])
    if first is None:
        return None
    rest = host[UUID_CHARACTERS:]
    if suffix and rest == suffix:
        return HostRoute(first, None)
    if rest and rest[0] != 0x2E:
        return None
    second = parse_uuid(rest[1 : 1 + UUID_CHARACTERS])
    rest_of_two = rest[1 + UUID_CHARACTERS :]
    if suffix:
        return HostRoute(second, first) if second and rest_of_two == suffix else None
    if second and rest_of_two[:1] in (b"", b"."):
        return HostRoute(second, first)
    return HostRoute(first, None)


def _is_ipv6(text: bytes) -> bool:
    try:
        IPv6Address(text.decode())
    except AddressValueError:
        return False
    return True
