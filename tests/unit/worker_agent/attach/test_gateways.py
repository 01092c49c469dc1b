"""Which addresses in an envelope are accepted."""

import pytest

from worker_agent.attach.gateways import is_target


@pytest.mark.parametrize(
    "uri", [b"http://10.0.0.1:8090", b"http://[::1]:80", b"https://gateway_1.svc.local"]
)
def test_an_address_of_a_gateway_is_a_target(uri: bytes) -> None:
    assert is_target(uri)


@pytest.mark.parametrize(
    "uri",
    [
        b"",
        b"http://",
        b"http://:80",
        b"ftp://gateway",
        b"http://gateway:0",
        b"http://gateway:99999",
        b"http://a..b:80",
        b"http://" + b"a" * 64 + b":80",
        b"http://\xff",
    ],
)
def test_an_address_that_cannot_be_connected_to_is_not_a_target(uri: bytes) -> None:
    assert not is_target(uri)
