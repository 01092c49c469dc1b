"""Records in NATS KV: what is written, what is refused."""

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
from gateway.store.connection import NatsOptions, StoreConnection
from gateway.store.names import FUNCTIONS
from gateway.store.nats_kv import Store
from tests.support.followed_store import connected
from tests.support.nats_server import NatsServer
from tests.support.waiting import PATIENCE_S, until
from wire.ids import FunctionId, VersionId

F = FunctionId("6f9619ff-8b86-4011-b42d-00c04fc964ff")
V = VersionId("11111111-2222-4333-8444-555555555555")
FUNCTION = Function(F, "account", frozenset({"friend"}))
VERSION = FunctionVersion(F, V, "account", "name", VersionState.INACTIVE)
KEY = ApiKey("key", bytes(32), "account", "subject", frozenset({"invoke_function"}))


@pytest.fixture
async def store(nats_server: NatsServer) -> AsyncIterator[Store]:
    async with connected(nats_server.url) as connection:
        store = Store(connection)
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


async def test_what_was_written_last_is_found_by_pattern_and_known_as_deleted(
    store: Store,
) -> None:
    other = VersionId("22222222-2222-4333-8444-555555555555")
    assert await store.latest(FUNCTIONS, "version.>") is None
    await store.put(VERSION)
    revision = await store.put(replace(VERSION, version_id=other))
    await store.put(FUNCTION)
    latest = await store.latest(FUNCTIONS, "version.>")
    assert latest is not None
    assert (latest.name, latest.revision) == (f"version.{F}.{other}", revision)
    assert await store.deleted_version(V) is None
    ended = await store.delete(VersionKey(F, V))
    assert await store.latest(FUNCTIONS, "version.>") == (f"version.{F}.{V}", None, ended)
    assert await store.deleted_version(V) == VersionKey(F, V)
    assert await store.deleted_version(other) is None
    assert await store.deleted_version(F) is None


async def test_preparing_again_leaves_what_is_there(store: Store, nats_server: NatsServer) -> None:
    await store.put(KEY)
    await Store(store.connection, replicas=1).prepare()
    await Store(store.connection, replicas=3).prepare()
    assert await store.get_key("key") is not None


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
    client = store.connection.connected_client()
    await client.jetstream().publish("$KV.gateway_keys.broken", b"{}")
    keys, unreadable = await store.list_keys()
    assert keys == [KEY]
    assert unreadable == ["broken"]


async def test_a_revoked_key_stays_in_the_list_as_revoked(store: Store) -> None:
    await store.put(KEY)
    assert await store.revoke_key("key") == replace(KEY, is_revoked=True)
    assert (await store.list_keys())[0] == [replace(KEY, is_revoked=True)]


async def test_records_survive_the_death_of_the_server(
    store: Store, nats_server: NatsServer
) -> None:
    await store.put(KEY)
    await nats_server.restart()
    async with connected(nats_server.url) as connection:
        assert await Store(connection).get_key("key") is not None


async def test_without_a_server_calls_fail_at_once(store: Store, nats_server: NatsServer) -> None:
    lost = asyncio.Event()
    store.connection.on_lost(lost.set)
    await nats_server.kill()
    async with asyncio.timeout(PATIENCE_S):
        await lost.wait()
    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(0.1):
            await store.get_key("key")


async def test_a_server_that_is_not_there_or_refuses_is_told_in_one_line(
    nats_server: NatsServer,
) -> None:
    await nats_server.kill()
    with pytest.raises(StoreUnavailable, match="Connect call failed"):
        await StoreConnection(NatsOptions((nats_server.url,))).open(0.1)
    nats_server.config = 'authorization { token: "secret" }\n'
    await nats_server.start()

    async def refusal() -> str:
        with pytest.raises(StoreUnavailable) as refused:
            await StoreConnection(NatsOptions((nats_server.url,), token="wrong")).open(0.3)
        return str(refused.value)

    # The reason may be lost with the connection that the server closes, but not every time.
    await until(refusal, lambda text: "Authorization" in text)


def test_options_do_not_show_their_secrets() -> None:
    shown = repr(NatsOptions(("nats://x",), password="hunter2", token="hunter3"))
    assert "hunter" not in shown
