"""The store at a server of any backend, and a read model that follows it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from gateway.domain.readmodel import ReadModel
from gateway.store.open import make_store
from gateway.store.options import options_at
from gateway.store.records import Store
from gateway.store.watcher import Watcher
from tests.support.waiting import PATIENCE_S
from tests.support.watched import Watched


class WatchedModel(Watched, ReadModel):
    """Read model whose changes a test can wait for."""


class Followed:
    """A store and a read model that a watcher keeps equal to it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.model = WatchedModel()
        self.watcher = Watcher(self.store, self.model)


@asynccontextmanager
async def following(*urls: str, **options: Any) -> AsyncIterator[Followed]:
    """Follow the store at ``urls`` while the block runs; the model is loaded when it begins."""
    async with opened(*urls, **options) as store:
        followed = Followed(store)
        followed.watcher.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await followed.watcher.loaded.wait()
            yield followed
        finally:
            await followed.watcher.stop()


@asynccontextmanager
async def opened(*urls: str, replicas: int = 1, **options: Any) -> AsyncIterator[Any]:
    """Open the store at ``urls``, whose scheme decides on the backend; ``options`` are its own."""
    store = make_store(replace(options_at(urls, "test"), **options), replicas=replicas)
    await store.open(PATIENCE_S)
    try:
        yield store
    finally:
        await store.close()
