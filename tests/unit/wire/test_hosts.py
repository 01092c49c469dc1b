import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.hosts import HostError, HostRoute, parse_authority, route_host

F = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
V = "9b2e0c1d-0000-4000-8000-00000000000f"
SUFFIX = b".invocation.example.com"


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"API.Example.com", b"api.example.com"),
        (b"api.example.com:8080", b"api.example.com"),
        (b"api.example.com.:443", b"api.example.com"),
        (b"api.example.com:", b"api.example.com"),
        (b"my_host", b"my_host"),
        (b"127.0.0.1:80", b"127.0.0.1"),
        (b"[::1]", b"[::1]"),
        (b"[2001:DB8::1]:65535", b"[2001:db8::1]"),
        (b"a" * 63 + b".com", b"a" * 63 + b".com"),
        (b".".join([b"a" * 62] * 4) + b".b", b".".join([b"a" * 62] * 4) + b".b"),
    ],
)
def test_the_host_of_an_authority(value: bytes, host: bytes) -> None:
    assert parse_authority(value) == host


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b".",
        b":80",
        b".example.com",
        b"a..b",
        b"example.com..",
        b"user@example.com",
        b"example.com/x",
        b"example.com?x",
        b"example.com#x",
        b"exa mple.com",
        b"example.com ",
        b"example.com\n",
        b"example.com\x00",
        b"ex%61mple.com",
        b"b\xc3\xbccher.example",
        b"example.com:65536",
        b"example.com:8x",
        b"example.com:-1",
        b"a:1:2",
        b"a, b",
        b"::1",
        b"[::1",
        b"[]",
        b"[:::]",
        b"[127.0.0.1]",
        b"[fe80::1%eth0]",
        b"a" * 64 + b".com",
        b".".join([b"a" * 62] * 4) + b".bb",
    ],
)
def test_no_authority(value: bytes) -> None:
    with pytest.raises(HostError):
        parse_authority(value)


@given(st.one_of(st.binary(max_size=60), st.text(":.[]@/ %a1-_", max_size=20).map(str.encode)))
def test_whatever_passes_has_no_delimiter_in_it_and_passes_again(value: bytes) -> None:
    with contextlib.suppress(HostError):
        host = parse_authority(value)
        assert not set(host) & set(b"/?#@%, \t\r\n\0")
        assert parse_authority(host) == host


@pytest.mark.parametrize(
    ("host", "route"),
    [
        (f"{F}.invocation.example.com", HostRoute(F, None)),
        (f"{V}.{F}.invocation.example.com", HostRoute(F, V)),
        ("api.example.com", None),
        ("invocation.example.com", None),
        (F, None),
        (f"{F}.example.com", None),
        (f"{F}-invocation.example.com", None),
        (f"{V}-{F}.invocation.example.com", None),
        (f"{V}.{F}", None),
        (f"{V}.{F}.example.com", None),
        (f"{V}.{F}.{F}.invocation.example.com", None),
        (f"x{F}.invocation.example.com", None),
        (f"{F}.x.invocation.example.com", None),
        (f"{F}.invocation.example.com.evil.org", None),
    ],
)
def test_a_function_is_named_by_uuid_labels_before_the_suffix(
    host: str, route: HostRoute | None
) -> None:
    assert route_host(host.encode(), SUFFIX) == route


@pytest.mark.parametrize(
    ("host", "route"),
    [
        (F, HostRoute(F, None)),
        (f"{F}.localhost", HostRoute(F, None)),
        (f"{V}.{F}", HostRoute(F, V)),
        (f"{V}.{F}.any.where", HostRoute(F, V)),
        (f"{V}.{F}x.any.where", HostRoute(V, None)),
        (f"{F}-localhost", None),
        ("localhost", None),
    ],
)
def test_without_a_suffix_any_rest_will_do(host: str, route: HostRoute | None) -> None:
    assert route_host(host.encode(), b"") == route


def test_a_name_in_capitals_with_a_port_finds_its_function() -> None:
    host = parse_authority(f"{V}.{F}.Invocation.Example.COM:8080".upper().encode())
    assert route_host(host, SUFFIX) == HostRoute(F, V)
