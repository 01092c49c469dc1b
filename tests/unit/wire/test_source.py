"""What is read of Forwarded, and what the next server is told."""

import pytest

from wire.source import MAX_HOPS, ForwardedSyntaxError, Hop, Source, parse_address, parse_forwarded


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"203.0.113.7", "203.0.113.7"),
        (b" 203.0.113.7:4711\t", "203.0.113.7"),
        (b"2001:DB8::1", "2001:db8::1"),
        (b"[2001:db8::1]", "2001:db8::1"),
        (b"[2001:db8::1]:443", "2001:db8::1"),
        (b"::ffff:203.0.113.7", "203.0.113.7"),
        (b"", ""),
        (b"unknown", ""),
        (b"_hidden", ""),
        (b"203.0.113.7:", ""),
        (b"203.0.113.7:http", ""),
        (b"[2001:db8::1", ""),
        (b"[2001:db8::1]443", ""),
        (b"203.0.113.256", ""),
        (b'fe80::1%"; x="', ""),
        (b"\xff", ""),
    ],
)
def test_an_address_may_have_brackets_and_a_port(text: bytes, address: str) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("value", "hops"),
    [
        (b"for=192.0.2.43", [Hop("192.0.2.43", b"", b"")]),
        (
            b"for=192.0.2.43, for=198.51.100.17;by=203.0.113.60;proto=HTTP;host=example.com",
            [Hop("192.0.2.43", b"", b""), Hop("198.51.100.17", b"example.com", b"http")],
        ),
        (b'For="[2001:db8:cafe::17]:4711"', [Hop("2001:db8:cafe::17", b"", b"")]),
        (b"for=unknown;proto=https", [Hop("", b"", b"https")]),
        (b'for="a,b;c" ; host="x\\"y"', [Hop("", b'x"y', b"")]),
        (b",, for=192.0.2.43 ;;,", [Hop("192.0.2.43", b"", b"")]),
        (b"", []),
    ],
)
def test_forwarded_is_a_list_of_hops(value: bytes, hops: list[Hop]) -> None:
    assert parse_forwarded(value) == hops


@pytest.mark.parametrize(
    "value",
    [
        b"for",
        b"for=",
        b"for=a=b",
        b'for="a',
        b"for=1.1.1.1;For=2.2.2.2",
        b"for=a b",
        b" " * 60_000 + b"x",
    ],
)
def test_what_is_not_such_a_list_is_an_error(value: bytes) -> None:
    with pytest.raises(ForwardedSyntaxError):
        parse_forwarded(value)


def test_only_the_last_hops_are_kept() -> None:
    hops = parse_forwarded(b",".join(b"for=10.0.0.%d" % number for number in range(200)))
    assert len(hops) == MAX_HOPS
    assert hops[-1].address == "10.0.0.199"


@pytest.mark.parametrize(
    ("source", "headers"),
    [
        (
            Source("203.0.113.7", b"https", b"f.example.com:8443"),
            [
                (b"forwarded", b'for=203.0.113.7;host="f.example.com:8443";proto=https'),
                (b"x-forwarded-for", b"203.0.113.7"),
                (b"x-forwarded-host", b"f.example.com:8443"),
                (b"x-forwarded-proto", b"https"),
            ],
        ),
        (
            Source("2001:db8::1", b"http", b"[::1]:80"),
            [
                (b"forwarded", b'for="[2001:db8::1]";host="[::1]:80";proto=http'),
                (b"x-forwarded-for", b"2001:db8::1"),
                (b"x-forwarded-host", b"[::1]:80"),
                (b"x-forwarded-proto", b"http"),
            ],
        ),
        (
            Source("", b"http", b""),
            [(b"forwarded", b"for=unknown;proto=http"), (b"x-forwarded-proto", b"http")],
        ),
    ],
)
def test_the_next_server_is_told_what_is_known(
    source: Source, headers: list[tuple[bytes, bytes]]
) -> None:
    assert list(source.headers) == headers


def test_a_request_whose_path_was_cut_tells_what_was_cut_off() -> None:
    source = Source("203.0.113.7", b"https", b"a", host=b"h")
    below = source.below(b"/models").below(b"/f/x")
    assert (b"x-forwarded-prefix", b"/models/f/x") in below.headers
    assert (below.address, below.url, below.host) == (source.address, source.url, source.host)
    assert below.prefix == b"/models/f/x"


def test_the_url_of_a_client_that_named_no_host_is_not_known() -> None:
    assert Source("192.0.2.1", b"http", b"").url == b""
    assert Source("192.0.2.1", b"https", b"a:1").url == b"https://a:1"
