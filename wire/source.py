"""Where a request comes from and what its client called, as the inference server is told it.

RFC 7239 (Forwarded), and the older headers ``X-Forwarded-For``, ``-Host`` and ``-Proto``, which
most servers read (`docs/wire.md` §3.6).
"""

import re
from collections import deque
from ipaddress import ip_address
from typing import NamedTuple

from wire.errors import WireError
from wire.headers import (
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PREFIX,
    X_FORWARDED_PROTO,
)

MAX_HOPS = 32
"""How many hops are followed back; what a longer list says before them is not looked at."""
_MAX_PORT_DIGITS = 5

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[^"\\]|\\.)*"'
_pair = re.compile(rb"[ \t]*+(?:(%b)=(%b|%b))?[ \t]*+([;,]|$)" % (_TOKEN, _TOKEN, _QUOTED)).match
_unescape = re.compile(rb"\\(.)").sub


class ForwardedSyntaxError(WireError):
    """A Forwarded header that RFC 7239 §4 does not permit."""


class Hop(NamedTuple):
    """What one hop says of the request that it got.

    ``address`` is where it came from, ``host`` and ``scheme`` what it called; empty if not told.
    """

    address: str
    host: bytes
    scheme: bytes


def parse_address(text: bytes) -> str:
    """Return the IP address in ``text``, which may have brackets and a port; empty if none is.

    An IPv4 address that is written as an IPv6 one is returned as IPv4. One with a zone is none: a
    zone means something on one machine only, and can be any text (RFC 4007 §11).
    """
    text = text.strip(b" \t")
    if text.startswith(b"["):
        inner, bracket, rest = text[1:].partition(b"]")
        if not bracket or (rest and not _is_port(rest)):
            return ""
        text = inner
    elif text.count(b":") == 1:
        text, _, port = text.partition(b":")
        if not _is_port(b":" + port):
            return ""
    if b"%" in text:
        return ""
    try:
        address = ip_address(text.decode("ascii"))
    except ValueError:
        return ""
    if address.version == 6:
        address = address.ipv4_mapped or address
    return str(address)


def parse_forwarded(value: bytes) -> list[Hop]:
    """Return the last hops of a Forwarded header, in order (RFC 7239 §4).

    Raises `ForwardedSyntaxError` for what is not such a list.
    """
    hops: deque[dict[bytes, bytes]] = deque(maxlen=MAX_HOPS)
    pairs: dict[bytes, bytes] = {}
    at = 0
    while at <= len(value):
        match = _pair(value, at)
        if match is None:
            raise ForwardedSyntaxError("Forwarded is malformed")
        name, said, separator = match.groups()
        if name is not None:
            if name.lower() in pairs:
                raise ForwardedSyntaxError("Forwarded says one thing twice")
            pairs[name.lower()] = said
        if separator != b";":
            if pairs:
                hops.append(pairs)
            pairs = {}
        at = match.end() + (separator == b"")
    return [_hop(pairs) for pairs in hops]


def _hop(pairs: dict[bytes, bytes]) -> Hop:
    get = pairs.get
    return Hop(
        parse_address(_unquote(get(b"for", b""))),
        _unquote(get(b"host", b"")),
        _unquote(get(b"proto", b"")).lower(),
    )


def _unquote(value: bytes) -> bytes:
    return _unescape(rb"\1", value[1:-1]) if value.startswith(b'"') else value


def _is_port(text: bytes) -> bool:
    digits = text[1:]
    return text[:1] == b":" and digits.isdigit() and len(digits) <= _MAX_PORT_DIGITS


def _headers(
    address: str, scheme: bytes, authority: bytes, prefix: bytes
) -> tuple[tuple[bytes, bytes], ...]:
    node = f'"[{address}]"' if ":" in address else address or "unknown"
    forwarded = b"for=%b" % node.encode()
    stated = []
    if address:
        stated.append((X_FORWARDED_FOR, address.encode()))
    if authority:
        # Quoted, because a port's colon is not permitted in a token (RFC 7239 §4).
        forwarded += b';host="%b"' % authority
        stated.append((X_FORWARDED_HOST, authority))
    if prefix:
        stated.append((X_FORWARDED_PREFIX, prefix))
    return (
        (FORWARDED, b"%b;proto=%b" % (forwarded, scheme)),
        *stated,
        (X_FORWARDED_PROTO, scheme),
    )


class Source:
    """The client of a request, and scheme and authority of the URL that it called.

    ``address`` is an IPv4 or IPv6 address as text, empty if it is not known. ``host`` is the Host
    header that the peer sent; ``authority`` is ``host[:port]`` as the client wrote it: the same,
    unless a trusted hop says otherwise. ``scheme`` is ``http`` or ``https``. ``prefix`` is the
    beginning of the path that the client called, if it was removed on the way. ``headers``
    are the headers that tell it to the next server, ``encoded`` the same as a part of an envelope,
    with further ``fields`` of a call's, empty until they are encoded.
    """

    __slots__ = (
        "address",
        "authority",
        "encoded",
        "fields",
        "headers",
        "host",
        "prefix",
        "scheme",
    )

    def __init__(
        self,
        address: str,
        scheme: bytes,
        authority: bytes,
        *,
        host: bytes = b"",
        prefix: bytes = b"",
    ) -> None:
        self.address = address
        self.scheme = scheme
        self.authority = authority
        self.host = host
        self.prefix = prefix
        self.headers = _headers(address, scheme, authority, prefix)
        self.encoded = self.fields = b""

    def __repr__(self) -> str:
        return f"<Source {self.address or 'unknown'} {self.url.decode(errors='replace')}>"

    @property
    def url(self) -> bytes:
        """Scheme and authority that the client called, empty if it named no host."""
        return b"%b://%b" % (self.scheme, self.authority) if self.authority else b""

    def below(self, prefix: bytes) -> "Source":
        """Return the source of a request from whose path ``prefix`` was removed (``/f/name``)."""
        return Source(
            self.address,
            self.scheme,
            self.authority,
            host=self.host,
            prefix=self.prefix + prefix,
        )

    def with_fields(self, fields: bytes) -> "Source":
        """Return the same source for one call whose envelope has further ``fields``."""
        source = Source(
            self.address, self.scheme, self.authority, host=self.host, prefix=self.prefix
        )
        source.fields = fields
        return source


UNKNOWN = Source("", b"http", b"")
