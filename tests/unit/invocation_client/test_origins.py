import httpx
import pytest

from invocation_client.origins import CallTimeouts, Origin


@pytest.mark.parametrize(
    ("url", "authority"),
    [("http://h/a", "h:80"), ("https://h", "h:443"), ("https://[::1]:8443/", "[::1]:8443")],
)
def test_an_origin_has_a_port(url: str, authority: str) -> None:
    assert Origin.of(httpx.URL(url)).authority == authority


def test_other_schemes_are_not_supported() -> None:
    with pytest.raises(httpx.UnsupportedProtocol, match="ws"):
        Origin.of(httpx.URL("ws://h/"))


def test_timeouts_are_those_of_the_request() -> None:
    timeout = httpx.Timeout(1.0, read=None, write=2.0).as_dict()
    request = httpx.Request("GET", "http://h/", extensions={"timeout": timeout})
    assert CallTimeouts.of(request) == CallTimeouts(1.0, None, 2.0)
    assert CallTimeouts.of(httpx.Request("GET", "http://h/")) == CallTimeouts(None, None, None)
