"""Clients that speak HTTP/2, with and without TLS, through the whole system."""

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.certificates import Authority
from tests.support.http2_client import http2_client
from tests.support.stack import Gateway, Stack, running_at_inference, start
from tests.support.waiting import PATIENCE_S


@asynccontextmanager
async def http2(
    gateway: Gateway, url: str = "", verify: ssl.SSLContext | bool = True
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a client that speaks HTTP/2 and nothing else, over one connection."""
    async with httpx.AsyncClient(
        http1=False,
        http2=True,
        base_url=url or gateway.url,
        headers=gateway.headers,
        timeout=PATIENCE_S,
        verify=verify,
        limits=httpx.Limits(max_connections=1),
    ) as client:
        yield client


async def test_calls_of_one_connection_run_side_by_side(stack: Stack) -> None:
    gateway = stack.gateway()
    stack.agent()
    async with http2(gateway) as client:
        body = bytes(range(256)) * 2000
        slow = start(client.get("/slow?seconds=60"))
        await running_at_inference(stack, 1)
        quick = await asyncio.gather(*[client.post("/echo", content=body) for _ in range(3)])
        assert not slow.done()
        assert [one.content for one in quick] == [body] * 3
        assert {one.http_version for one in quick} == {"HTTP/2"}
        slow.cancel()
        missing = await client.get("/status/404")
        assert missing.status_code == 404
        assert missing.headers["nvcf-reqid"]


async def test_events_come_as_they_are_and_a_stream_that_is_reset_ends_its_run(
    stack: Stack,
) -> None:
    gateway = stack.gateway()
    stack.agent()
    async with http2_client(gateway.url) as client:
        events = await client.ask("/sse?events=1000000&interval_ms=20", gateway.headers)
        while client.bodies[events].count(b"data:") < 5:
            await client.read()
        assert client.heads[events][b"content-type"].startswith(b"text/event-stream")
        await client.cancel(events)
        await running_at_inference(stack, 0)
        # Its connection goes on.
        slow = await client.ask("/slow?seconds=0.01", gateway.headers)
        while slow not in client.ended:
            await client.read()
        assert client.heads[slow][b":status"] == b"200"


async def test_a_refused_call_says_why(stack: Stack) -> None:
    gateway = stack.gateway()
    async with http2(gateway) as client:
        refused = await client.get("/", headers={"authorization": "Bearer wrong"})
        assert refused.status_code == 401
        assert refused.json()["status"] == 401
        unknown = await client.get("/", headers={"function-id": "x"})
        assert unknown.status_code in {400, 404}


async def test_what_runs_is_finished_when_the_gateway_stops(stack: Stack) -> None:
    gateway = stack.gateway()
    stack.agent()
    async with http2(gateway) as client:
        calls = [start(client.get("/slow?seconds=1")) for _ in range(3)]
        await running_at_inference(stack, 3)
        gateway.program.send(signal.SIGTERM)
        assert [(await call).status_code for call in calls] == [200, 200, 200]
        assert await asyncio.to_thread(gateway.program.wait_end) == 0


@pytest.mark.parametrize("processes", [1, 2])
async def test_tls_with_both_protocols(stack: Stack, tmp_path: Path, processes: int) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("gateway", "localhost")
    settings = {"LISTEN": "127.0.0.1:0", "CERTIFICATES": str(chain), "KEYS": str(key)}
    program = stack.starting_gateway(
        f"--processes={processes}",
        **{f"TLS__{name}": value for name, value in settings.items()},
    )
    gateway = Gateway(program, program.wait_event("gateway.ready"), stack.demo)
    ready = program.wait_event("gateway.ready")
    secure, plain = (address.rpartition(":")[2] for address in ready["listen"])
    stack.agent()
    context = ssl.create_default_context(cafile=str(authority.file))
    url = f"https://localhost:{secure}"
    async with http2(gateway, url, context) as client:
        reflected = await client.get("/reflect")
        assert reflected.http_version == "HTTP/2"
        seen = dict(reflected.json()["headers"])
        assert seen["x-forwarded-proto"] == "https"
        assert "proto=https" in seen["forwarded"]
    async with httpx.AsyncClient(
        base_url=url, headers=gateway.headers, verify=context, timeout=PATIENCE_S
    ) as client:
        assert (await client.post("/echo", content=b"y")).http_version == "HTTP/1.1"
    async with http2(gateway, f"http://localhost:{plain}") as client:
        seen = dict((await client.get("/reflect")).json()["headers"])
        assert seen["x-forwarded-proto"] == "http"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"LISTEN": "127.0.0.1:0"}, "tls.certificates"),
        ({"LISTEN": "unix:/tmp/x", "CERTIFICATES": "{chain}"}, "TLS is for host:port"),
        ({"LISTEN": "127.0.0.1:0", "CERTIFICATES": "{missing}"}, "does not point to a file"),
        ({"LISTEN": "127.0.0.1:0", "CERTIFICATES": "{chain}"}, "no certificate and its key"),
        (
            {"LISTEN": "127.0.0.1:0", "CERTIFICATES": "{chain}", "KEYS": "{key},{key}"},
            "not one file for each",
        ),
    ],
)
async def test_settings_that_cannot_serve_tls_are_refused(
    stack: Stack, tmp_path: Path, settings: dict[str, str], problem: str
) -> None:
    chain, key = Authority(tmp_path).issue("gateway", "localhost")
    names = {"chain": str(chain), "key": str(key), "missing": str(tmp_path / "missing")}
    program = stack.starting_gateway(
        **{f"TLS__{name}": value.format(**names) for name, value in settings.items()}
    )
    assert await asyncio.to_thread(program.wait_end) != 0
    assert problem in program.output
    assert "Traceback" not in program.output
