"""Durable servers of every backend of the store, as fixtures."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.nats_server import NatsServer, running_nats_server
from tests.support.redis_server import RedisServer, running_redis_server

StoreServer = NatsServer | RedisServer
"""Both have `url`, and can be started again without a loss."""


@asynccontextmanager
async def running_store_server(kind: str) -> AsyncIterator[StoreServer]:
    """Run nats-server, or a Redis server of a kind, while the block runs."""
    if kind == "nats":
        async with running_nats_server() as nats:
            yield nats
    else:
        async with running_redis_server(kind, aof=True) as redis:
            yield redis


@pytest.fixture(params=["nats", "valkey"])
async def store_server(request: pytest.FixtureRequest) -> AsyncIterator[StoreServer]:
    """A new server for one test, which may kill or pause it: one of each backend."""
    async with running_store_server(request.param) as server:
        yield server


@pytest.fixture(params=["nats", "valkey", "valkey8", "redis7", "redis8"])
async def each_store_server(request: pytest.FixtureRequest) -> AsyncIterator[StoreServer]:
    """As `store_server`, with every version of Redis."""
    async with running_store_server(request.param) as server:
        yield server


def wipe(server: StoreServer) -> None:
    """Remove the files of a server that does not run."""
    if isinstance(server, NatsServer):
        shutil.rmtree(server.directory / "store")
    else:
        shutil.rmtree(server.folder / "appendonlydir")
