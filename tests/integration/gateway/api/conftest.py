"""One nats-server per module; every test has a control plane and accounts of its own."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

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
def store_url(shared_nats_server: NatsServer) -> str:
    """Where the store is. A module whose subject is the store has a fixture of its own."""
    return shared_nats_server.url


@pytest.fixture
async def plane(store_url: str, queue: SetQueue, vault: OpenVault) -> AsyncIterator[ControlPlane]:
    async with control_plane(store_url, queue, vault) as plane:
        yield plane


@pytest.fixture
async def client(plane: ControlPlane) -> Client:
    """The only client of a new account."""
    return await plane.client(f"own-{uuid4().hex}")


@pytest.fixture
async def other(plane: ControlPlane) -> Client:
    """A client of another account."""
    return await plane.client(f"other-{uuid4().hex}")
