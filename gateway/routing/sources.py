"""Which client a request comes from, and what it called, behind hops that are trusted.

What a request says of itself in ``Forwarded`` and ``X-Forwarded-…`` counts if its peer is a trusted
hop (the setting ``edge.trusted_hops``). Such hops append the address from which they got a request,
so the list is followed back from its end: the first address that is not a trusted hop's is the
client, and what stands before it was said by the client itself (RFC 7239 §8.1, `docs/wire.md`
§3.6).
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from http1.stream import Request
from wire.headers import (
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PREFIX,
    X_FORWARDED_PROTO,
)
from wire.hosts import HostError, parse_authority
from wire.source import (
    MAX_HOPS,
    ForwardedSyntaxError,
    Hop,
    Source,
    parse_address,
    parse_forwarded,
)

_is_prefix = re.compile(rb"(?:/[0-9A-Za-z._~!$&'()*+;=:@%-]+)+").fullmatch
_SCHEMES = frozenset({b"http", b"https"})
_STATING = frozenset(
    {FORWARDED, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PREFIX, X_FORWARDED_PROTO}
)
_MAX_KNOWN = 4096
"""How many addresses, and how many statements of hops, are cached; a full cache is cleared."""
_MAX_KNOWN_BYTES = 512
"""Longest statement that is cached."""

Network = IPv4Network | IPv6Network


class _Statement(NamedTuple):
    """What a trusted hop sent with a request; its headers as they came, joined as one list each.

    ``over`` is the scheme of its own connection.
    """

    peer: str
    over: bytes
    host: bytes
    forwarded: bytes
    address: bytes
    called: bytes
    scheme: bytes
    prefix: bytes


class Sources:
    """Finds the source of requests; the usual one costs a comparison."""

    __slots__ = ("_hops", "_known", "_networks", "_trusts_unix")

    def __init__(self, networks: Iterable[Network], *, trusts_unix: bool) -> None:
        """``networks`` are those of trusted hops; ``trusts_unix``: so is who uses a Unix socket."""
        self._networks = tuple(networks)
        self._trusts_unix = trusts_unix
        self._hops: dict[str, bool] = {}
        self._known: dict[_Statement, Source] = {}

    def find(self, request: Request) -> Source:
        """Return the source of ``request``, and remember it for the next of the connection."""
        peer = request.peer
        known = peer.source
        if known is not None and known.host == request.host:
            return known
        if self._is_hop(peer.address):
            return self._stated_source(request)
        source = Source(peer.address, peer.scheme, request.host, host=request.host)
        peer.source = source
        return source

    def _is_hop(self, address: str) -> bool:
        if not address:
            return self._trusts_unix
        found = self._hops.get(address)
        if found is None:
            try:
                ip = ip_address(address)
            except ValueError:
                return False
            found = any(ip in network for network in self._networks)
            if len(self._hops) >= _MAX_KNOWN:
                self._hops.clear()
            self._hops[address] = found
        return found

    def _stated_source(self, request: Request) -> Source:
        """Return the source that a trusted hop tells."""
        stated: dict[bytes, bytes] = {}
        for name, value in request.headers:
            if name in _STATING:
                # Several lines of one name are one list (RFC 9110 §5.3).
                stated[name] = stated[name] + b"," + value if name in stated else value
        get = stated.get
        statement = _Statement(
            request.peer.address,
            request.peer.scheme,
            request.host,
            get(FORWARDED, b""),
            get(X_FORWARDED_FOR, b""),
            get(X_FORWARDED_HOST, b""),
            get(X_FORWARDED_PROTO, b""),
            get(X_FORWARDED_PREFIX, b"").rstrip(b"/"),
        )
        source = self._known.get(statement)
        if source is None:
            source = self._follow(statement)
            if sum(map(len, statement)) <= _MAX_KNOWN_BYTES:
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                self._known[statement] = source
        return source

    def _follow(self, statement: _Statement) -> Source:
        """Follow the hops back to the client."""
        address, scheme, authority = statement.peer, statement.over, statement.host
        for hop in _hops(statement):
            scheme = hop.scheme if hop.scheme in _SCHEMES else scheme
            authority = hop.host if _is_authority(hop.host) else authority
            if not hop.address:
                break
            address = hop.address
            if not self._is_hop(address):
                break
        return Source(
            address,
            scheme,
            authority,
            host=statement.host,
            prefix=statement.prefix if _is_prefix(statement.prefix) else b"",
        )


def _hops(statement: _Statement) -> Sequence[Hop]:
    """Return what each hop says, the nearest first.

    The ``X-Forwarded-`` headers count if there are any: a hop that sets these often passes on the
    ``Forwarded`` that a client made up, and seldom the other way round. `docs/proxies.md` says what
    a hop has to remove.
    """
    if statement.address or statement.called or statement.scheme:
        return _older(statement)
    try:
        return parse_forwarded(statement.forwarded)[::-1] if statement.forwarded else ()
    except ForwardedSyntaxError:
        return ()


def _older(statement: _Statement) -> Sequence[Hop]:
    addresses = _split(statement.address) or [b""]
    hosts = _aligned(_split(statement.called), len(addresses))
    schemes = _aligned(_split(statement.scheme.lower()), len(addresses))
    return [
        Hop(parse_address(address), host, scheme)
        for address, host, scheme in zip(addresses, hosts, schemes, strict=True)
    ]


def _split(values: bytes) -> list[bytes]:
    """Return the last elements of a list, the last first."""
    if not values:
        return []
    return [value.strip(b" \t") for value in reversed(values.rsplit(b",", MAX_HOPS)[-MAX_HOPS:])]


def _aligned(values: list[bytes], size: int) -> list[bytes]:
    """Return as many values as there are addresses.

    Some hops append host and scheme as they do addresses, most replace them. If the numbers differ,
    the last one counts: the nearest hop has said it.
    """
    if len(values) == size:
        return values
    return [values[0] if values else b""] * size


def _is_authority(value: bytes) -> bool:
    try:
        parse_authority(value)
    except HostError:
        return False
    return True
