"""The read model stays equal to the store, whatever happens to its servers."""

import asyncio
import logging
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
from gateway.store.interface import Entry
from gateway.store.names import FUNCTIONS, KEYS
from gateway.store.watcher import RecordMirror
from tests.support.followed_store import Followed, following, opened
from tests.support.store_servers import StoreServer, wipe
from tests.support.waiting import until
from wire.ids import FunctionId, VersionId

F = FunctionId("6f9619ff-8b86-4011-b42d-00c04fc964ff")
G = FunctionId("7f9619ff-8b86-4011-b42d-00c04fc964ff")
V = VersionId("11111111-2222-4333-8444-555555555555")
VERSION = FunctionVersion(F, V, "account", "name", VersionState.ACTIVE)
KEY = ApiKey("key", b"k" * 32, "account", "subject", frozenset({"invoke_function"}))
OTHER = replace(KEY, key_id="other", digest=b"o" * 32)


def knows(followed: Followed, key: ApiKey) -> bool:
    return followed.model.key(key.digest) is not None


async def test_what_was_there_before_is_loaded(store_server: StoreServer) -> None:
    async with following(store_server.url) as first:
        for record in (Function(F, "account"), VERSION, KEY):
            await first.store.put(record)
        async with following(store_server.url) as second:
            entry = second.model.function(F)
            assert entry is not None
            assert entry.function == Function(F, "account")
            assert entry.invocable == (VERSION,)
            assert knows(second, KEY)


async def test_thousands_of_records_are_all_loaded_first(store_server: StoreServer) -> None:
    count = 3000
    async with following(store_server.url) as first:
        keys = [
            replace(KEY, key_id=f"key-{n}", digest=n.to_bytes(32, "big"), description="x" * 1000)
            for n in range(count)
        ]
        for start in range(0, count, 500):
            await asyncio.gather(*map(first.store.put, keys[start : start + 500]))
        async with following(store_server.url) as second:
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


async def test_changes_reach_the_model_after_every_death_of_the_server(
    followed: Followed, store_server: StoreServer
) -> None:
    for n in range(3):
        await store_server.restart()
        key = replace(KEY, key_id=f"key-{n}", digest=bytes([n]) * 32)
        async with opened(store_server.url) as store:
            await store.put(key)
        await followed.model.until(partial(knows, followed, key))


async def test_a_stalled_server_is_followed_again_when_it_goes_on(
    followed: Followed, store_server: StoreServer, caplog: pytest.LogCaptureFixture
) -> None:
    broken = asyncio.Event()

    class Noticed(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "store.feed_broken":
                broken.set()

    handler = Noticed()
    logging.getLogger("gateway.store").addHandler(handler)
    store_server.pause()
    async with asyncio.timeout(5):
        await broken.wait()
    store_server.resume()
    logging.getLogger("gateway.store").removeHandler(handler)
    await followed.store.put(KEY)
    await followed.model.until(lambda: knows(followed, KEY))


async def test_a_store_that_was_wiped_empties_the_model_and_is_followed_on(
    followed: Followed, store_server: StoreServer
) -> None:
    for record in (VERSION, KEY, OTHER):
        await followed.store.put(record)
    await followed.model.until(lambda: knows(followed, OTHER))
    await store_server.kill()
    wipe(store_server)
    await store_server.start()
    model = followed.model
    await model.until(lambda: not (model.has_keys("account") or model.function_count))
    await followed.store.put(KEY)
    await model.until(lambda: knows(followed, KEY))


async def test_a_record_that_cannot_be_read_is_skipped_and_the_next_one_is_not(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    for name, data in (("key", b"\xff"), ("a.b.c", encode(KEY)), ("other", b'{"schema": 2}')):
        await followed.store.put_raw(KEYS, name, data)

    def skipped() -> list[dict[str, object]]:
        return [vars(r)["fields"] for r in caplog.records if r.getMessage() == "store.bad_record"]

    await until(lambda: len(skipped()) == 3)
    await followed.store.put(OTHER)
    await followed.model.until(lambda: knows(followed, OTHER))
    assert not knows(followed, KEY)
    assert [(fields["name"], fields["error"]) for fields in skipped()] == [
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
