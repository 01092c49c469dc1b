"""Documents that processes replace in turn, on a real NATS server."""

import pytest

from gateway.errors import Conflict, StoreUnavailable
from gateway.store.shared_numbers import SharedNumbers
from tests.support.followed_store import connected
from tests.support.nats_server import NatsServer


async def test_of_two_that_replace_the_same_document_one_is_told(nats_server: NatsServer) -> None:
    async with connected(nats_server.url) as one, connected(nats_server.url) as other:
        first = SharedNumbers(one, "gateway", 1, 60)
        second = SharedNumbers(other, "gateway", 1, 60)
        assert await first.read("a") is None
        revision = await first.replace("a", b"1", 0)
        assert await second.read("a") == (b"1", revision)
        with pytest.raises(Conflict):
            await second.replace("a", b"2", 0)
        latest = await second.replace("a", b"2", revision)
        with pytest.raises(Conflict):
            await first.replace("a", b"3", revision)
        assert await first.read("a") == (b"2", latest)
        assert await first.read("b") is None


async def test_documents_that_nats_has_lost_can_be_written_again(nats_server: NatsServer) -> None:
    async with connected(nats_server.url) as connection:
        numbers = SharedNumbers(connection, "gateway", 1, 60)
        revision = await numbers.replace("a", b"1", 0)
        await connection.connected_client().jetstream().delete_stream("gateway_rates")
        assert await numbers.read("a") is None
        assert await numbers.replace("a", b"2", revision) > 0
        await nats_server.stop()
        with pytest.raises(StoreUnavailable):
            await numbers.read("a")
