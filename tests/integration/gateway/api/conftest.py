"""One nats-server per module; every test has a control plane and accounts of its own."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from uuid import uuid4

import pytest

from tests.integration.gateway.api.lagging_process import Behind, LateConnection
from tests.support.control import Client, ControlPlane, OpenVault, SetQueue, control_plane
from tests.support.nats_server import NatsServer, nats_server, shared_nats_server

__all__ = ["nats_server", "shared_nats_server"]


@pytest.fixture
def queue() -> SetQueue:
    return SetQueue()


@pytest.fixture
def vault() -> OpenVault:
    return OpenVault()


@pytest.fixture
async def plane(
    shared_nats_server: NatsServer, queue: SetQueue, vault: OpenVault
) -> AsyncIterator[ControlPlane]:
    async with control_plane(shared_nats_server.url, queue, vault) as plane:
        yield plane


@pytest.fixture
async def behind(
    plane: ControlPlane,
    client: Client,
    shared_nats_server: NatsServer,
    queue: SetQueue,
) -> AsyncIterator[Behind]:
    """It knows ``client``, and nothing that ``client`` does."""
    hears = asyncio.Event()
    hears.set()
    connect = partial(LateConnection, hears=hears)
    async with control_plane(shared_nats_server.url, queue, connect=connect) as late:
        yield Behind(late, hears)
        hears.set()


@pytest.fixture
async def client(plane: ControlPlane) -> Client:
    """The only client of a new account."""
    return await plane.client(f"own-{uuid4().hex}")


@pytest.fixture
async def other(plane: ControlPlane) -> Client:
    """A client of another account."""
    return await plane.client(f"other-{uuid4().hex}")
