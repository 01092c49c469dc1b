"""Who is believed about the client's address, and what is made of what they say."""

from ipaddress import ip_network

import pytest

from gateway.routing.sources import Sources
from http1.stream import Headers, Peer, Request
from wire.source import Source

HOPS = Sources(
    [ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("127.0.0.1")], trusts_unix=True
)
NOBODY = Sources([], trusts_unix=False)
CLIENT = "203.0.113.7"
HOST = b"f.example.com:8443"


def request(peer: str | Peer, *headers: tuple[bytes, bytes], host: bytes = HOST) -> Request:
    peer = Peer(peer) if isinstance(peer, str) else peer
    fields: Headers = [(b"host", host), *headers]
    return Request(b"GET", b"/", host, fields, 0, 0.0, host, peer)


def found(source: Source) -> tuple[str, bytes, bytes]:
    return source.address, source.scheme, source.authority


@pytest.mark.parametrize("sources", [HOPS, NOBODY])
def test_what_a_stranger_says_is_not_believed(sources: Sources) -> None:
    source = sources.find(
        request(
            CLIENT,
            (b"x-forwarded-for", b"9.9.9.9"),
            (b"x-forwarded-proto", b"https"),
            (b"x-forwarded-host", b"evil.example"),
            (b"forwarded", b"for=9.9.9.9;proto=https;host=evil.example"),
        )
    )
    assert found(source) == (CLIENT, b"http", HOST)


def test_the_origin_of_a_connection_is_found_once_per_host() -> None:
    peer = Peer(CLIENT)
    first = HOPS.find(request(peer))
    assert HOPS.find(request(peer, (b"x-forwarded-for", b"9.9.9.9"))) is first
    other = HOPS.find(request(peer, host=b"g.example.com"))
    assert found(other) == (CLIENT, b"http", b"g.example.com")


@pytest.mark.parametrize(
    ("listed", "address"),
    [
        (b"203.0.113.7", CLIENT),
        (b"9.9.9.9, 203.0.113.7", CLIENT),
        (b"9.9.9.9, 203.0.113.7, 10.1.2.3, fd00::5", CLIENT),
        (b"203.0.113.7:4711, [fd00::5]:80", CLIENT),
        (b"10.1.2.3, 10.1.2.4", "10.1.2.3"),
        (b"9.9.9.9, unknown, 10.1.2.3", "10.1.2.3"),
        (b"9.9.9.9, 10.1.2.3, garbage", "10.0.0.1"),
        (b"", "10.0.0.1"),
        (b",", "10.0.0.1"),
        (b",".join([b"9.9.9.9"] + [b"10.1.2.3"] * 100), "10.1.2.3"),
    ],
)
def test_the_rightmost_address_that_is_not_a_hops_is_the_client(
    listed: bytes, address: str
) -> None:
    assert HOPS.find(request("10.0.0.1", (b"x-forwarded-for", listed))).address == address


def test_several_lines_are_one_list() -> None:
    lines = [(b"x-forwarded-for", value) for value in (b"9.9.9.9", b"203.0.113.7", b"10.1.2.3")]
    assert HOPS.find(request("10.0.0.1", *lines)).address == CLIENT


def test_clients_that_share_a_connection_of_a_hop_are_told_apart() -> None:
    peer = Peer("10.0.0.1")
    for address in ("203.0.113.1", "203.0.113.2", "203.0.113.1"):
        told = request(peer, (b"x-forwarded-for", address.encode()))
        assert HOPS.find(told).address == address
    assert HOPS.find(request(peer)).address == "10.0.0.1"


@pytest.mark.parametrize(
    ("schemes", "hosts", "scheme", "authority"),
    [
        (b"https", b"Public.example.com", b"https", b"Public.example.com"),
        (b"HTTPS", b"", b"https", HOST),
        (b"https, http", b"a.example, b.example", b"https", b"a.example"),
        (b"https, http, http", b"a.example, b.example, c.example", b"http", b"c.example"),
        (b"ftp", b"not a host", b"http", HOST),
        (b"", b'x";y', b"http", HOST),
    ],
)
def test_scheme_and_host_are_the_clients(
    schemes: bytes, hosts: bytes, scheme: bytes, authority: bytes
) -> None:
    """They belong to the address at the same place, or the nearest hop has said them."""
    source = HOPS.find(
        request(
            "10.0.0.1",
            (b"x-forwarded-for", b"203.0.113.7, 10.1.2.3"),
            (b"x-forwarded-proto", schemes),
            (b"x-forwarded-host", hosts),
        )
    )
    assert found(source) == (CLIENT, scheme, authority)


def test_scheme_and_host_are_believed_without_an_address() -> None:
    source = HOPS.find(
        request("", (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"a.example"))
    )
    assert found(source) == ("", b"https", b"a.example")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"for=203.0.113.7;proto=https;host=a.example", (CLIENT, b"https", b"a.example")),
        (
            b"for=9.9.9.9;proto=ftp, for=203.0.113.7;proto=https;host=a.example, for=10.1.2.3",
            (CLIENT, b"https", b"a.example"),
        ),
        (b"for=9.9.9.9, for=_hidden;proto=https, for=10.1.2.3", ("10.1.2.3", b"https", HOST)),
        (b"for=203.0.113.7;for=9.9.9.9", ("10.0.0.1", b"http", HOST)),
    ],
)
def test_forwarded_is_followed_back_alike(value: bytes, expected: tuple[str, bytes, bytes]) -> None:
    assert found(HOPS.find(request("10.0.0.1", (b"forwarded", value)))) == expected


@pytest.mark.parametrize(
    ("stated", "prefix"),
    [
        (b"/models", b"/models"),
        (b"/a/b%20c/", b"/a/b%20c"),
        (b"models", b""),
        (b"//evil.example", b""),
        (b"/a, /b", b""),
        (b"/", b""),
    ],
)
def test_a_hop_says_what_it_cut_off_the_path(stated: bytes, prefix: bytes) -> None:
    header = (b"x-forwarded-prefix", stated)
    assert HOPS.find(request("10.0.0.1", header)).prefix == prefix
    assert HOPS.find(request(CLIENT, header)).prefix == b""


def test_of_both_kinds_the_older_headers_count() -> None:
    """A hop that sets them passes on the Forwarded that a client made up."""
    source = HOPS.find(
        request(
            "10.0.0.1",
            (b"forwarded", b"for=9.9.9.9;host=evil.example"),
            (b"x-forwarded-for", b"203.0.113.7"),
        )
    )
    assert found(source) == (CLIENT, b"http", HOST)


def test_a_unix_socket_is_trusted_only_if_the_setting_says_so() -> None:
    told = (b"x-forwarded-for", b"203.0.113.7")
    assert HOPS.find(request("", told)).address == CLIENT
    assert NOBODY.find(request("", told)).address == ""
