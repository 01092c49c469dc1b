"""What a worker's login is good for, asked of real servers, and what it is not."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from queueing.redis.accounts import RedisWorkerCredentials, WorkerUsers, read_login
from queueing.redis.addresses import parse_server
from queueing.redis.admin import RedisAdmin
from queueing.redis.connection import RedisConnection
from queueing.redis.errors import LoginRefused, RedisError
from queueing.redis.keys import QueueKeys
from queueing.redis.link import Link, RedisOptions, open_link
from queueing.redis.queue import RedisQueue
from queueing.redis.scripts import GATEWAY, WORKER, script
from queueing.redis.settings import WorkerRedisSettings
from queueing.redis.worker import RedisWorkerBroker
from runtime.metrics import MetricRegistry
from tests.support.queue_harness import (
    REGION,
    Client,
    Diary,
    Worker,
    new_request,
    new_version,
)
from tests.support.redis_server import KINDS, RedisServer, running_redis_server
from tests.support.redis_topologies import RedisCluster, SentinelSet
from tests.support.waiting import PATIENCE_S, until

PASSWORD = "secret-of-the-gateway"
REQUIRED = ("--requirepass", PASSWORD)
"""One password for everybody and no file of users."""
HOUR_S = 3600.0
LEASE_S = 30.0
"""What comes again within a test was given back, it did not time out."""


class Platform:
    """A gateway's side: its queue, and the logins that it issues."""

    def __init__(self, connection: RedisConnection) -> None:
        self.connection = connection
        self.queue = RedisQueue(connection, region=REGION, lease_s=LEASE_S)
        self.admin = RedisAdmin(connection, REGION, LEASE_S)
        self.now = time.time()
        self.deployed: set[str] = set()
        urls = tuple(f"redis://{server}" for server in connection.options.servers)
        self.credentials = RedisWorkerCredentials(
            connection, WorkerUsers(PASSWORD, REGION), urls, lambda: self.now
        )

    async def login(self, version_id: str, lifetime_s: float = HOUR_S) -> object:
        """Deploy a version, and return a login for its workers."""
        self.deployed.add(version_id)
        await self.admin.ensure(version_id)
        document = await self.credentials.issue(version_id, "d", "i", self.now + lifetime_s)
        login = read_login(document)
        assert login is not None
        return login

    async def remove(self, version_id: str) -> None:
        self.deployed.discard(version_id)
        await self.credentials.remove([version_id])

    def publish(self, version_id: str, envelope: bytes = b"{}") -> str:
        request_id = new_request()
        self.queue.publish(version_id, request_id, envelope, Client(), b"")
        return request_id


@asynccontextmanager
async def platform(*urls: str, sentinel_master: str = "") -> AsyncIterator[Platform]:
    """Run a gateway's side with the login in ``urls``, or with `PASSWORD`."""
    options = RedisOptions(
        tuple(map(parse_server, urls)),
        sentinel_master=sentinel_master,
        password=PASSWORD,
        scripts=GATEWAY + WORKER,
    )
    connection = RedisConnection(options)
    connection.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await connection.wait_connected()
        gateway = Platform(connection)
        await gateway.queue.start()
        gateway.credentials.start(lambda: gateway.deployed)
        try:
            yield gateway
        finally:
            await gateway.credentials.close()
            await gateway.queue.close()
    finally:
        await connection.close()


class Told(Diary):
    """A `queueing.interface.LoginListener`."""

    def connected(self) -> None:
        self.write("connected")

    def disconnected(self) -> None:
        self.write("disconnected")

    def refused(self) -> None:
        self.write("refused")


class LoggedIn(Worker):
    """A worker with a login of the platform; ``told`` has what became of its connection."""

    def __init__(self, version_id: str, login: object) -> None:
        super().__init__()
        self.login = login
        self.told = Told()
        settings = WorkerRedisSettings(urls=("redis://127.0.0.1:1",))
        self.broker = RedisWorkerBroker(
            settings, version_id, "i1", MetricRegistry(), lambda: self.login
        )
        self.broker.add_listener(self.told)
        self.pull = self.broker.consumer(REGION, self.leased, self.cancel)


@asynccontextmanager
async def working(version_id: str, login: object, slots: int = 4) -> AsyncIterator[LoggedIn]:
    worker = LoggedIn(version_id, login)
    worker.broker.start()
    worker.pull.start()
    worker.pull.want(slots)
    try:
        await until(worker.pull.is_bound)
        yield worker
    finally:
        await worker.pull.close()
        await worker.broker.close()


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[RedisServer]:
    args = (*REQUIRED, "--enable-debug-command", "yes")
    async with running_redis_server(request.param, args, login=("", PASSWORD)) as server:
        yield server


async def test_a_worker_leases_renews_gives_back_acknowledges_and_hears_cancels(
    server: RedisServer,
) -> None:
    version_id = new_version()
    async with platform(server.url) as gateway:
        login = await gateway.login(version_id)
        waited = gateway.publish(version_id, b"waited")
        async with working(version_id, login) as worker:
            await worker.has(1)
            pushed = gateway.publish(version_id, b"pushed")
            long = gateway.publish(version_id, bytes(30_000))
            leases = await worker.has(3)
            assert {(one.request_id, len(one.envelope)) for one in leases} == {
                (waited, 6),
                (pushed, 6),
                (long, 30_000),
            }
            leases[0].nak()
            leases[1].nak(0.01)
            leases[2].in_progress()
            worker.pull.want(4)
            again = await worker.has(5)
            assert {one.request_id for one in again[3:]} == {waited, leases[1].request_id}
            for lease in again[2:]:
                lease.ack()
            keys = QueueKeys.of(REGION, version_id)
            link = gateway.connection.link(keys.slot)
            assert link is not None

            async def leased() -> int:
                return int((await link.call_frame(keys.frame(link, "state")))[5])

            await until(leased, lambda count: count == 0)
            gateway.queue.withdraw(version_id, pushed)
            await worker.until(lambda: worker.cancelled == [pushed])
            assert worker.told.entries == [("connected",)]


def out_of_reach(version_id: str, other: str) -> Iterable[tuple[bytes, ...]]:
    """Yield commands that a worker may not use; ``other`` is another tenant's version."""
    own, foreign = QueueKeys.of(REGION, version_id), QueueKeys.of(REGION, other)
    yield from (
        (b"HGETALL", own.key),
        (b"KEYS", b"*"),
        (b"SCAN", b"0"),
        (b"RANDOMKEY",),
        (b"DBSIZE",),
        (b"DEL", own.key),
        (b"FLUSHALL",),
        (b"FLUSHDB",),
        (b"SWAPDB", b"0", b"1"),
        (b"SELECT", b"1"),
        (b"CONFIG", b"GET", b"*"),
        (b"CONFIG", b"SET", b"maxmemory", b"1"),
        (b"ACL", b"LIST"),
        (b"ACL", b"SETUSER", b"me", b"on", b"nopass", b"~*", b"+@all"),
        (b"ACL", b"WHOAMI"),
        (b"DEBUG", b"SLEEP", b"0"),
        (b"SHUTDOWN", b"NOSAVE"),
        (b"REPLICAOF", b"127.0.0.1", b"1"),
        (b"CLUSTER", b"RESET"),
        (b"MONITOR",),
        (b"CLIENT", b"LIST"),
        (b"CLIENT", b"KILL", b"TYPE", b"normal"),
        (b"SLOWLOG", b"GET"),
        (b"MODULE", b"LIST"),
        (b"MIGRATE", b"127.0.0.1", b"1", own.key, b"0", b"1"),
        (b"EVAL", b"return 1", b"0"),
        (b"SCRIPT", b"LOAD", b"while true do end"),
        (b"SCRIPT", b"FLUSH"),
        (b"SCRIPT", b"KILL"),
        (b"FUNCTION", b"LIST"),
        (b"FCALL", b"f", b"0"),
        (b"PUBLISH", own.cancel_channel, b"x"),
        (b"SUBSCRIBE", own.cancel_channel),
        (b"PSUBSCRIBE", b"*"),
        (b"PUBSUB", b"SHARDCHANNELS"),
    )
    for key in (
        foreign.key,
        foreign.key + b":e",
        own.key + b"x",
        b"bus:{gateway}",
        b"{gateway_keys}",
        b"*",
    ):
        yield (b"HGET", key, b"x")
        yield (b"HSET", key, b"x", b"y")
        yield (b"EVALSHA", script("work").digest, b"1", key, b"w", b"1", b"4")
        yield (b"EVALSHA", script("remove").digest, b"1", key)
    for channel in (foreign.cancel_channel, b"bus:{gateway}:nvcf.ended.x", b"*"):
        yield (b"SSUBSCRIBE", channel)
        yield (b"SPUBLISH", channel, b"x")
        # A script runs with the rights of its caller, whoever loaded it.
        yield (b"EVALSHA", script("send").digest, b"1", own.key, channel, channel, b"x")
    # One that names its own queue first, and then reaches for another.
    yield (b"EVALSHA", script("purge").digest, b"2", foreign.key, own.key)


async def test_everything_else_is_refused(server: RedisServer) -> None:
    version_id, other = new_version(), new_version()
    async with platform(server.url) as gateway:
        login = await gateway.login(version_id)
        request_id = gateway.publish(other)
        await until(lambda: gateway.queue.sequence_of(request_id))
        link = await linked(server, login)
        done = []
        for command in out_of_reach(version_id, other):
            try:
                done.append((command, await link.call(*command)))
            except RedisError as error:
                assert not link.is_lost, command
                text = str(error)
                assert text.startswith("NOPERM") or "ACL failure" in text or "can't" in text, (
                    command,
                    text,
                )
        assert done == []
        assert await gateway.queue.position(other, request_id) == 1
        link.close("done")


async def linked(server: RedisServer, login: object) -> Link:
    """Return a link with a worker's login."""
    address = parse_server(f"redis://127.0.0.1:{server.port}")
    user, password = login.user, login.password  # type: ignore[attr-defined]
    return await open_link(address, RedisOptions((address,)), login=(user, password))


async def test_a_worker_that_asks_for_too_much_does_not_stop_the_server(
    server: RedisServer,
) -> None:
    version_id = new_version()
    keys = QueueKeys.of(REGION, version_id)
    async with platform(server.url) as gateway:
        link = await linked(server, await gateway.login(version_id))
        for count in (b"1e12", b"inf", b"-5"):
            await link.call_frame(keys.frame(link, "work", b"me", count, b"3.75"), PATIENCE_S)
        await link.call_frame(keys.frame(link, "unregister", b"me"), PATIENCE_S)
        link.close("done")


async def test_a_refreshed_login_ends_no_connection_and_old_ones_end(
    server: RedisServer,
) -> None:
    version_id = new_version()
    async with platform(server.url) as gateway:
        old = await gateway.login(version_id)
        async with working(version_id, old) as worker:
            gateway.now += 30 * HOUR_S
            new = worker.login = await gateway.login(version_id)
            assert new != old
            assert await worker.broker.renew()
            with pytest.raises(LoginRefused):
                await linked(server, old)
            gateway.publish(version_id)
            for lease in await worker.has(1):
                lease.ack()
            assert worker.told.entries == [("connected",)]
            (await linked(server, new)).close("done")


async def test_users_end_with_their_deployment_and_so_do_their_connections(
    server: RedisServer,
) -> None:
    version_id, other = new_version(), new_version()
    async with platform(server.url) as gateway:
        login = await gateway.login(version_id)
        async with (
            working(other, await gateway.login(other)) as untouched,
            working(version_id, login) as worker,
        ):
            await gateway.remove(version_id)
            await worker.told.until(lambda: ("disconnected",) in worker.told.entries)
            await worker.told.until(lambda: ("refused",) in worker.told.entries)
            with pytest.raises(LoginRefused):
                await linked(server, login)
            assert untouched.told.entries == [("connected",)]
            # The same version is deployed again.
            worker.login = await gateway.login(version_id)
            gateway.publish(version_id)
            await worker.has(1)


FILE = ("user default off", f"user gateway on >{PASSWORD} ~* &* +@all")


@pytest.mark.parametrize("has_file", [False, True], ids=["without a file", "with a file of users"])
async def test_users_are_made_again_at_a_server_that_was_restarted(has_file: bool) -> None:
    version_id, removed = new_version(), new_version()
    options: dict[str, object] = {"args": REQUIRED, "login": ("", PASSWORD)}
    if has_file:
        options = {"acl": FILE, "login": ("gateway", PASSWORD)}
    async with (
        running_redis_server("valkey", **options) as server,
        platform(server.url) as gateway,
    ):
        gone = await gateway.login(removed)
        await gateway.remove(removed)
        async with working(version_id, await gateway.login(version_id)) as worker:
            await server.kill()
            await server.start()
            await worker.told.until(lambda: worker.told.entries.count(("connected",)) == 2)
            gateway.publish(version_id)
            await worker.has(1)
            with pytest.raises(LoginRefused):
                await linked(server, gone)


async def test_a_worker_that_is_refused_asks_for_another_login() -> None:
    """As after ACL LOAD, of which the gateways hear nothing."""
    version_id = new_version()
    async with (
        running_redis_server("valkey", REQUIRED, login=("", PASSWORD)) as server,
        platform(server.url) as gateway,
        working(version_id, await gateway.login(version_id)) as worker,
    ):
        await server.run("ACL", "DELUSER", f"worker.{REGION}.{version_id}")
        await worker.told.until(lambda: ("refused",) in worker.told.entries)
        worker.login = await gateway.login(version_id)
        await worker.told.until(lambda: worker.told.entries.count(("connected",)) == 2)
        gateway.publish(version_id)
        await worker.has(1)


async def test_without_the_right_to_make_users_workers_get_no_login_from_the_gateway() -> None:
    limited = ("user default off", "user gateway on >secret ~* &* +@all -acl")
    async with (
        running_redis_server("valkey", acl=limited, login=("gateway", "secret")) as server,
        platform(server.url) as gateway,
    ):
        assert await gateway.credentials.issue(new_version(), "d", "i", time.time()) == {}
        await gateway.credentials.remove([new_version()])


async def test_a_replica_that_becomes_the_master_gets_the_users() -> None:
    version_id = new_version()
    sentinels = SentinelSet(args=(*REQUIRED, "--masterauth", PASSWORD))
    for server in sentinels.servers:
        server.login = ("", PASSWORD)
    for sentinel in sentinels.sentinels:
        with sentinel.config.open("a") as config:
            config.write(f'sentinel auth-pass {sentinels.name} "{PASSWORD}"\n')
    try:
        await sentinels.start()
        async with (
            platform(*sentinels.urls, sentinel_master=sentinels.name) as gateway,
            working(version_id, await gateway.login(version_id)) as worker,
        ):
            await sentinels.master.kill()
            await worker.told.until(lambda: worker.told.entries.count(("connected",)) == 2)
            gateway.publish(version_id)
            await worker.has(1)
    finally:
        await sentinels.close()


async def test_users_are_known_where_a_slot_has_moved() -> None:
    version_id = new_version()
    # Nodes move keys without a login: so the default user has none.
    cluster = RedisCluster(args=("--user", "gateway", "on", f">{PASSWORD}", "~*", "&*", "+@all"))
    try:
        await cluster.start()
        login = f"redis://gateway:{PASSWORD}@127.0.0.1"
        async with platform(*(f"{login}:{node.port}" for node in cluster.nodes)) as gateway:
            slot = QueueKeys.of(REGION, version_id).slot
            owner = await cluster.owner(slot)
            target = next(node for node in cluster.nodes if node is not owner)
            async with working(version_id, await gateway.login(version_id)) as worker:
                gateway.publish(version_id)
                await worker.has(1)
                await cluster.move_slot(slot, target)
                gateway.publish(version_id)
                await worker.has(2)
                assert worker.told.entries == [("connected",)]
    finally:
        await cluster.close()
