"""A real store and its contents."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.store.nats.connection import NatsStoreConnection
from gateway.store.nats.kv import NatsStore
from gateway.store.options import NatsOptions
from gateway.store.records import Store
from tests.support.nats_server import NatsServer
from tests.support.waiting import PATIENCE_S


class Filled:
    """A prepared store; ``contents`` returns its records as JSON documents."""

    def __init__(self, server: NatsServer, store: Store) -> None:
        self.url = server.url
        self.store = store

    async def contents(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for bucket in ("functions", "keys", "details", "accounts", "secrets", "meta"):
            for name, data, _ in await self.store.entries(bucket):
                found[f"{bucket}/{name}"] = json.loads(data or b"")
        return found


@asynccontextmanager
async def opened(server: NatsServer) -> AsyncIterator[Filled]:
    connection = NatsStoreConnection(NatsOptions((server.url,)))
    await connection.open(PATIENCE_S)
    try:
        store = NatsStore(connection)
        await store.prepare()
        yield Filled(server, store)
    finally:
        await connection.close()
