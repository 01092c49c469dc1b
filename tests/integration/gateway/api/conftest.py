"""One nats-server per module; every test has a control plane and accounts of its own."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from nats.aio.msg import Msg

from gateway.store.feed import Feed
from tests.integration.gateway.api.lagging_process import Behind
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
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Behind]:
    """It knows ``client``, and nothing that ``client`` does."""
    hears = asyncio.Event()
    hears.set()
    receive = Feed._on_message

    async def held(feed: Feed, message: Msg) -> None:
        await hears.wait()
        await receive(feed, message)

    with monkeypatch.context() as patch:
        patch.setattr(Feed, "_on_message", held)
        opening = control_plane(shared_nats_server.url, queue)
        late = await opening.__aenter__()
    try:
        yield Behind(late, hears)
    finally:
        hears.set()
        await opening.__aexit__(None, None, None)


@pytest.fixture
async def client(plane: ControlPlane) -> Client:
    """The only client of a new account."""
    return await plane.client(f"own-{uuid4().hex}")


@pytest.fixture
async def other(plane: ControlPlane) -> Client:
    """A client of another account."""
    return await plane.client(f"other-{uuid4().hex}")
