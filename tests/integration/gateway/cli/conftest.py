"""The commands with the real API, a real store, and a reconciler that runs nothing."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from queueing.nats.connection import NatsConnection
from queueing.nats.login import ConnectionOptions
from tests.integration.gateway.cli.shell import Shell
from tests.support.control import Client, ControlPlane, SetQueue, control_plane
from tests.support.idle_backend import Fleet, running_fleet
from tests.support.nats_server import NatsServer, shared_nats_server

__all__ = ["shared_nats_server"]


@pytest.fixture
def queue() -> SetQueue:
    return SetQueue()


@pytest.fixture
async def plane(shared_nats_server: NatsServer, queue: SetQueue) -> AsyncIterator[ControlPlane]:
    async with control_plane(shared_nats_server.url, queue) as plane:
        yield plane


@pytest.fixture
async def fleet(plane: ControlPlane, shared_nats_server: NatsServer) -> AsyncIterator[Fleet]:
    data = NatsConnection(ConnectionOptions(servers=(shared_nats_server.url,)))
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
    return Shell(plane.url, client)
