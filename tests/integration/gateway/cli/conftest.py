"""The commands with the real API, a real store, and a reconciler that runs nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from gateway.__main__ import app
from queueing.nats.connection import Connection
from queueing.nats.login import ConnectionOptions
from tests.support.control import Client, ControlPlane, SetQueue, control_plane
from tests.support.idle_backend import Fleet, running_fleet
from tests.support.nats_server import NatsServer, shared_nats_server

__all__ = ["shared_nats_server"]


class Ran(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


class Shell:
    """Runs ``gateway`` with URL and key of the API in the environment."""

    def __init__(self, url: str, client: Client) -> None:
        self.url = url
        self.env = {"GATEWAY_API_URL": url, "GATEWAY_API_KEY": client.key or ""}

    async def run(self, *arguments: str, stdin: str | None = None, **env: str) -> Ran:
        """Run a command, in a thread because it has an event loop of its own."""
        runner = CliRunner(env={**self.env, **env})
        result = await asyncio.to_thread(runner.invoke, app, arguments, input=stdin)
        return Ran(result.exit_code, result.stdout, result.stderr)

    async def json(self, *arguments: str) -> Any:
        """Run a command with ``--json``, which must succeed, and return its output."""
        ran = await self.run(*arguments, "--json")
        assert ran.code == 0, ran
        return json.loads(ran.out)


@pytest.fixture
def queue() -> SetQueue:
    return SetQueue()


@pytest.fixture
async def plane(shared_nats_server: NatsServer, queue: SetQueue) -> AsyncIterator[ControlPlane]:
    async with control_plane(shared_nats_server.url, queue) as plane:
        yield plane


@pytest.fixture
async def fleet(plane: ControlPlane, shared_nats_server: NatsServer) -> AsyncIterator[Fleet]:
    data = Connection(ConnectionOptions(servers=(shared_nats_server.url,)))
    data.start()
    await data.wait_connected()
    async with running_fleet(plane.store, data) as fleet:
        yield fleet
    await data.close()


@pytest.fixture
async def client(plane: ControlPlane) -> Client:
    return await plane.client(f"own-{uuid4().hex}")


@pytest.fixture
def shell(plane: ControlPlane, client: Client) -> Shell:
    return Shell(str(plane.session._build_url("")).rstrip("/"), client)
