"""A connection to the store, and a read model that follows it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.domain.readmodel import ReadModel
from gateway.store.connection import NatsOptions, StoreConnection
from gateway.store.nats_kv import Store
from gateway.store.watcher import Watcher
from tests.support.waiting import PATIENCE_S
from tests.support.watched import Watched


class WatchedModel(Watched, ReadModel):
    """Read model whose changes a test can wait for."""


class Followed:
    """A store and a read model that a watcher keeps equal to it."""

    def __init__(self, connection: StoreConnection) -> None:
        self.connection = connection
        self.store = Store(connection)
        self.model = WatchedModel()
        self.watcher = Watcher(self.store, self.model)


@asynccontextmanager
async def following(url: str, token: str | None = None) -> AsyncIterator[Followed]:
    """Follow the store at ``url`` while the block runs; the model is loaded when it begins."""
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
async def connected(url: str, token: str | None = None) -> AsyncIterator[StoreConnection]:
    connection = StoreConnection(NatsOptions((url,), token=token))
    await connection.open(PATIENCE_S)
    try:
        yield connection
    finally:
        await connection.close()
