"""To which URLs and addresses a webhook may go. Pure.

Whoever may invoke a function chooses the URL, so that without these rules they could make the
gateway call what only it can reach (server-side request forgery). A URL is checked when the call is
accepted, and the address of each connection when it is made: a name may mean another one by then.

Sources: IANA's registries of special-purpose addresses, for IPv4 and IPv6 (RFC 6890).
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from gateway.errors import BadRequest

MAX_URL_BYTES = 2048
MIN_OTHER_PORT = 1024
"""Below it only the ports of HTTP are open to webhooks."""
_HTTP_PORTS = frozenset({80, 443})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_is_url_text = re.compile(rb"[!-~]+").fullmatch
_is_label = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?").fullmatch
_MAX_NAME = 253
_NOT_PUBLIC_4 = tuple(
    IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24"),
        *("192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        # Azure gives each machine its configuration and credentials there.
        "168.63.129.16/32",
    )
)
_PUBLIC_6 = IPv6Network("2000::/3")
"""All that is assigned of global unicast: neither loopback, link-local, unique local, multicast,
IPv4-mapped nor NAT64 (64:ff9b::/96)."""
_NOT_PUBLIC_6 = tuple(
    IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
"""Teredo and other protocols, documentation, 6to4: the last holds an IPv4 address of any kind."""


@dataclass(frozen=True, slots=True)
class WebhookRules:
    """What the operator permits.

    ``hosts`` are the names that URLs may have, in lower case, ``*.example.com`` for those below a
    domain; empty: all. ``private_networks`` are reached although they are not public.
    """

    hosts: tuple[str, ...] = ()
    private_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    allows_http: bool = False

    def check_url(self, value: bytes) -> str:
        """Return the URL that a caller has named. Raises `BadRequest`."""
        if len(value) > MAX_URL_BYTES:
            raise _refused(f"is longer than {MAX_URL_BYTES} bytes")
        if not _is_url_text(value):
            raise _refused("is not a URL of visible ASCII characters")
        text = value.decode()
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise _refused("is not a URL") from None
        if parts.scheme not in _DEFAULT_PORTS or "\\" in text or not parts.netloc:
            raise _refused("is not an https URL")
        if parts.scheme == "http" and not self.allows_http:
            raise _refused("is not an https URL")
        if "@" in parts.netloc:
            raise _refused("has a user name or a password")
        if "#" in text:
            raise _refused("has a fragment")
        self._check_host(host)
        port = _DEFAULT_PORTS[parts.scheme] if port is None else port
        if port not in _HTTP_PORTS and port < MIN_OTHER_PORT:
            raise _refused(f"has a port below {MIN_OTHER_PORT} other than 80 and 443")
        return text

    def permits(self, address: str) -> bool:
        """Return whether a connection may be made to an IP address."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        # Link-local addresses have one.
        has_scope = isinstance(parsed, IPv6Address) and parsed.scope_id is not None
        if has_scope:
            parsed = IPv6Address(address.partition("%")[0])
        if any(
            parsed in network
            for network in self.private_networks
            if network.version == parsed.version
        ):
            return True
        return not has_scope and is_public(parsed)

    def _check_host(self, host: str) -> None:
        literal = literal_of(host)
        if literal is not None:
            if not self.permits(literal):
                raise _refused("names an address that webhooks may not reach")
        elif len(host) > _MAX_NAME or not all(map(_is_label, host.removesuffix(".").split("."))):
            raise _refused("has no valid host name")
        if self.hosts and not self._is_listed(host.removesuffix(".")):
            raise _refused("names a host to which this gateway sends no webhooks")

    def _is_listed(self, host: str) -> bool:
        return any(
            host.endswith(listed[1:]) and len(host) > len(listed) - 1
            if listed.startswith("*.")
            else host == listed
            for listed in self.hosts
        )


def literal_of(host: str) -> str | None:
    """Return the address if the host of a URL is one, without brackets; `None` for a name."""
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def host_of(url: str) -> str:
    """Return the host of a URL that `WebhookRules.check_url` has returned."""
    return urlsplit(url).hostname or ""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is one of the public Internet, and of a single machine."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def _refused(why: str) -> BadRequest:
    return BadRequest(f"NVCF-Webhook-URL {why}")
