"""The read model stays equal to the store, whatever happens to NATS meanwhile."""

import asyncio
import logging
import shutil
from dataclasses import replace
from functools import partial

import pytest

from gateway.domain.model import (
    ApiKey,
    ApiKeyKey,
    Change,
    Function,
    FunctionKey,
    FunctionVersion,
    Removed,
    VersionKey,
    VersionState,
    encode,
)
from gateway.store.feed import Entry
from gateway.store.names import FUNCTIONS, KEYS
from gateway.store.nats_kv import Store
from gateway.store.watcher import RecordMirror
from tests.support.followed_store import Followed, connected, following
from tests.support.nats_server import NatsServer
from tests.support.waiting import PATIENCE_S
from wire.ids import FunctionId, VersionId

F = FunctionId("6f9619ff-8b86-4011-b42d-00c04fc964ff")
G = FunctionId("7f9619ff-8b86-4011-b42d-00c04fc964ff")
V = VersionId("11111111-2222-4333-8444-555555555555")
VERSION = FunctionVersion(F, V, "account", "name", VersionState.ACTIVE)
KEY = ApiKey("key", b"k" * 32, "account", "subject", frozenset({"invoke_function"}))
OTHER = replace(KEY, key_id="other", digest=b"o" * 32)


def knows(followed: Followed, key: ApiKey) -> bool:
    return followed.model.key(key.digest) is not None


async def test_what_was_there_before_is_loaded(nats_server: NatsServer) -> None:
    async with following(nats_server.url) as first:
        for record in (Function(F, "account"), VERSION, KEY):
            await first.store.put(record)
        async with following(nats_server.url) as second:
            entry = second.model.function(F)
            assert entry is not None
            assert entry.function == Function(F, "account")
            assert entry.invocable == (VERSION,)
            assert knows(second, KEY)


async def test_thousands_of_records_are_all_loaded_first(nats_server: NatsServer) -> None:
    count = 3000
    async with following(nats_server.url) as first:
        keys = [
            replace(KEY, key_id=f"key-{n}", digest=n.to_bytes(32, "big"), description="x" * 1000)
            for n in range(count)
        ]
        for start in range(0, count, 500):
            await asyncio.gather(*map(first.store.put, keys[start : start + 500]))
        async with following(nats_server.url) as second:
            assert all(knows(second, key) for key in keys)


async def test_a_change_and_a_deletion_reach_the_model(followed: Followed) -> None:
    await followed.store.put(VERSION)
    await followed.model.until(lambda: followed.model.function(F))
    await followed.store.put(replace(VERSION, state=VersionState.INACTIVE))
    entry = followed.model.function(F)
    assert entry is not None
    await followed.model.until(lambda: not entry.invocable)
    await followed.store.delete(VersionKey(F, V))
    await followed.model.until(lambda: followed.model.function(F) is None)


async def test_a_revoked_key_stops_working_within_a_second(followed: Followed) -> None:
    await followed.store.put(KEY)
    await followed.model.until(lambda: knows(followed, KEY))
    async with asyncio.timeout(1):
        await followed.store.revoke_key(KEY.key_id)
        await followed.model.until(lambda: not knows(followed, KEY))


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
        async with connected(nats_server.url, "t") as connection:
            writer = Store(connection)
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
    followed: Followed, nats_server: NatsServer
) -> None:
    lost = asyncio.Event()
    followed.connection.on_lost(lost.set)
    nats_server.config = 'authorization { token: "t" }\n'
    nats_server.reload()
    async with asyncio.timeout(PATIENCE_S):
        await lost.wait()
    async with connected(nats_server.url, "t") as connection:
        await Store(connection).put(KEY)
    nats_server.config = ""
    nats_server.reload()
    await followed.model.until(lambda: knows(followed, KEY))


async def test_changes_reach_the_model_after_every_death_of_the_server(
    followed: Followed, nats_server: NatsServer
) -> None:
    for n in range(3):
        await nats_server.restart()
        key = replace(KEY, key_id=f"key-{n}", digest=bytes([n]) * 32)
        async with connected(nats_server.url) as connection:
            await Store(connection).put(key)
        await followed.model.until(partial(knows, followed, key))


async def test_a_consumer_that_the_server_lost_is_noticed(followed: Followed) -> None:
    await followed.store.put(KEY)
    await followed.model.until(lambda: knows(followed, KEY))
    jetstream = followed.connection.connected_client().jetstream()
    for consumer in await jetstream.consumers_info("KV_gateway_keys"):
        await jetstream.delete_consumer("KV_gateway_keys", consumer.name)
    await followed.store.revoke_key(KEY.key_id)
    await followed.model.until(lambda: not knows(followed, KEY))


async def test_a_stalled_server_is_followed_again_when_it_goes_on(
    followed: Followed, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    broken = asyncio.Event()

    class Noticed(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "store.feed_broken":
                broken.set()

    handler = Noticed()
    logging.getLogger("gateway.store").addHandler(handler)
    nats_server.pause()
    async with asyncio.timeout(5):
        await broken.wait()
    nats_server.resume()
    logging.getLogger("gateway.store").removeHandler(handler)
    await followed.store.put(KEY)
    await followed.model.until(lambda: knows(followed, KEY))


async def test_a_store_that_was_wiped_empties_the_model_and_is_followed_on(
    followed: Followed, nats_server: NatsServer
) -> None:
    for record in (VERSION, KEY, OTHER):
        await followed.store.put(record)
    await followed.model.until(lambda: knows(followed, OTHER))
    await nats_server.kill()
    shutil.rmtree(nats_server.directory / "store")
    await nats_server.start()
    model = followed.model
    await model.until(lambda: not (model.has_keys("account") or model.function_count))
    await followed.store.put(KEY)
    await model.until(lambda: knows(followed, KEY))


async def test_a_record_that_cannot_be_read_is_skipped_and_the_next_one_is_not(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    jetstream = followed.connection.connected_client().jetstream()
    for name, data in (("key", b"\xff"), ("a.b.c", encode(KEY)), ("other", b'{"schema": 2}')):
        await jetstream.publish(f"$KV.gateway_keys.{name}", data)
    await followed.store.put(OTHER)
    await followed.model.until(lambda: knows(followed, OTHER))
    assert not knows(followed, KEY)
    skipped = [vars(r)["fields"] for r in caplog.records if r.getMessage() == "store.bad_record"]
    assert [(fields["name"], fields["error"]) for fields in skipped] == [
        ("key", "not a JSON document"),
        ("a.b.c", "the document belongs under another name"),
        ("other", "schema is 2, this program reads 1"),
    ]


def test_a_key_that_can_no_longer_be_read_stops_working_and_a_function_does_not() -> None:
    changes: list[Change] = []
    keys, functions = RecordMirror(KEYS, changes.append), RecordMirror(FUNCTIONS, changes.append)
    keys.entry(Entry("key", encode(KEY), 1))
    functions.entry(Entry(f"function.{F}", encode(Function(F, "account")), 1))
    changes.clear()
    keys.entry(Entry("key", b"{}", 2))
    functions.entry(Entry(f"function.{F}", b"{}", 2))
    assert changes == [Removed(ApiKeyKey("key"))]


def test_what_a_new_feed_does_not_bring_is_gone() -> None:
    changes: list[Change] = []
    mirror = RecordMirror(FUNCTIONS, changes.append)
    for function_id in (F, G):
        mirror.entry(Entry(f"function.{function_id}", encode(Function(function_id, "a")), 1))
    mirror.loaded()
    mirror.begin()
    changes.clear()
    mirror.entry(Entry(f"function.{G}", encode(Function(G, "b")), 2))
    mirror.loaded()
    assert changes == [Function(G, "b"), Removed(FunctionKey(F))]
