"""The gateway behind nginx and HAProxy, with the files of ``deploy/`` and with nginx's defaults."""

import hashlib
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.support import proxies
from tests.support.certificates import Authority
from tests.support.dev import Dev, start_dev
from tests.support.socket_world import running_sockets
from tests.support.waiting import PATIENCE_S, until
from tests.support.websockets import BINARY, TEXT, Connection, close_frame

CLIENT = "127.0.0.5"
"""The address that clients use, which is no trusted hop's. All of 127.0.0.0/8 is this machine."""
FORGED = {
    "x-forwarded-for": "9.9.9.9",
    "forwarded": "for=9.9.9.9",
    "x-forwarded-prefix": "/p",
    "x-real-ip": "9",
}
KINDS = ("nginx", "nginx-defaults", "nginx-tls", "haproxy", "haproxy-tls")
"""With TLS, clients speak HTTP/2."""
UPLOAD = b"0123456789abcdef" * (1 << 18)
"""4 MiB: more than nginx's default permits, and than the gateway keeps in memory."""
DEFAULT_UPLOAD = UPLOAD[: 1 << 19]
PART_BYTES = 65_536


class Front(NamedTuple):
    """A proxy in front of the gateway, and what to call it by."""

    kind: str
    dev: Dev
    url: str
    host: str
    verify: ssl.SSLContext | bool = True

    @property
    def scheme(self) -> str:
        return httpx.URL(self.url).scheme

    def client(self) -> httpx.AsyncClient:
        headers = {**self.dev.headers, "host": self.host}
        if self.kind == "nginx-defaults":
            # nginx replaces the host name by that of the gateway, unless it is told otherwise.
            headers["function-id"] = self.dev.ready["function_id"]
        is_tls = self.scheme == "https"
        transport = httpx.AsyncHTTPTransport(
            local_address=CLIENT, http1=not is_tls, http2=is_tls, verify=self.verify
        )
        return httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=PATIENCE_S, transport=transport
        )


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """Return a system whose gateway trusts the proxies of this machine."""
    if not any(map(proxies.find, ("nginx", "haproxy"))):
        pytest.skip("neither nginx nor haproxy is installed")
    running = start_dev(
        tmp_path_factory.mktemp("dev"), env={"GATEWAY_EDGE__TRUSTED_HOPS": "127.0.0.1"}
    )
    yield running
    assert running.program.stop() == 0


@pytest.fixture(scope="module", params=KINDS)
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """Start one kind of proxy; the tests with it are skipped on machines without it."""
    kind = request.param
    program = kind.partition("-")[0]
    if proxies.find(program) is None:
        pytest.skip(f"{program} is not installed (apt-get install {program})")
    dev: Dev = request.getfixturevalue("trusting")
    gateway_port = httpx.URL(dev.ready["invocation_url"]).port
    assert gateway_port is not None
    folder = tmp_path_factory.mktemp(kind)
    host = f"{dev.ready['function_id']}.invocation.localhost"
    text = proxies.deployed("haproxy.cfg" if program == "haproxy" else "nginx.conf")
    scheme, verify = "http", ssl.create_default_context()
    if kind == "nginx-defaults":
        text = proxies.NGINX_DEFAULTS
    elif kind.endswith("-tls"):
        authority = Authority(folder)
        text = proxies.with_tls(text, *authority.issue("front", host))
        scheme, verify = "https", ssl.create_default_context(cafile=authority.file)
        verify.check_hostname = False
    run = proxies.haproxy if program == "haproxy" else proxies.nginx
    with run(folder, text, gateway_port) as port:
        yield Front(kind, dev, f"{scheme}://127.0.0.1:{port}", f"{host}:{port}", verify)


async def test_an_event_arrives_before_the_next_one_is_made(front: Front) -> None:
    """The second would come after an hour: a proxy that waits for more shows nothing."""
    url = "/sse?events=2&interval_ms=3600000"
    async with front.client() as client, client.stream("GET", url) as answer:
        assert answer.status_code == 200
        first = await anext(answer.aiter_lines())
        assert first.startswith("data: ")


async def test_the_mark_for_nginx_stands_on_event_streams_only(front: Front) -> None:
    async with front.client() as client:
        events = await client.get("/sse?events=1")
        other = await client.get("/health")
    # nginx takes it off, because it is meant for nginx.
    assert events.headers.get("x-accel-buffering") == (None if "nginx" in front.kind else "no")
    assert "x-accel-buffering" not in other.headers


@pytest.mark.parametrize("path", ["/sse/?events=1", "/status/302"])
async def test_a_redirect_leads_back_through_the_proxy(front: Front, path: str) -> None:
    """The demo redirects from paths with a final slash to an absolute URL, made from its Host."""
    async with front.client() as client:
        answer = await client.get(path)
        location = httpx.URL(front.url).join(answer.headers["location"])
        assert answer.is_redirect
        if path.startswith("/sse"):
            assert answer.headers["location"].startswith(f"{front.scheme}://")
            assert location.netloc.decode() == front.host
        followed = await client.get(location.raw_path.decode())
        assert followed.status_code == 200


@pytest.mark.parametrize("forged", [{}, FORGED], ids=["plain", "forged"])
async def test_the_inference_server_learns_who_called_what(
    front: Front, forged: dict[str, str]
) -> None:
    async with front.client() as client:
        answer = await client.get("/reflect/x", headers=forged)
    headers = [(name, value) for name, value in answer.json()["headers"]]
    seen = [header for header in headers if "forwarded" in header[0] or header[0] == "x-real-ip"]
    if front.kind == "nginx-defaults":
        # nginx tells nothing, and passes on what the client made up.
        assert {name for name, _ in seen} >= {"x-forwarded-for", "x-forwarded-host"}
        return
    assert dict(seen) == {
        "forwarded": f'for={CLIENT};host="{front.host}";proto={front.scheme}',
        "x-forwarded-for": CLIENT,
        "x-forwarded-host": front.host,
        "x-forwarded-proto": front.scheme,
    }
    assert len(seen) == 4


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_an_upload_arrives_whole(front: Front, is_chunked: bool) -> None:
    body = DEFAULT_UPLOAD if front.kind == "nginx-defaults" else UPLOAD

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(body), PART_BYTES):
            yield body[at : at + PART_BYTES]

    async with front.client() as client:
        answer = await client.post("/count", content=parts() if is_chunked else body)
    assert answer.json() == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


async def test_calls_share_connections_and_head_leaves_them_usable(front: Front) -> None:
    async with front.client() as client:
        for method in ("GET", "HEAD", "POST", "HEAD", "OPTIONS", "GET"):
            answer = await client.request(method, "/reflect/x")
            assert answer.status_code == 200
            assert answer.http_version == ("HTTP/2" if front.scheme == "https" else "HTTP/1.1")
            assert bool(answer.content) is (method != "HEAD")


async def test_a_client_that_leaves_cancels_its_call(front: Front) -> None:
    async with front.client() as client:
        url = "/sse?events=1000&interval_ms=3600000"
        async with client.stream("GET", url) as answer:
            await anext(answer.aiter_lines())
    # httpx leaves by the end of its connection: it resets no stream of HTTP/2.
    async with front.client() as client:
        assert (await client.get("/running?until=0")).json()["running"] == 0


async def test_errors_are_problem_documents_behind_a_proxy_too(front: Front) -> None:
    async with front.client() as client:
        answer = await client.get("/x", headers={"authorization": "Bearer wrong"})
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_websockets_pass_with_the_files_of_deploy(kind: str, tmp_path: Path) -> None:
    if proxies.find(kind) is None:
        pytest.skip(f"{kind} is not installed (apt-get install {kind})")
    async with running_sockets() as world:
        await world.begin(EDGE__TRUSTED_HOPS="127.0.0.1")
        port = httpx.URL(world.gateway.url).port
        assert port is not None
        run, file = (
            (proxies.nginx, "nginx.conf") if kind == "nginx" else (proxies.haproxy, "haproxy.cfg")
        )
        with run(tmp_path, proxies.deployed(file), port) as front:
            socket = await Connection.open(f"http://127.0.0.1:{front}")
            response = await socket.handshake("/ws", world.gateway.headers)
            assert response.status == 101
            await socket.echo(TEXT, b"hello")
            await socket.echo(BINARY, bytes(1_000_000))
            await socket.send(close_frame(4000))
            assert (await socket.frame()).code == 4000
            assert await socket.end() == b""
            socket.close()
            # A client that leaves is noticed through the proxy.
            socket = await Connection.open(f"http://127.0.0.1:{front}")
            assert (await socket.handshake("/ws", world.gateway.headers)).status == 101
            socket.abort()
            await until(lambda: world.server.running, lambda count: count == 0)
