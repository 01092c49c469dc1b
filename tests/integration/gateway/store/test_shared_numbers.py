"""Documents that processes replace in turn, in every backend of the store."""

import pytest

from gateway.errors import Conflict, StoreUnavailable
from gateway.store.nats.kv import NatsStore
from tests.support.followed_store import opened
from tests.support.nats_server import NatsServer
from tests.support.redis_server import RedisServer
from tests.support.store_servers import StoreServer


async def test_of_two_that_replace_the_same_document_one_is_told(
    each_store_server: StoreServer,
) -> None:
    url = each_store_server.url
    async with opened(url) as one, opened(url) as other:
        first, second = one.shared_numbers(60), other.shared_numbers(60)
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
    async with opened(nats_server.url) as store:
        assert isinstance(store, NatsStore)
        numbers = store.shared_numbers(60)
        revision = await numbers.replace("a", b"1", 0)
        await store.connection.connected_client().jetstream().delete_stream("gateway_rates")
        assert await numbers.read("a") is None
        assert await numbers.replace("a", b"2", revision) > 0
        await nats_server.stop()
        with pytest.raises(StoreUnavailable):
            await numbers.read("a")


async def test_documents_that_redis_has_lost_can_be_written_again(
    redis_server: RedisServer,
) -> None:
    async with opened(redis_server.url) as store:
        numbers = store.shared_numbers(60)
        revision = await numbers.replace("a", b"1", 0)
        await redis_server.run("FLUSHALL")
        with pytest.raises(Conflict):
            await numbers.replace("a", b"2", revision)
        assert await numbers.read("a") is None
        assert await numbers.replace("a", b"2", 0) > revision


async def test_redis_forgets_documents_that_are_too_old(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as store:
        brief, lasting = store.shared_numbers(0), store.shared_numbers(60)
        await lasting.replace("old", b"1", 0)
        await lasting.replace("new", b"1", 0)
        assert await lasting.read("old") is not None
        await brief.replace("new", b"2", (await brief.read("new"))[1])
        assert await lasting.read("old") is None
        assert await redis_server.run("ZCARD", "{gateway_rates}:ages") == 1
