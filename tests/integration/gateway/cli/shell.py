"""The ``gateway`` command, run in this process with an API and a key in its environment."""

import asyncio
import json
from typing import Any, NamedTuple

from typer.testing import CliRunner

from gateway.cli.program import app
from tests.support.control import Client


class Ran(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


class Shell:
    """Runs ``gateway`` commands with the API's URL and a key in the environment."""

    def __init__(self, url: str, client: Client) -> None:
        self.url = url
        self.env = {"GATEWAY_API_URL": url, "GATEWAY_API_KEY": client.key or ""}

    async def run(self, *arguments: str, stdin: str | None = None, **env: str) -> Ran:
        """Run one command, in a thread because it starts its own event loop."""
        runner = CliRunner(env={**self.env, **env})
        result = await asyncio.to_thread(runner.invoke, app, arguments, input=stdin)
        return Ran(result.exit_code, result.stdout, result.stderr)

    async def json(self, *arguments: str) -> Any:
        """Run one command with ``--json``; it must succeed. Return the parsed output."""
        ran = await self.run(*arguments, "--json")
        assert ran.code == 0, ran
        return json.loads(ran.out)
