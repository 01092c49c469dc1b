"""What operators see of two running programs: versions, log lines, formats and levels."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runtime.version import program_version
from tests.support.stack import Gateway, Stack, running_stack, start
from tests.support.waiting import until

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
NVCF_NAMES = re.compile(r"(app_|function_|nats_|total_nats_|nvcf_worker_service_|axum_)\w* ")


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running_stack() as stack:
        yield stack


async def access_line(gateway: Gateway, event: str, **having: object) -> dict[str, Any]:
    """Wait for the access line that has these fields."""

    def found() -> dict[str, Any] | None:
        for line in list(gateway.program.lines):
            if f'"event":"{event}"' in line:
                fields: dict[str, Any] = json.loads(line)
                if having.items() <= fields.items():
                    return fields
        return None

    line = await until(found, lambda line: line is not None, what=f"{event} {having}")
    assert line is not None
    return line


async def test_a_line_says_who_called_what_who_answered_and_how_it_ended(stack: Stack) -> None:
    gateway = await asyncio.to_thread(stack.gateway)
    await asyncio.to_thread(lambda: stack.agent(INSTANCE__ID="instance-7"))
    headers = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01", "x-request-id": "mine"}
    async with gateway.client() as client:
        answer = await client.post("/echo?token=hidden", content=b"abc", headers=headers)
        assert answer.status_code == 200
        line = await access_line(
            gateway, "invocation.finished", request_id=answer.headers["nvcf-reqid"]
        )
        shown = {
            "method": "POST",
            "path": "/echo",
            "client": "127.0.0.1",
            "key_id": "demo",
            "instance_id": "instance-7",
            "dispatch": "queued",
            "deliveries": 1,
            "outcome": "answered",
            "status": 200,
            "trace_id": TRACE_ID,
            "caller_request_id": "mine",
        }
        assert {name: line[name] for name in shown} == shown

        # An error of the function is its answer; its death is not.
        answer = await client.get("/no-such-page")
        assert answer.status_code == 404
        await access_line(
            gateway,
            "invocation.finished",
            request_id=answer.headers["nvcf-reqid"],
            outcome="answered",
            status=404,
        )
        call = start(client.get("/die?how=process&after_bytes=0"))
        for _ in range(2):
            await stack.inference.ended()
            await stack.inference.restart()
        answer = await call
        assert answer.status_code == 500
        line = await access_line(
            gateway,
            "invocation.finished",
            request_id=answer.headers["nvcf-reqid"],
            outcome="inference_lost",
            instance_id="instance-7",
        )
        assert line["deliveries"] >= 2

        refused = await client.get("/x?y=z", headers={"authorization": "Bearer nvapi-wrong"})
        assert refused.status_code == 401
    line = await access_line(gateway, "request.refused", status=401)
    assert (line["path"], line["client"], line["reason"]) == ("/x", "127.0.0.1", "unauthorized")
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await access_line(gateway, "request.refused", status=400, reason="invalid_host", path="/")
    async with httpx.AsyncClient(base_url=gateway.admin_url) as admin:
        text = (await admin.get("/metrics")).text
    assert 'gateway_refusals_total{endpoint="TLB",reason="unauthorized"} 1' in text
    assert 'gateway_refusals_total{endpoint="EDGE",reason="invalid_host"} 1' in text
    assert 'gateway_invocations_total{outcome="inference_lost"} 1' in text


async def test_the_first_line_of_every_process_has_the_version(stack: Stack) -> None:
    gateway = await asyncio.to_thread(stack.gateway, "--processes", "2")
    agent = await asyncio.to_thread(stack.agent)

    def starts() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in list(gateway.program.lines) if line.startswith("{")]
        return [line for line in lines if line["event"] == "gateway.starting"]

    found = await until(starts, lambda lines: len(lines) == 3, what="the parent and two processes")
    first = json.loads(gateway.program.lines[0])
    assert (first["event"], first["pid"]) == ("gateway.starting", gateway.program.pid)
    assert len({line["pid"] for line in found}) == 3
    begun = json.loads(agent.lines[0])
    assert begun["event"] == "worker.starting"
    assert {line["version"] for line in [*found, begun]} == {program_version()}


@pytest.mark.parametrize(
    ("module", "arguments", "name"),
    [
        ("gateway", ["--version"], "gateway"),
        ("gateway", ["serve", "--version"], "gateway"),
        ("worker_agent", ["--version"], "worker-agent"),
    ],
)
async def test_every_program_tells_its_version(
    module: str, arguments: list[str], name: str
) -> None:
    argv = [sys.executable, "-m", module, *arguments]
    shown = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True)
    assert (shown.returncode, shown.stdout) == (0, f"{name} {program_version()}\n")


async def test_people_can_have_text_and_debug_shows_no_body_and_no_credential(
    stack: Stack,
) -> None:
    program = await asyncio.to_thread(
        lambda: stack.starting_gateway(LOG__FORMAT="text", LOG__LEVEL="debug")
    )
    ready = await asyncio.to_thread(program.wait_line, lambda line: "gateway.ready" in line)
    url = re.search(r"listen=\S*?(127\.0\.0\.1:\d+)", ready)
    assert url is not None
    agent = stack.starting_agent(LOG__FORMAT="text", LOG__LEVEL="debug")
    await asyncio.to_thread(agent.wait_line, lambda line: " worker.ready " in line)
    demo = stack.demo
    headers = {
        "authorization": f"Bearer {demo.api_key}",
        "function-id": demo.function_id,
        "cookie": "c00kie",
    }
    async with httpx.AsyncClient(base_url=f"http://{url[1]}", headers=headers) as client:
        answer = await client.post("/echo?q=qu3ry", content=b"b0dy" * 20_000)
        assert answer.status_code == 200
    line = await asyncio.to_thread(program.wait_line, lambda line: "invocation.finished" in line)
    assert re.match(r"\d\d:\d\d:\d\d\.\d\d\d INFO gateway\.access invocation\.finished ", line)
    assert " method=POST path=/echo client=127.0.0.1 " in line
    assert ' trace_id="" ' in line
    program.stop()
    agent.stop()
    shown = "".join([*program.lines, *agent.lines])
    for secret in (demo.api_key, "b0dy", "qu3ry", "c00kie"):
        assert secret not in shown


async def test_promtool_complains_of_nvcfs_own_names_only(stack: Stack) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    gateway = await asyncio.to_thread(stack.gateway)
    agent = await asyncio.to_thread(stack.agent)
    async with gateway.client() as client:
        assert (await client.post("/echo", content=b"x")).status_code == 200
        assert (await client.get("/", headers={"authorization": ""})).status_code == 401
    port = agent.wait_event("worker.ready")["admin_port"]
    for url in (gateway.admin_url, f"http://127.0.0.1:{port}"):
        async with httpx.AsyncClient(base_url=url) as admin:
            text = (await admin.get("/metrics")).content
        checked = await asyncio.to_thread(
            subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True
        )
        complaints = checked.stderr.decode().splitlines()
        assert [line for line in complaints if not NVCF_NAMES.match(line)] == []
