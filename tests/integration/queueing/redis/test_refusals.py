"""What becomes of calls while a server refuses commands."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import ResponseError

from queueing.publishes import PublishStatus
from queueing.redis.addresses import parse_server
from queueing.redis.errors import LoginRefused, NoResponse
from queueing.redis.link import open_link
from tests.integration.queueing.redis.harness import (
    Calls,
    GatewayQueue,
    connected,
    gateway,
    options,
    publish,
    publish_many,
    worker,
)
from tests.support.queue_harness import new_version
from tests.support.redis_server import RedisServer, available_servers, running_redis_server
from tests.support.waiting import until
from wire.subjects import stream_name

BUSY_S = 0.05


@pytest.fixture(scope="module", params=available_servers())
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """One server of each kind; a script is slow after `BUSY_S`."""
    found = RedisServer(request.param, ["--busy-reply-threshold", str(int(BUSY_S * 1000))])
    try:
        found.start_blocking()
        yield found
    finally:
        found.close_blocking()


@asynccontextmanager
async def refusing(server: RedisServer, setting: str, value: str) -> AsyncIterator[None]:
    """Give a setting that is usually 0 another value for the length of the block."""
    await server.run("CONFIG", "SET", setting, value)
    try:
        yield
    finally:
        await server.run("CONFIG", "SET", setting, "0")


async def test_calls_go_on_while_the_scripts_are_flushed(server: RedisServer) -> None:
    target, version = options(server.url), new_version()
    async with gateway(target) as queue, connected(target) as admin:
        calls = Calls(queue, version, run_s=0.001)
        async with calls.worker(target, 16), calls.worker(target, 16):
            for _ in range(20):
                calls.call(50)
                await admin.links[0].call(b"SCRIPT", b"FLUSH")
                await until(lambda: len(calls.undecided()) < 100)
            await calls.decided()
            await calls.idle()
        assert (calls.failed, max(calls.runs.values())) == ({}, 1)


async def test_a_server_without_memory_refuses_and_is_emptied(server: RedisServer) -> None:
    target, version = options(server.url), new_version()
    async with gateway(target) as queue, worker(target, version) as work:
        leased, waits, gone, *_ = await publish_many(queue, version, 5)
        (lease,) = await work.has(1)
        assert lease.request_id == leased
        async with refusing(server, "maxmemory", "1"):
            _, refused = await publish(queue, version)
            assert refused.entries == [("publish_failed", "QueueFull")]
            queue.withdraw(version, gone)
            await until(lambda: queue.depth(version), lambda depth: depth == 3)
            lease.ack()
            work.pull.want(1)
            second = (await work.has(2))[1]
            assert second.request_id == waits
            second.in_progress()
            second.nak()
            work.pull.want(1)
            assert (await work.has(3))[2].request_id == waits
            # A worker and a gateway that come meanwhile can work too.
            async with worker(target, version, 2) as late, gateway(target) as other:
                await late.has(2)
                assert await other.depth(version) == 0


async def test_calls_wait_while_writes_are_refused_for_a_moment(server: RedisServer) -> None:
    target, version = options(server.url), new_version()
    async with gateway(target) as queue:
        calls = Calls(queue, version, run_s=0.001)
        async with calls.worker(target, 8), calls.worker(target, 8):
            for _ in range(5):
                calls.call(50)
                async with refusing(server, "min-replicas-to-write", "1"):
                    calls.call(20)
                    await until(lambda: queue.connection.last_error, lambda e: "NOREPLICAS" in e)
                await until(lambda: len(calls.undecided()) < 20)
            await calls.decided()
            await calls.idle()
        assert (calls.failed, max(calls.runs.values())) == ({}, 1)


async def test_calls_wait_for_the_end_of_a_slow_script_of_others(server: RedisServer) -> None:
    target, version = options(server.url), new_version()
    async with gateway(target) as queue, server.client() as other:
        calls = Calls(queue, version)
        async with calls.worker(target, 8):
            calls.call(50)
            await until(lambda: len(calls.undecided()) < 25)
            slow = asyncio.ensure_future(other.eval("while true do end", 0))  # noqa: TID251
            calls.call(50)
            await until(lambda: queue.connection.last_error, lambda error: "BUSY" in error)
            calls.call(50)
            await server.run("SCRIPT", "KILL")
            with pytest.raises(ResponseError):
                await slow
            await calls.decided()
            await calls.idle()
        assert (calls.failed, max(calls.runs.values())) == ({}, 1)


async def test_a_login_without_rights_is_told_so(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    version = new_version()
    rights = [">secret", "on", "~*", "&*", "+@all", "-evalsha"]
    await server.run("ACL", "SETUSER", "reader", *rights)
    target = options(server.url.replace("//", "//reader:secret@"))
    await server.run("ACL", "SETUSER", "reader", "+evalsha")
    async with gateway(target) as queue:
        await publish(queue, version)
        await server.run("ACL", "SETUSER", "reader", "resetkeys", "~other")
        _, client = await publish(queue, version)
        assert client.entries == [("publish_failed", "QueueUnavailable")]
        assert counted(queue, version) == {PublishStatus.OK: 1.0, PublishStatus.DENIED: 1.0}
        assert "queue.denied" in [record.message for record in caplog.records]
        # Keys are no right of the whole: inside a script the word is another one.
        await server.run("ACL", "SETUSER", "reader", "~*", "-hset")
        _, client = await publish(queue, version)
        assert counted(queue, version)[PublishStatus.DENIED] == 2.0
        await server.run("ACL", "SETUSER", "reader", "+hset")
        _, client = await publish(queue, version)
        assert client.entries == []


def counted(queue: GatewayQueue, version_id: str) -> dict[str, float]:
    """Return the completed publishes to a version's queue, by status, without zeros."""
    found = {}
    for status in PublishStatus:
        value = queue.publishes.child(stream_name("test", version_id), status).value
        if value:
            found[status] = value
    return found


async def test_a_call_that_was_given_up_leaves_no_reply_to_the_next(server: RedisServer) -> None:
    async with connected(options(server.url)) as connection:
        (link,) = connection.links
        with pytest.raises(NoResponse):
            await link.call(b"BLPOP", b"nothing", b"0.1", timeout_s=0.01)
        given_up = asyncio.ensure_future(link.call(b"ECHO", b"first"))  # noqa: TID251
        next_one = asyncio.ensure_future(link.call(b"ECHO", b"next"))  # noqa: TID251
        await asyncio.wait([given_up], timeout=0)
        given_up.cancel()
        assert await next_one == b"next"


async def test_a_server_that_loads_its_data_is_waited_for() -> None:
    version = new_version()
    async with running_redis_server(aof=True) as server, gateway(options(server.url)) as queue:
        requests = await publish_many(queue, version, 100)
        async with server.client() as client:
            await client.eval("for i = 1, 20000 do redis.call('SET', i, i) end", 0)
        await server.kill()
        # In microseconds. It looks at its sockets after each 1,024 commands.
        server.args += ["--key-load-delay", "50"]
        starting = asyncio.ensure_future(server.start())  # noqa: TID251
        await until(lambda: queue.connection.last_error, lambda error: "LOADING" in error)
        await starting
        await until(lambda: queue.depth(version), lambda depth: depth == 100)
        assert await queue.position(version, requests[-1]) == 100


async def test_a_master_that_became_a_replica_is_left() -> None:
    version = new_version()
    async with running_redis_server() as server:
        replicates = ["--replicaof", f"127.0.0.1 {server.port}"]
        async with running_redis_server("valkey", replicates) as other:
            target = options((server.url, other.url))
            async with gateway(target) as queue:
                calls = Calls(queue, version)
                async with calls.worker(target):
                    calls.call(20)
                    await calls.decided()
                    await other.run("REPLICAOF", "NO", "ONE")
                    await server.run("REPLICAOF", "127.0.0.1", other.port)
                    calls.call(20)
                    await calls.decided()
                    await calls.idle()
                    assert queue.connection.servers == f"127.0.0.1:{other.port}"
                assert calls.failed == {}


async def test_a_user_without_a_password_logs_in() -> None:
    rules = ["user default off", "user own on nopass ~* &* +@all"]
    async with running_redis_server(acl=rules, login=("own", "any")) as server:
        target = options(f"redis://127.0.0.1:{server.port}", user="own")
        async with connected(target) as connection:
            assert await connection.links[0].call(b"ACL", b"WHOAMI") == b"own"


async def test_a_server_that_wants_a_password_is_told_in_short() -> None:
    async with running_redis_server(args=["--requirepass", "word"], login=("", "word")) as server:
        with pytest.raises(LoginRefused, match="NOAUTH the server wants a password"):
            await open_link(parse_server(f"redis://127.0.0.1:{server.port}"), options([]))
