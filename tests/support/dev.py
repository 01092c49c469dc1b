"""The `gateway dev` command as a process."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from typer.testing import CliRunner

from gateway.cli.program import app
from tests.support.programs import Program, gateway
from tests.support.waiting import PATIENCE_S, until_blocking


class CliRun(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


class Dev(NamedTuple):
    """A running `gateway dev`; ``ready`` is the document of its ready file."""

    program: Program
    ready: dict[str, Any]

    @property
    def headers(self) -> dict[str, str]:
        return {
            "authorization": f"Bearer {self.ready['api_key']}",
            "host": f"{self.ready['function_id']}.invocation.localhost",
        }

    def client(self, **more: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.ready["invocation_url"], headers=self.headers, timeout=PATIENCE_S, **more
        )


def cli_environment(dev: Dev) -> dict[str, str]:
    """Return the environment in which commands call the API of ``dev``."""
    return {"GATEWAY_API_URL": dev.ready["api_url"], "GATEWAY_API_KEY": dev.ready["api_key"]}


async def run_cli(dev: Dev, *arguments: str, stdin: str | None = None) -> CliRun:
    """Run one command, in a thread because it starts its own event loop."""
    runner = CliRunner(env=cli_environment(dev))
    result = await asyncio.to_thread(runner.invoke, app, arguments, input=stdin)
    return CliRun(result.exit_code, result.stdout, result.stderr)


def start_dev(
    folder: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    patience_s: float = 3 * PATIENCE_S,
) -> Dev:
    """Start `gateway dev` on free ports and wait until it reports that it is ready."""
    ready_file = folder / "ready.json"
    program = gateway("dev", "--port", "0", "--ready-file", str(ready_file), *arguments, env=env)
    try:
        program.wait_line(lambda line: line.startswith("Ready."), patience_s)
        program.wait_line(lambda line: line.startswith("print("))
        until_blocking(
            lambda: ready_file.exists() or program.process.poll() is not None,
            what=f"the file {ready_file.name} or the end of the program",
        )
        assert ready_file.exists(), program.output
        return Dev(program, json.loads(ready_file.read_text()))
    except BaseException:
        program.stop()
        raise
