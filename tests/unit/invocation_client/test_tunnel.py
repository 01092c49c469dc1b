import httpx
import pytest

from invocation_client.origins import Origin
from invocation_client.tunnel import TunnelReply, connect_request, read_proxy


def test_connect_names_the_target_and_carries_credentials() -> None:
    proxy = read_proxy("http://user:pass@proxy:3128")
    assert proxy is not None
    assert connect_request(Origin.of(httpx.URL("https://[::1]/a")), proxy) == (
        b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n"
        b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n"
    )


def test_other_proxies_are_refused() -> None:
    with pytest.raises(ValueError, match="http://"):
        read_proxy("socks5://proxy")


def test_the_reply_may_come_in_parts_and_with_more_behind_it() -> None:
    reply = TunnelReply()
    assert not reply.receive(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 20")
    assert not reply.receive(b"0 OK\r\nvia: x\r\n")
    assert reply.receive(b"\r\nmore")
    assert reply.rest == b"more"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
        (b"SSH-2.0\r\n\r\n", r"HTTP/1\.1"),
        (b"", "closed"),
        (b"HTTP/1.1 200 OK\r\n" + bytes(70_000), "no end"),
    ],
)
def test_a_refused_tunnel_is_a_proxy_error(data: bytes, text: str) -> None:
    with pytest.raises(httpx.ProxyError, match=text):
        TunnelReply().receive(data)
