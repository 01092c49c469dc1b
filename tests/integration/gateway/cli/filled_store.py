"""A real store and its contents."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.store.records import Store
from tests.support import followed_store
from tests.support.store_servers import StoreServer


class Filled:
    """A prepared store; ``contents`` returns its records as JSON documents."""

    def __init__(self, server: StoreServer, store: Store) -> None:
        self.url = server.url
        self.store = store

    async def contents(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for bucket in ("functions", "keys", "details", "accounts", "secrets", "meta"):
            for name, data, _ in await self.store.entries(bucket):
                found[f"{bucket}/{name}"] = json.loads(data or b"")
        return found


@asynccontextmanager
async def opened(server: StoreServer) -> AsyncIterator[Filled]:
    async with followed_store.opened(server.url) as store:
        await store.prepare()
        yield Filled(server, store)
