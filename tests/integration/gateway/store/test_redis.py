"""What only the backend on Redis can meet: refusals, lost data, Clusters, Sentinels, TLS."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.domain.model import ApiKey, ApiKeyKey
from gateway.errors import StoreUnavailable
from gateway.store.names import KEYS
from gateway.store.open import make_store
from gateway.store.options import RedisStoreOptions
from gateway.store.records import Store
from runtime.tasks import spawn
from tests.support.certificates import Authority
from tests.support.followed_store import Followed, following, opened
from tests.support.redis_server import RedisServer, running_redis_server
from tests.support.redis_topologies import RedisCluster, SentinelSet
from tests.support.waiting import PATIENCE_S, until

KEY = ApiKey("key", b"k" * 32, "account", "subject", frozenset({"invoke_function"}))
OTHER = replace(KEY, key_id="other", digest=b"o" * 32)
TAG = "{gateway_keys}"


def knows(followed: Followed, key: ApiKey) -> bool:
    return followed.model.key(key.digest) is not None


@pytest.fixture
async def on_redis(redis_server: RedisServer) -> AsyncIterator[Followed]:
    async with following(redis_server.url) as followed:
        yield followed


async def failure(call: Callable[[], Awaitable[object]]) -> str:
    """Return why a call of the store fails, an empty text if it does not."""
    try:
        await call()
    except StoreUnavailable as error:
        return str(error)
    return ""


async def test_data_that_a_running_server_loses_empties_the_model_which_is_followed_on(
    on_redis: Followed, redis_server: RedisServer
) -> None:
    await on_redis.store.put(KEY)
    await on_redis.model.until(lambda: knows(on_redis, KEY))
    await redis_server.run("FLUSHALL")
    await on_redis.model.until(lambda: not knows(on_redis, KEY))
    await on_redis.store.put(OTHER)
    await on_redis.model.until(lambda: knows(on_redis, OTHER))


async def test_data_that_were_replaced_by_others_are_read_whole(
    on_redis: Followed, redis_server: RedisServer
) -> None:
    await on_redis.store.put(KEY)
    await on_redis.model.until(lambda: knows(on_redis, KEY))
    # At one moment, so that the feed next sees a change, and not an empty server.
    async with redis_server.client() as client, client.pipeline() as transaction:
        transaction.flushall()
        transaction.hset(f"{TAG}:revisions", "", str(2**52))
        change = {"name": "x", "after": 2**52 - 1}
        transaction.xadd(f"{TAG}:changes", change, id=f"{2**52}-0")
        await transaction.execute()
    await on_redis.model.until(lambda: not knows(on_redis, KEY))
    await on_redis.store.put(OTHER)
    await on_redis.model.until(lambda: knows(on_redis, OTHER))


async def test_a_feed_that_is_far_behind_reads_the_bucket_again(
    on_redis: Followed, redis_server: RedisServer
) -> None:
    await on_redis.store.put(KEY)
    await on_redis.model.until(lambda: knows(on_redis, KEY))
    # As after more changes than the stream keeps.
    async with redis_server.client() as client, client.pipeline() as transaction:
        transaction.hdel(f"{TAG}:documents", "key")
        transaction.hset(f"{TAG}:revisions", "", str(2**52))
        change = {"name": "x", "after": 2**52 - 1}
        transaction.xadd(f"{TAG}:changes", change, id=f"{2**52}-0", maxlen=1, approximate=False)
        await transaction.execute()
    await on_redis.model.until(lambda: not knows(on_redis, KEY))


async def test_a_revision_is_never_given_again_even_if_its_write_is_lost(
    on_redis: Followed, redis_server: RedisServer
) -> None:
    lost = await on_redis.store.put(KEY)
    await redis_server.run("FLUSHALL")
    assert await on_redis.store.put(KEY, 0) > lost
    ahead = 2**52
    await redis_server.run("HSET", f"{TAG}:revisions", "", ahead)
    assert await on_redis.store.put(OTHER) == ahead + 1


async def test_a_server_that_forgets_the_scripts_is_written_to_as_before(
    on_redis: Followed, redis_server: RedisServer
) -> None:
    await on_redis.store.put(KEY)
    await redis_server.run("SCRIPT", "FLUSH")
    await on_redis.store.put(OTHER)
    await on_redis.model.until(lambda: knows(on_redis, OTHER))


async def test_a_full_memory_refuses_writes_and_not_deletions(
    on_redis: Followed, redis_server: RedisServer
) -> None:
    store = on_redis.store
    await store.put(KEY)
    await redis_server.run("CONFIG", "SET", "maxmemory", 1)
    assert "maxmemory" in await failure(lambda: store.put(OTHER))
    await store.delete(ApiKeyKey("key"))
    await on_redis.model.until(lambda: not knows(on_redis, KEY))
    await redis_server.run("CONFIG", "SET", "maxmemory", 0)
    await store.put(OTHER)


async def test_a_master_that_becomes_a_replica_is_written_to_when_it_is_a_master_again(
    on_redis: Followed, redis_server: RedisServer
) -> None:
    store = on_redis.store
    async with running_redis_server() as other:
        await redis_server.run("REPLICAOF", "127.0.0.1", other.port)
        assert await failure(lambda: store.put(KEY))
        await until(lambda: failure(lambda: store.put(KEY)), lambda why: "is a replica" in why)
        await redis_server.run("REPLICAOF", "NO", "ONE")
        await until(lambda: failure(lambda: store.put(KEY)), lambda why: not why)
        await on_redis.model.until(lambda: knows(on_redis, KEY))


async def test_what_a_login_may_not_do_is_told_and_the_rest_goes_on() -> None:
    rules = [
        "user default on nopass ~* &* +@all",
        "user reader on >secret ~{gateway_*}:* +@read +@connection -@write",
    ]
    async with running_redis_server(acl=rules) as server, opened(server.url) as owner:
        await owner.put(KEY)
        async with opened(server.url, user="reader", password="secret") as reader:
            assert "no permissions" in await failure(lambda: reader.put(OTHER))
            assert await reader.get_key("key") is not None
        refused = make_store(RedisStoreOptions((server.url,), user="reader", password="wrong"))
        assert "invalid username-password" in await failure(lambda: refused.open(0.3))


async def test_the_login_that_the_manual_names_is_enough() -> None:
    manual = (Path(__file__).parents[4] / "docs" / "operations.md").read_text()
    keys, commands = re.search(
        r"needs the keys `(\S+)` .* and the commands `([^`]+)`", manual, re.DOTALL
    ).groups()
    rules = ["user default off", f"user gateway on >secret ~{keys} {' '.join(commands.split())}"]
    login = ("gateway", "secret")
    async with running_redis_server(acl=rules, login=login) as server:
        async with following(server.url) as followed:
            await followed.store.prepare()
            await followed.store.put(KEY)
            await followed.model.until(lambda: knows(followed, KEY))
            assert await followed.store.latest_revision(KEYS, "key") == 0
            assert await followed.store.deleted_version("none") is None
            await followed.store.shared_numbers(60).replace("a", b"1", 0)
            await followed.store.delete(ApiKeyKey("key"))
            await followed.model.until(lambda: not knows(followed, KEY))


async def test_a_server_that_still_loads_its_data_is_waited_for() -> None:
    slow = ["--key-load-delay", "300", "--loading-process-events-interval-bytes", "1024"]
    async with running_redis_server(args=slow) as server:
        async with opened(server.url) as store:
            await store.put(KEY)
            async with server.client() as client, client.pipeline() as pipeline:
                for number in range(3000):
                    pipeline.set(f"filler-{number}", "x" * 500)
                await pipeline.execute()
            await server.run("SAVE")
            await server.kill()
        starting = spawn(server.start(), "start")
        async with opened(server.url) as store:
            assert await store.get_key("key") is not None
        await starting


async def test_a_server_that_may_lose_the_store_is_warned_of(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(redis_server.url) as store:
        await store.prepare()
        await redis_server.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        await store.prepare()
        await redis_server.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await redis_server.run("CONFIG", "SET", "appendonly", "yes")
        await store.prepare()
        async with running_redis_server(args=["--replicaof", f"127.0.0.1 {redis_server.port}"]):
            await until(lambda: redis_server.info("replication"), lambda i: i["connected_slaves"])
            await store.prepare()
            await redis_server.run("CONFIG", "SET", "min-replicas-to-write", 1)
            await store.prepare()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == [
        "store.not_durable",
        "store.may_be_evicted",
        "store.not_durable",
        "store.not_replicated",
    ]


async def test_a_cluster_is_followed_and_written_to_while_its_slots_move() -> None:
    cluster = RedisCluster()
    try:
        await cluster.start()
        async with following(*cluster.urls) as followed:
            await followed.store.put(KEY)
            await followed.model.until(lambda: knows(followed, KEY))
            slot = await cluster.nodes[0].run("CLUSTER", "KEYSLOT", f"{TAG}:documents")
            owner = await cluster.owner(slot)
            target = next(node for node in cluster.nodes if node is not owner)
            await cluster.move_slot(slot, target)
            await until(lambda: failure(lambda: followed.store.put(OTHER)), lambda why: not why)
            await followed.model.until(lambda: knows(followed, OTHER))
            await followed.store.revoke_key("key")
            await followed.model.until(lambda: not knows(followed, KEY))
    finally:
        await cluster.close()


async def test_after_a_failover_the_new_master_is_followed_and_written_to() -> None:
    servers = SentinelSet()
    try:
        await servers.start()
        async with following(*servers.urls, sentinel_master=servers.name) as followed:
            store = followed.store
            await store.put(KEY)
            await until(lambda: servers.replica.run("HLEN", f"{TAG}:documents"))
            await servers.master.kill()
            await until(
                lambda: failure(lambda: store.put(OTHER)), lambda why: not why, timeout_s=20
            )
            await followed.model.until(lambda: knows(followed, OTHER))
            assert knows(followed, KEY)
            await store.revoke_key("key")
            await followed.model.until(lambda: not knows(followed, KEY))
    finally:
        await servers.close()


async def test_a_server_with_tls_is_verified(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with running_redis_server("redis7", tls=authority) as server:
        async with opened(server.url, ca_file=authority.file) as store:
            await store.put_raw(KEYS, "x", b"{}")
        unverified: Store = make_store(RedisStoreOptions((server.url,)))
        assert "CERTIFICATE_VERIFY_FAILED" in await failure(lambda: unverified.open(0.3))


async def test_addresses_that_cannot_work_are_told_at_once() -> None:
    store = make_store(RedisStoreOptions(("http://127.0.0.1:1",)))
    async with asyncio.timeout(PATIENCE_S):
        assert "redis://" in await failure(store.open)
        store = make_store(RedisStoreOptions(("redis://127.0.0.1:1/3",)))
        assert "only database 0" in await failure(store.open)


async def test_a_sentinel_in_place_of_a_server_is_told() -> None:
    servers = SentinelSet()
    try:
        await servers.start()
        store = make_store(RedisStoreOptions(servers.urls, "test"))
        assert "is a Sentinel" in await failure(lambda: store.open(0.5))
        await store.close()
    finally:
        await servers.close()


@pytest.mark.timeout(120)
async def test_a_master_that_the_sentinels_have_replaced_is_left_though_it_still_responds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    servers = SentinelSet()
    try:
        await servers.start()
        async with following(*servers.urls, sentinel_master=servers.name) as followed:
            await followed.store.put(KEY)
            await followed.model.until(lambda: knows(followed, KEY))
            await servers.fail_over()
            # When the machine's clock is set, Sentinels do nothing for half a minute (TILT).
            await until(servers.current, lambda master: master is servers.replica, timeout_s=60.0)
            async with opened(servers.replica.url) as writer:
                await writer.revoke_key("key")
            await followed.model.until(lambda: not knows(followed, KEY))
    finally:
        await servers.close()
    # By itself it ends its connections after ten seconds.
    left = [vars(r)["fields"] for r in caplog.records if r.getMessage() == "store.disconnected"]
    assert [fields["error"] for fields in left] == [
        f"127.0.0.1:{servers.replica.port} is the master now"
    ]
