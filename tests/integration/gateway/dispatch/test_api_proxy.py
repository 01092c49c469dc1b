"""The application behind the gateway's HTTP server: what goes in comes out, within bounds."""

import asyncio
import gzip
import io
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.api.limits import MAX_BODY_BYTES
from gateway.api.problems import response_to
from gateway.dispatch.api_proxy import ApiProxy, connect_tcp
from gateway.dispatch.api_server import UNBOUNDED, ApiServer
from gateway.dispatch.heartbeats import TakeHeartbeat
from gateway.dispatch.responses import send_problem
from gateway.domain.cors import OPEN
from gateway.errors import GatewayError
from gateway.routing.cross_origin import PageAccess
from gateway.routing.sources import Sources
from http1.client.pool import Connect
from http1.server.limits import ServerLimits
from http1.server.listener import bind_sockets, listen
from http1.stream import IGNORED, Request, RequestStream, ResponseWriter
from runtime.settings import Address
from tests.support.waiting import PATIENCE_S
from wire.worker_api import HEARTBEAT_PATH

BIG = 4_000_000
PAGE = PageAccess(OPEN, b"https://app.example", replaces=True)
SECRET = b"nvapi-secret"


@web.middleware
async def explained(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors as the real application does."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return response_to(error, request, "the-applications-id")


class Application:
    """An aiohttp application that shows what it got, and how far it came."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended = asyncio.Event()
        self.sent = 0
        self.app = web.Application(client_max_size=2 * MAX_BODY_BYTES, middlewares=[explained])
        self.app.router.add_route("*", "/echo", self.echo)
        self.app.router.add_post(HEARTBEAT_PATH, self.echo)
        self.app.router.add_get("/long", self.long)
        self.app.router.add_get("/wait", self.wait)
        self.app.router.add_delete("/nothing", self.nothing)
        self.app.router.add_get("/abort", self.abort)
        self.app.router.add_get("/page/{status}", self.page)
        self.app.router.add_get("/short", self.short)

    async def echo(self, request: web.Request) -> web.Response:
        body = await request.read()
        got = {
            "access-control-allow-origin": "https://of.another",
            "x-method": request.method,
            "x-host": request.host,
            "x-query": request.query_string,
        }
        got["access-control-allow-origin"] = "https://of.another"
        got["x-from"] = ",".join(request.headers.getall("x-forwarded-for", ["nobody"]))
        return web.Response(body=body, headers={**got, "x-asked": request.headers.get("x-ask", "")})

    async def long(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while self.sent < BIG:
            await response.write(b"x" * 10_000)
            self.sent += 10_000
        return response

    async def short(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write_eof(b"short")
        return response

    async def wait(self, request: web.Request) -> web.Response:
        self.began.set()
        await self.go_on.wait()
        self.ended.set()
        return web.Response(text="done")

    async def abort(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def nothing(self, request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def page(self, request: web.Request) -> web.Response:
        """Answer as no route of the API does, but something between two processes may."""
        status = int(request.match_info["status"])
        return web.Response(status=status, text=f"you sent {request.headers['authorization']}")


class Served:
    def __init__(
        self, url: str, application: Application, responses: list[tuple[bytes, int]]
    ) -> None:
        self.url = url
        self.application = application
        self.responses = responses


@asynccontextmanager
async def proxied(
    max_line_bytes: int = UNBOUNDED, beat: TakeHeartbeat | None = None
) -> AsyncIterator[Served]:
    application = Application()
    server = ApiServer(application.app, max_line_bytes)
    connect = await server.start()
    try:
        async with listening(connect, beat) as (url, responses):
            yield Served(url, application, responses)
    finally:
        await server.stop()


@asynccontextmanager
async def listening(
    connect: Connect, beat: TakeHeartbeat | None = None
) -> AsyncIterator[tuple[str, list[tuple[bytes, int]]]]:
    """Serve a proxy on a port; yield its URL and the record of its responses."""
    responses: list[tuple[bytes, int]] = []
    proxy = ApiProxy(
        connect, lambda request, status, _: responses.append((request.method, status)), beat
    )

    def dispatch(request: Request, client: ResponseWriter) -> RequestStream:
        request.source = Sources([], trusts_unix=False).find(request)
        try:
            return proxy.serve(request, client, PAGE)
        except GatewayError as error:
            send_problem(request, client, error)
            return IGNORED

    listener = await listen(
        bind_sockets([Address(host="127.0.0.1", port=0)], reuse_port=False),
        dispatch,
        ServerLimits(),
    )
    try:
        yield f"http://{listener.addresses[0]}", responses
    finally:
        listener.abort_all()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with proxied() as served:
        yield served


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_method_path_headers_and_body_reach_the_application_and_come_back(
    served: Served, client: aiohttp.ClientSession
) -> None:
    async with client.put(
        f"{served.url}/echo?a=1&a=2", data=b"body", headers={"x-ask": "me"}
    ) as response:
        assert response.status == 200
        assert await response.read() == b"body"
        assert response.headers["x-method"] == "PUT"
        assert response.headers["x-query"] == "a=1&a=2"
        assert response.headers["x-asked"] == "me"
        assert response.headers["x-host"] in served.url
        assert response.headers.getall("access-control-allow-origin") == ["*"]
    assert served.responses == [(b"PUT", 200)]


@pytest.mark.parametrize("name", ["X-Forwarded-For", "x_forwarded_for", "X-Real-IP", "Accept"])
async def test_the_application_learns_the_clients_address_and_nothing_that_it_made_up(
    served: Served, client: aiohttp.ClientSession, name: str
) -> None:
    async with client.get(f"{served.url}/echo", headers={name: "9.9.9.9"}) as response:
        assert response.headers["x-from"] == "127.0.0.1"


async def test_one_connection_of_a_client_serves_many_calls(
    served: Served, client: aiohttp.ClientSession
) -> None:
    for n in range(5):
        async with client.post(f"{served.url}/echo", data=b"%d" % n) as response:
            assert await response.read() == b"%d" % n
    async with client.delete(f"{served.url}/nothing") as response:
        assert response.status == 204
    assert client.connector is not None
    assert served.responses == [(b"POST", 200)] * 5 + [(b"DELETE", 204)]


async def test_a_body_of_unknown_length_arrives_whole(
    served: Served, client: aiohttp.ClientSession
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"y" * 10_000

    async with client.post(f"{served.url}/echo", data=parts()) as response:
        assert await response.read() == b"y" * 500_000


async def test_a_heartbeat_goes_to_the_application_only_if_nothing_else_takes_it(
    client: aiohttp.ClientSession,
) -> None:
    taken: list[tuple[bytes | None, bytes]] = []

    def beat(authorization: bytes | None, body: bytes) -> bytes | None:
        taken.append((authorization, body))
        return b'{"leaseSeconds":15.0}' if body == b"{}" else None

    json_type = {"content-type": "application/json", "authorization": "Bearer w"}
    async with proxied(beat=beat) as served:
        url = served.url + HEARTBEAT_PATH
        async with client.post(url, data=b"{}", headers=json_type) as response:
            assert (response.status, await response.json()) == (200, {"leaseSeconds": 15.0})
            assert response.headers["x-request-id"] == response.headers["nvcf-reqid"]
        for body, headers in (
            (b'{"gone":true}', json_type),
            (b"{}" + b" " * 2000, json_type),
            (b"{}", {"content-type": "text/plain"}),
            (gzip.compress(b"{}"), {**json_type, "content-encoding": "gzip"}),
        ):
            async with client.post(url, data=body, headers=headers) as response:
                assert response.headers["x-method"] == "POST", body
        assert len(served.responses) == 5
    assert taken == [(b"Bearer w", b"{}"), (b"Bearer w", b'{"gone":true}')]


@pytest.mark.parametrize("is_length_known", [True, False])
async def test_a_body_beyond_the_bound_is_refused(
    served: Served, client: aiohttp.ClientSession, is_length_known: bool
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"z" * (MAX_BODY_BYTES // 10)

    data = io.BytesIO(b"z" * (MAX_BODY_BYTES + 1)) if is_length_known else parts()
    async with client.post(f"{served.url}/echo", data=data) as response:
        assert response.status == 413
        assert response.content_type == "application/problem+json"
        document = await response.json(content_type=None)
        assert document["instance"] == "/echo"
        assert document["requestId"] == response.headers["x-request-id"]


async def test_a_slow_reader_stops_the_application(
    served: Served, client: aiohttp.ClientSession
) -> None:
    async with client.get(f"{served.url}/long") as response:
        assert response.status == 200
        first = served.application.sent
        assert first < BIG
        assert len(await response.read()) == BIG


async def test_a_call_is_finished_although_its_client_has_left(served: Served) -> None:
    """A deploy that stopped between two records would be worse than an unwanted result."""
    reader, writer = await asyncio.open_connection(*served.url.removeprefix("http://").split(":"))
    writer.write(b"GET /wait HTTP/1.1\r\nhost: api.example.com\r\n\r\n")
    async with asyncio.timeout(PATIENCE_S):
        await served.application.began.wait()
        writer.close()
        await writer.wait_closed()
        assert not await reader.read()
        served.application.go_on.set()
        await served.application.ended.wait()


async def test_an_application_that_breaks_its_connection_gets_the_client_503(
    served: Served, client: aiohttp.ClientSession
) -> None:
    async with client.get(f"{served.url}/abort") as response:
        assert response.status == 503
        assert (await response.json(content_type=None))["type"].startswith("urn:nvcf:")


async def test_a_chunked_response_stays_chunked_although_it_arrived_at_once(
    served: Served, client: aiohttp.ClientSession
) -> None:
    async with client.get(f"{served.url}/short") as response:
        assert response.headers["transfer-encoding"] == "chunked"
        assert await response.read() == b"short"


async def test_head_gets_the_length_and_no_body(served: Served) -> None:
    got = await ask(served, b"HEAD", b"/page/200", b"Authorization: x")
    assert (got.status, got.body) == (200, b"")
    assert got.headers["content-length"] == str(len("you sent x"))


# Another process's API


async def test_a_call_reaches_another_process_over_tcp(
    served: Served, client: aiohttp.ClientSession
) -> None:
    async with listening(connect_tcp(served.url)) as (url, responses):
        async with client.put(f"{url}/echo?a=1", data=b"body", headers={"x-ask": "me"}) as response:
            assert response.status == 200
            assert await response.read() == b"body"
            assert response.headers["x-query"] == "a=1"
        async with client.get(f"{url}/long") as response:
            assert len(await response.read()) == BIG
        async with client.get(f"{url}/abort") as response:
            assert response.status == 503
    assert responses == [(b"PUT", 200), (b"GET", 200), (b"GET", 503)]


async def test_an_api_that_does_not_listen_is_503(client: aiohttp.ClientSession) -> None:
    (bound,) = bind_sockets([Address(host="127.0.0.1", port=0)], reuse_port=False)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    bound.close()
    async with listening(connect_tcp(url)) as (proxy_url, responses):
        async with client.post(f"{proxy_url}/echo", data=b"body") as response:
            assert response.status == 503
            assert response.headers.getall("access-control-allow-origin") == ["*"]
            assert (await response.json(content_type=None))["type"].startswith("urn:nvcf:")
    assert responses == [(b"POST", 503)]


@pytest.mark.parametrize("url", ["https://api:1", "api:1", "http://"])
def test_only_a_plain_http_address_can_be_connected_to(url: str) -> None:
    with pytest.raises(ValueError, match="not http://host:port"):
        connect_tcp(url)


# What one parser takes and another does not


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self, status: int, path: str) -> dict[str, Any]:
        """Return the problem document, which is a whole one and repeats no secret."""
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status == status
        assert document["type"].startswith("urn:nvcf:problem-details:")
        assert document["title"]
        assert document["detail"]
        assert document["instance"] == path
        assert document["requestId"] == self.headers["x-request-id"]
        assert SECRET not in self.body + str(self.headers).encode()
        return document


async def ask(served: Served, method: bytes, target: bytes, *lines: bytes) -> Answer:
    """Send a request that no client library would send."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (method + b" " + target + b" HTTP/1.1", b"Host: h", b"Connection: close", *lines)
    writer.write(b"\r\n".join(head) + b"\r\n\r\n")
    async with asyncio.timeout(PATIENCE_S):
        received = await reader.read()
    writer.close()
    first, *fields = received.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = dict(field.lower().split(": ", 1) for field in fields)
    return Answer(int(first.split()[1]), headers, received.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("method", [b"PRI", b"FOO", b"CONNECTX", b"DESCRIBE", b"get", b"!"])
async def test_a_method_that_no_route_has_is_not_allowed_however_parsers_read_it(
    served: Served, method: bytes
) -> None:
    answer = await ask(served, method, b"/wait?x", b"Authorization: Bearer " + SECRET)
    answer.problem(405, "/wait")
    assert answer.headers["allow"] == "get, head, options"
    (await ask(served, method, b"/elsewhere")).problem(404, "/elsewhere")
    assert served.responses == [(method, 405), (method, 404)]


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        (b"/echo", [b"Authorization: Bearer " + b"x" * 9_000]),
        (b"/echo", [b"Authorization: Bearer " + b"x" * 65_000]),
        (b"/echo", [b"n" * 65_000 + b": x"]),
        (b"/echo?" + b"x" * 16_000, []),
        (b"/echo", [b"x-%d: x" % n for n in range(126)]),
    ],
    ids=["bearer", "value", "name", "query", "headers"],
)
async def test_a_head_that_the_server_accepts_reaches_the_application(
    served: Served, target: bytes, lines: list[bytes]
) -> None:
    assert (await ask(served, b"GET", target, *lines)).status == 200


async def test_a_long_path_is_not_found(served: Served) -> None:
    path = b"/" + b"x" * 16_000
    (await ask(served, b"GET", path)).problem(404, path.decode())


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Type: " + SECRET] * 2,
        [b"User-Agent: " + SECRET] * 2,
        [b"Sec-WebSocket-Key1: " + SECRET],
        [b"Authorization: Bearer " + SECRET + b"x" * 200],
    ],
    ids=["type", "agent", "websocket", "long"],
)
async def test_bytes_that_the_applications_parser_rejects_are_never_repeated(
    lines: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the response nor in the log."""
    caplog.set_level(logging.DEBUG)
    async with proxied(max_line_bytes=200) as served:
        answer = await ask(served, b"GET", b"/echo?x", *lines)
    answer.problem(400, "/echo")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert served.responses == [(b"GET", 400)]
    assert "api.unreadable" in caplog.text
    assert SECRET.decode() not in caplog.text


@pytest.mark.parametrize(
    ("status", "expected"), [(400, 400), (413, 413), (500, 500), (502, 503), (504, 503)]
)
async def test_an_error_page_is_replaced(served: Served, status: int, expected: int) -> None:
    authorization = b"Authorization: Bearer " + SECRET
    answer = await ask(served, b"GET", b"/page/%d" % status, authorization)
    answer.problem(expected, f"/page/{status}")
