"""The command line against the whole system, as somebody uses it who has just started it."""

import asyncio
import json
import os
import shlex
import sys

from tests.support.dev import Dev, cli_environment, run_cli
from tests.support.programs import Program, gateway


async def piped_to(dev: Dev, data: bytes, *arguments: str) -> bytes:
    """Run the program itself with ``data`` as its standard input; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "gateway", *arguments),
        env={**os.environ, **cli_environment(dev)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(data)
    assert process.returncode == 0
    return out


async def name_of(dev: Dev) -> str:
    shown = await run_cli(dev, "functions", "show", dev.ready["function_id"], "--json")
    return str(json.loads(shown.out)["name"])


async def test_a_function_is_invoked_by_its_name(dev: Dev) -> None:
    name = await name_of(dev)
    called = await run_cli(dev, "invoke", name, "/echo", "-d", "hello")
    assert (called.code, called.out) == (0, "hello")
    piped = await run_cli(dev, "invoke", name, "/echo", "--file", "-", stdin="from stdin")
    assert (piped.code, piped.out) == (0, "from stdin")
    reflected = await piped_to(dev, b' {"a": 1}', "invoke", name, "/reflect", "--file", "-")
    assert b'["content-type","application/json"]' in reflected
    by_id = ("invoke", dev.ready["function_id"], "echo", "--function-version")
    version = await run_cli(
        dev, *by_id, dev.ready["function_version_id"], "-X", "POST", "-d", "x", "-i", "-H", "a: b"
    )
    assert (version.code, version.out) == (0, "x")
    assert "HTTP 200 OK" in version.err
    assert "nvcf-status: fulfilled" in version.err.lower()


async def test_the_exit_code_tells_the_status(dev: Dev) -> None:
    name = await name_of(dev)
    missing = await run_cli(dev, "invoke", name, "/nowhere")
    assert missing.code == 4
    refused = await run_cli(dev, "invoke", name, "/echo", "--api-key", "nvapi-nobody")
    assert (refused.code, refused.out) == (1, "")  # The name cannot be looked up.
    refused = await run_cli(
        dev, "invoke", dev.ready["function_id"], "/echo", "--api-key", "nvapi-nobody"
    )
    assert (refused.code, refused.out) == (4, "")
    assert refused.err.startswith("gateway: ")
    assert "(401 Unauthorized" in refused.err
    nowhere = await run_cli(dev, "invoke", name, "/", "--api-url", "http://127.0.0.1:1")
    assert nowhere.code == 1
    both = await run_cli(dev, "invoke", name, "/", "-d", "x", "--file", "-")
    assert both.code == 2


async def test_a_stream_is_printed_as_it_arrives(dev: Dev) -> None:
    program: Program = gateway(
        *("invoke", await name_of(dev), "/sse?events=1000&interval_ms=50"), env=cli_environment(dev)
    )
    try:
        await asyncio.to_thread(program.wait_line, lambda line: line.startswith("data:"))
        assert program.process.poll() is None
    finally:
        program.process.kill()
        program.process.wait()


async def test_what_runs_and_where_is_listed(dev: Dev) -> None:
    name = await name_of(dev)
    listed = json.loads((await run_cli(dev, "instances", name, "--json")).out)
    (instance,) = listed
    assert instance["instanceStatus"] == "RUNNING"
    assert instance["instanceId"] in (await run_cli(dev, "instances")).out
    assert "CPU" in (await run_cli(dev, "gpus")).out


async def test_the_logs_of_a_server_are_where_dev_says(dev: Dev) -> None:
    line = next(line for line in dev.program.output.splitlines() if "gateway logs NAME" in line)
    program, *words = shlex.split(line.replace("NAME", await name_of(dev)))
    assert program == "gateway"
    printed = await run_cli(dev, *words)
    assert (printed.code, printed.out != "") == (0, True), printed.err
