"""Calls over real sockets against the project's own HTTP/2 server, with TLS and without."""

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import uvloop

import invocation_client
from http1.server.certificates import CertificateFiles, Certificates
from http1.server.limits import ServerLimits
from http1.server.listener import Secure, bind_sockets, listen
from http2.server.protocol import Http2Protocol
from runtime.settings import Address
from tests.integration.invocation_client.callers import Callers
from tests.support.certificates import Authority
from tests.support.connect_proxy import connect_proxy
from tests.support.edge_harness import Exchange, answering
from tests.support.free_ports import free_port
from tests.support.waiting import PATIENCE_S

MIB = 1 << 20


class Site(NamedTuple):
    """A server that answers with the path and the request's body; ``verify`` trusts it."""

    url: str
    verify: ssl.SSLContext | bool


@asynccontextmanager
async def serving(folder: Path, scheme: str) -> AsyncIterator[Site]:
    authority = Authority(folder)
    certificates = Certificates([CertificateFiles(*authority.issue("one", "localhost"))])
    sockets = bind_sockets([Address.parse("127.0.0.1:0")])
    port = sockets[0].getsockname()[1]

    def dispatch(request: object, writer: object) -> Exchange:
        exchange = Exchange(request, writer)  # type: ignore[arg-type]
        exchange.on = answering
        return exchange

    listener = await listen(
        sockets,
        dispatch,
        ServerLimits(),
        http2=Http2Protocol,
        secure=Secure(1, certificates.context) if scheme == "https" else None,
    )
    verify = ssl.create_default_context(cafile=str(authority.file)) if scheme == "https" else True
    try:
        yield Site(f"{scheme}://localhost:{port}", verify)
    finally:
        listener.abort_all()


@pytest.fixture(params=["http", "https"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    async with serving(tmp_path, request.param) as found:
        yield found


async def test_get_and_post(callers: Callers, site: Site) -> None:
    async with callers(verify=site.verify) as caller:
        response = await caller.request("GET", f"{site.url}/a?b=c")
        assert response.http_version == "HTTP/2"
        assert (response.status_code, response.content) == (200, b"/a?b=c ")
        response = await caller.request("POST", f"{site.url}/p", json={"a": 1})
        assert response.content == b'/p {"a":1}'
        response = await caller.request("HEAD", f"{site.url}/h")
        assert (response.status_code, response.content) == (200, b"")


async def test_a_mebibyte_goes_up_and_comes_down(callers: Callers, site: Site) -> None:
    body = bytes(range(256)) * (MIB // 256)
    async with callers(verify=site.verify) as caller:
        for _ in range(3):
            response = await caller.request("POST", f"{site.url}/p", content=body)
            assert response.content == b"/p " + body


async def test_twenty_calls_share_one_connection(callers: Callers, site: Site) -> None:
    async with callers(verify=site.verify) as caller:
        bodies = [bytes([number]) * 70_000 for number in range(20)]
        responses = await asyncio.gather(
            *(caller.request("POST", f"{site.url}/p", content=body) for body in bodies)
        )
        assert [response.content for response in responses] == [b"/p " + body for body in bodies]
        streams = sorted(response.extensions["stream_id"] for response in responses)
        assert streams == list(range(1, 41, 2))


async def test_calls_go_through_a_tunnel_of_a_proxy(callers: Callers, site: Site) -> None:
    async with connect_proxy() as proxy:
        url = proxy.url.replace("://", "://user:pass@")
        async with callers(verify=site.verify, proxy=url) as caller:
            response = await caller.request("POST", f"{site.url}/p", content=bytes(MIB))
            assert response.content == b"/p " + bytes(MIB)
        (head,) = proxy.heads
        assert head.startswith(b"CONNECT localhost:")
        assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in head


async def test_a_proxy_that_refuses_is_a_proxy_error(callers: Callers, site: Site) -> None:
    async with connect_proxy(407) as proxy, callers(verify=site.verify, proxy=proxy.url) as caller:
        with pytest.raises(httpx.ProxyError, match="407"):
            await caller.request("GET", f"{site.url}/a")


async def test_a_certificate_of_an_unknown_authority_is_a_connect_error(
    callers: Callers, tmp_path: Path
) -> None:
    async with serving(tmp_path, "https") as site, callers() as caller:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await caller.request("GET", f"{site.url}/a")


async def test_certificates_are_not_checked_if_the_user_says_so(
    callers: Callers, tmp_path: Path
) -> None:
    async with serving(tmp_path, "https") as site, callers(verify=False) as caller:
        assert (await caller.request("GET", f"{site.url}/a")).content == b"/a "


async def test_a_port_on_which_no_one_listens_is_a_connect_error(callers: Callers) -> None:
    async with callers() as caller:
        with pytest.raises(httpx.ConnectError, match="no connection to"):
            await caller.request("GET", f"http://127.0.0.1:{free_port()}/")
        with pytest.raises(httpx.UnsupportedProtocol):
            await caller.request("GET", "ftp://127.0.0.1/")


async def test_a_server_without_http2_is_a_connect_error(callers: Callers, tmp_path: Path) -> None:
    async def speak_http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        writer.close()

    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("one", "localhost"))
    verify = ssl.create_default_context(cafile=str(authority.file))
    for scheme, secure in (("http", None), ("https", context)):
        server = await asyncio.start_server(speak_http1, "127.0.0.1", 0, ssl=secure)
        port = server.sockets[0].getsockname()[1]
        async with server, callers(verify=verify) as caller:
            with pytest.raises(httpx.ConnectError):
                await caller.request("GET", f"{scheme}://localhost:{port}/")


async def test_the_name_of_the_certificate_may_be_another_one(
    callers: Callers, tmp_path: Path
) -> None:
    async with serving(tmp_path, "https") as site, callers(verify=site.verify) as caller:
        url = site.url.replace("localhost", "127.0.0.1")
        named = {"sni_hostname": "localhost"}
        response = await caller.request("GET", url, extensions=named)
        assert response.http_version == "HTTP/2"
        with pytest.raises(httpx.ConnectError, match="IP address mismatch"):
            await caller.request("GET", url)
        assert (await caller.request("GET", url, extensions=named)).is_success


async def test_a_server_that_says_nothing_is_a_connect_timeout(callers: Callers) -> None:
    has_connected = asyncio.Event()
    may_end = asyncio.Event()

    async def keep_silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        has_connected.set()
        await may_end.wait()
        writer.close()

    server = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for scheme in ("http", "https"):
        async with callers() as caller:
            with pytest.raises(httpx.ConnectTimeout):
                await caller.request(
                    "GET",
                    f"{scheme}://127.0.0.1:{port}/",
                    timeout=httpx.Timeout(PATIENCE_S, connect=0.2),
                )
    may_end.set()
    server.close()


async def test_bodies_are_streamed_from_iterators(site: Site) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(8):
            yield bytes(100_000)

    async def async_parts() -> AsyncIterator[bytes]:
        for part in parts():
            yield part

    def call() -> bytes:
        transport = invocation_client.Http2Transport(verify=site.verify)
        with httpx.Client(transport=transport, timeout=PATIENCE_S) as client:
            return client.post(f"{site.url}/p", content=parts()).content

    expected = b"/p " + bytes(800_000)
    assert await asyncio.to_thread(call) == expected
    transport = invocation_client.AsyncHttp2Transport(verify=site.verify)
    async with httpx.AsyncClient(transport=transport, timeout=PATIENCE_S) as client:
        assert (await client.post(f"{site.url}/p", content=async_parts())).content == expected


async def test_tasks_may_run_on_uvloop(site: Site) -> None:
    async def call(url: str, proxy: str | None) -> list[bytes]:
        transport = invocation_client.AsyncHttp2Transport(verify=site.verify, proxy=proxy)
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE_S) as client:
            calls = (client.post(url, content=bytes(300_000)) for _ in range(5))
            return [response.content for response in await asyncio.gather(*calls)]

    async with connect_proxy() as proxy:
        for through in (None, proxy.url):
            bodies = await asyncio.to_thread(lambda url: uvloop.run(call(site.url, url)), through)
            assert bodies == [b"/ " + bytes(300_000)] * 5


@pytest.mark.parametrize("name", ["ping_interval_s", "ping_timeout_s", "keepalive_expiry_s"])
def test_times_have_to_be_above_zero(name: str) -> None:
    for kind in (invocation_client.Http2Transport, invocation_client.AsyncHttp2Transport):
        with pytest.raises(ValueError, match=name):
            kind(**{name: 0.0})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=name):
            kind(**{name: math.nan})  # type: ignore[arg-type]


async def test_a_dead_address_leaves_time_for_the_next_one(
    site: Site, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo
    with contextlib.ExitStack() as stack:
        dead = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # the first is accepted, the second waits, and further ones are dropped
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(dead.getsockname())
        (found,) = look_up(*dead.getsockname(), type=socket.SOCK_STREAM)
        monkeypatch.setattr(
            "socket.getaddrinfo", lambda *args, **options: [found, *look_up(*args, **options)]
        )
        async with callers(verify=site.verify) as caller:
            timeout = httpx.Timeout(PATIENCE_S, connect=2)
            response = await caller.request("GET", site.url, timeout=timeout)
            assert response.status_code == 200
