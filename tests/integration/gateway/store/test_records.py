"""Records in every backend of the store: what is written, what is refused."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.domain.model import (
    ApiKey,
    ApiKeyKey,
    Function,
    FunctionKey,
    FunctionVersion,
    VersionKey,
    VersionState,
)
from gateway.errors import Conflict, StoreUnavailable
from gateway.store.names import FUNCTIONS, KEYS
from gateway.store.open import make_store
from gateway.store.options import NatsOptions, RedisStoreOptions, options_at
from gateway.store.records import Store
from tests.support.followed_store import opened
from tests.support.store_servers import StoreServer
from tests.support.waiting import until
from wire.ids import FunctionId, VersionId

F = FunctionId("6f9619ff-8b86-4011-b42d-00c04fc964ff")
V = VersionId("11111111-2222-4333-8444-555555555555")
FUNCTION = Function(F, "account", frozenset({"friend"}))
VERSION = FunctionVersion(F, V, "account", "name", VersionState.INACTIVE)
KEY = ApiKey("key", bytes(32), "account", "subject", frozenset({"invoke_function"}))


@pytest.fixture
async def store(each_store_server: StoreServer) -> AsyncIterator[Store]:
    async with opened(each_store_server.url) as store:
        await store.prepare()
        yield store


async def test_records_are_read_back_with_the_revision_to_replace(store: Store) -> None:
    revisions = [await store.put(record, 0) for record in (FUNCTION, VERSION, KEY)]
    assert await store.get(FunctionKey(F)) == (FUNCTION, revisions[0])
    assert await store.get(VersionKey(F, V)) == (VERSION, revisions[1])
    assert await store.get_key("key") == (KEY, revisions[2])


async def test_what_was_never_written_is_not_there(store: Store) -> None:
    assert await store.get(VersionKey(F, V)) is None
    assert await store.revoke_key("key") is None


async def test_of_two_who_change_the_same_record_one_is_told(store: Store) -> None:
    revision = await store.put(VERSION, 0)
    await store.put(replace(VERSION, state=VersionState.DEPLOYING), revision)
    with pytest.raises(Conflict):
        await store.put(replace(VERSION, state=VersionState.ERROR), revision)
    with pytest.raises(Conflict):
        await store.delete(VersionKey(F, V), revision)
    found = await store.get(VersionKey(F, V))
    assert found is not None
    assert found[0] == replace(VERSION, state=VersionState.DEPLOYING)


async def test_a_record_is_made_once_and_again_after_it_was_deleted(store: Store) -> None:
    revision = await store.put(VERSION, 0)
    with pytest.raises(Conflict):
        await store.put(VERSION, 0)
    await store.delete(VersionKey(F, V), revision)
    assert await store.get(VersionKey(F, V)) is None
    await store.put(VERSION, 0)
    assert await store.get(VersionKey(F, V)) is not None


async def test_what_was_written_last_is_found_by_kind_and_known_as_deleted(
    store: Store,
) -> None:
    other = VersionId("22222222-2222-4333-8444-555555555555")
    assert await store.latest_revision(FUNCTIONS, "version") == 0
    await store.put(VERSION)
    revision = await store.put(replace(VERSION, version_id=other))
    await store.put(FUNCTION)
    assert await store.latest_revision(FUNCTIONS, "version") == revision
    assert await store.deleted_version(V) is None
    ended = await store.delete(VersionKey(F, V))
    assert await store.latest_revision(FUNCTIONS, "version") == ended
    assert await store.deleted_version(V) == VersionKey(F, V)
    assert await store.deleted_version(other) is None
    assert await store.deleted_version(F) is None
    await store.put(VERSION, 0)
    assert await store.deleted_version(V) is None


async def test_keys_are_listed_by_account_oldest_first(store: Store) -> None:
    for name, account, at in (("b", "x", 2), ("a", "x", 3), ("c", "y", 1)):
        await store.put(replace(KEY, key_id=name, account=account, created_at=at))
    await store.put(replace(KEY, key_id="d"))
    await store.delete(ApiKeyKey("d"))
    assert [key.key_id for key in (await store.list_keys())[0]] == ["c", "b", "a"]
    assert [key.key_id for key in (await store.list_keys("x"))[0]] == ["b", "a"]


async def test_an_empty_bucket_lists_nothing(store: Store) -> None:
    assert await store.list_keys() == ([], [])


async def test_a_key_that_cannot_be_read_is_named_and_hides_no_other(
    store: Store,
) -> None:
    await store.put(KEY)
    await store.put_raw(KEYS, "broken", b"{}")
    keys, unreadable = await store.list_keys()
    assert keys == [KEY]
    assert unreadable == ["broken"]


async def test_a_revoked_key_stays_in_the_list_as_revoked(store: Store) -> None:
    await store.put(KEY)
    assert await store.revoke_key("key") == replace(KEY, is_revoked=True)
    assert (await store.list_keys())[0] == [replace(KEY, is_revoked=True)]


async def test_records_and_their_revisions_survive_the_death_of_the_server(
    store: Store, each_store_server: StoreServer
) -> None:
    revision = await store.put(KEY)
    await each_store_server.restart()
    async with opened(each_store_server.url) as store:
        assert await store.get_key("key") == (KEY, revision)
        assert await store.put(KEY, revision) > revision


async def test_without_a_server_calls_fail_at_once_until_it_is_back(
    store_server: StoreServer,
) -> None:
    async with opened(store_server.url) as store:
        await store.prepare()
        await store_server.kill()

        async def failure() -> str:
            try:
                await store.put(KEY)
            except StoreUnavailable as error:
                return str(error)
            return ""

        await until(failure)
        async with asyncio.timeout(0.5):
            assert await failure()
        await store_server.start()
        await until(failure, lambda text: not text)
        assert await store.get_key("key") is not None


async def test_a_call_that_is_given_up_leaves_no_response_to_the_next(
    store_server: StoreServer,
) -> None:
    async with opened(store_server.url) as store:
        await store.prepare()
        await store.put(KEY)
        await store.put(replace(KEY, key_id="other"))
        store_server.pause()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await store.get_key("key")
        store_server.resume()

        async def other() -> str:
            try:
                found = await store.get_key("other")
            except StoreUnavailable:
                return ""
            return found[0].key_id if found else "none"

        assert await until(other) == "other"


async def test_a_server_that_is_not_there_is_told_in_one_line(store_server: StoreServer) -> None:
    await store_server.kill()
    store = make_store(options_at([store_server.url], "test"))
    with pytest.raises(StoreUnavailable, match=r"Connect call failed"):
        await store.open(0.3)


def test_options_do_not_show_their_secrets() -> None:
    nats = NatsOptions(("nats://x",), password="hunter2", token="hunter3")
    redis = RedisStoreOptions(("redis://x",), password="hunter2", sentinel_password="hunter3")
    assert "hunter" not in f"{nats} {redis}"
