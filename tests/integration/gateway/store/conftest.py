"""The real nats-server, and a read model whose changes can be waited for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.domain.readmodel import ReadModel
from gateway.store.connection import Connection, NatsOptions
from gateway.store.nats_kv import Store
from gateway.store.watcher import Watcher
from tests.support.nats_server import (
    PATIENCE_S,
    NatsServer,
    nats_server,
    running_nats_server,
    shared_nats_server,
)
from tests.support.watched import Watched

__all__ = ["nats_server", "running_nats_server", "shared_nats_server"]


class WatchedModel(Watched, ReadModel):
    """A read model that wakes whoever waits for a change."""


class Followed:
    """A store, and a model that a watcher keeps equal to it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.store = Store(connection)
        self.model = WatchedModel()
        self.watcher = Watcher(self.store, self.model)


@asynccontextmanager
async def following(url: str, token: str | None = None) -> AsyncIterator[Followed]:
    """Follow the store at ``url`` for the length of the block, loaded at its beginning."""
    async with connected(url, token) as connection:
        followed = Followed(connection)
        followed.watcher.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await followed.watcher.loaded.wait()
            yield followed
        finally:
            await followed.watcher.stop()


@asynccontextmanager
async def connected(url: str, token: str | None = None) -> AsyncIterator[Connection]:
    connection = Connection(NatsOptions((url,), token=token))
    await connection.open(PATIENCE_S)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def followed(nats_server: NatsServer) -> AsyncIterator[Followed]:
    """A model that follows the store of ``nats_server``."""
    async with following(nats_server.url) as followed:
        yield followed
