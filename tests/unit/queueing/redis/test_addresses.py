"""Addresses of Redis servers."""

import pytest

from queueing.redis.addresses import AddressError, parse_server
from queueing.servers import Server


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("redis://broker", Server("broker", 6379)),
        ("redis://broker:1/", Server("broker", 1)),
        ("rediss://me:pa%40ss@broker", Server("broker", 6379, True, "me", "pa@ss")),
        ("redis://broker:1/0", Server("broker", 1)),
        ("redis://:secret@[::1]:2", Server("::1", 2, False, "", "secret")),
    ],
)
def test_addresses_are_read(url: str, server: Server) -> None:
    assert parse_server(url) == server
    assert "secret" not in str(server)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker:6379",
        "http://a",
        "redis://",
        "redis://:secret@a:b",
        "redis://:secret@a/1",
        "redis://:secret@a?ssl=1",
        "redis://:secret@a#b",
    ],
)
def test_other_addresses_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(AddressError) as refused:
        parse_server(url)
    assert "secret" not in str(refused.value)
