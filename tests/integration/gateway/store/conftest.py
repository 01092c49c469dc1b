"""Real servers of the store, and a read model whose changes can be waited for."""

from collections.abc import AsyncIterator

import pytest

from tests.support.followed_store import Followed, following
from tests.support.nats_server import nats_server, running_nats_server
from tests.support.redis_server import redis_server
from tests.support.store_servers import StoreServer, each_store_server, store_server

__all__ = [
    "each_store_server",
    "nats_server",
    "redis_server",
    "running_nats_server",
    "store_server",
]


@pytest.fixture
async def followed(store_server: StoreServer) -> AsyncIterator[Followed]:
    """A model that follows the store of ``store_server``."""
    async with following(store_server.url) as followed:
        yield followed
