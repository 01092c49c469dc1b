"""The real nats-server, and a read model whose changes can be waited for."""

from collections.abc import AsyncIterator

import pytest

from tests.support.followed_store import Followed, following
from tests.support.nats_server import (
    NatsServer,
    nats_server,
    running_nats_server,
    shared_nats_server,
)

__all__ = ["nats_server", "running_nats_server", "shared_nats_server"]


@pytest.fixture
async def followed(nats_server: NatsServer) -> AsyncIterator[Followed]:
    """A model that follows the store of ``nats_server``."""
    async with following(nats_server.url) as followed:
        yield followed
