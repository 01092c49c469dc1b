"""What only the backend on NATS can meet: buckets, consumers, and a login that is refused."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.domain.model import ApiKey, ApiKeyKey, FunctionVersion, VersionKey, VersionState
from gateway.errors import StoreUnavailable
from gateway.store.nats.connection import NatsStoreConnection
from gateway.store.nats.kv import NatsStore
from gateway.store.options import NatsOptions
from tests.support.followed_store import Followed, following, opened
from tests.support.nats_server import NatsServer
from tests.support.waiting import PATIENCE_S, until
from wire.ids import FunctionId, VersionId

F = FunctionId("6f9619ff-8b86-4011-b42d-00c04fc964ff")
G = FunctionId("7f9619ff-8b86-4011-b42d-00c04fc964ff")
V = VersionId("11111111-2222-4333-8444-555555555555")
VERSION = FunctionVersion(F, V, "account", "name", VersionState.ACTIVE)
KEY = ApiKey("key", b"k" * 32, "account", "subject", frozenset({"invoke_function"}))
OTHER = replace(KEY, key_id="other", digest=b"o" * 32)


def knows(followed: Followed, key: ApiKey) -> bool:
    return followed.model.key(key.digest) is not None


def connection_of(followed: Followed) -> NatsStoreConnection:
    assert isinstance(followed.store, NatsStore)
    return followed.store.connection


@pytest.fixture
async def on_nats(nats_server: NatsServer) -> AsyncIterator[Followed]:
    async with following(nats_server.url) as followed:
        yield followed


async def test_preparing_again_leaves_what_is_there(nats_server: NatsServer) -> None:
    async with opened(nats_server.url) as store:
        await store.prepare()
        await store.put(KEY)
        await NatsStore(store.connection, replicas=1).prepare()
        await NatsStore(store.connection, replicas=3).prepare()
        assert await store.get_key("key") is not None


async def test_a_server_that_refuses_is_told_in_one_line(nats_server: NatsServer) -> None:
    await nats_server.kill()
    nats_server.config = 'authorization { token: "secret" }\n'
    await nats_server.start()

    async def refusal() -> str:
        with pytest.raises(StoreUnavailable) as refused:
            await NatsStoreConnection(NatsOptions((nats_server.url,), token="wrong")).open(0.3)
        return str(refused.value)

    # The reason may be lost with the connection that the server closes, but not every time.
    await until(refusal, lambda text: "Authorization" in text)


# nats-py drops the transport of a refused login without closing it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_nothing_is_missed_while_the_login_is_refused(nats_server: NatsServer) -> None:
    async with following(nats_server.url) as followed:
        await followed.store.put(VERSION)
        await followed.store.put(KEY)
        await followed.store.put(OTHER)
        await followed.model.until(lambda: knows(followed, OTHER))
        await nats_server.kill()
        nats_server.config = 'authorization { token: "t" }\n'
        await nats_server.start()
        async with opened(nats_server.url, token="t") as writer:
            await writer.delete(VersionKey(F, V))
            await writer.put(replace(VERSION, function_id=G))
            await writer.revoke_key(KEY.key_id)
            await writer.delete(ApiKeyKey(OTHER.key_id))
        await nats_server.logged("authentication error")
        assert knows(followed, KEY)
        await nats_server.kill()
        nats_server.config = ""
        await nats_server.start()
        model = followed.model
        await model.until(lambda: not knows(followed, KEY) and not knows(followed, OTHER))
        await model.until(lambda: model.function(F) is None and model.function(G) is not None)


async def test_a_login_that_is_refused_in_mid_connection_is_tried_again(
    on_nats: Followed, nats_server: NatsServer
) -> None:
    lost = asyncio.Event()
    connection_of(on_nats).on_lost(lost.set)
    nats_server.config = 'authorization { token: "t" }\n'
    nats_server.reload()
    async with asyncio.timeout(PATIENCE_S):
        await lost.wait()
    async with opened(nats_server.url, token="t") as writer:
        await writer.put(KEY)
    nats_server.config = ""
    nats_server.reload()
    await on_nats.model.until(lambda: knows(on_nats, KEY))


async def test_a_consumer_that_the_server_lost_is_noticed(on_nats: Followed) -> None:
    await on_nats.store.put(KEY)
    await on_nats.model.until(lambda: knows(on_nats, KEY))
    jetstream = connection_of(on_nats).connected_client().jetstream()
    for consumer in await jetstream.consumers_info("KV_gateway_keys"):
        await jetstream.delete_consumer("KV_gateway_keys", consumer.name)
    await on_nats.store.revoke_key(KEY.key_id)
    await on_nats.model.until(lambda: not knows(on_nats, KEY))
