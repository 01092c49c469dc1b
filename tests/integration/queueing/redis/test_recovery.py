"""What survives when the server or a connection to it goes away, and what is told to whom."""

import asyncio

import pytest

from tests.integration.queueing.redis.harness import (
    Calls,
    gateway,
    keys,
    options,
    publish,
    publish_many,
    registered,
    worker,
)
from tests.support.cut_proxy import CutProxy, cut_proxy
from tests.support.queue_harness import Client, new_request, new_version
from tests.support.redis_server import RedisServer, redis_server, running_redis_server
from tests.support.waiting import until

__all__ = ["redis_server"]


def behind(proxy: CutProxy, server: RedisServer) -> str:
    """Return the server's URL through the proxy."""
    return server.url.replace("127.0.0.1", "127.0.0.2")


async def end_connections(proxy: CutProxy) -> None:
    open_ones = list(proxy.connections)
    for connection in open_ones:
        connection.cancel()
    await asyncio.gather(*open_ones, return_exceptions=True)


@pytest.mark.parametrize("aof", [True, False])
async def test_calls_outlive_a_server_that_is_killed(aof: bool) -> None:
    version = new_version()
    async with running_redis_server(aof=aof) as server:
        target = options(server.url)
        async with gateway(target) as queue:
            calls = Calls(queue, version)
            async with calls.worker(target), calls.worker(target):
                for _ in range(3):
                    calls.call(200)
                    await until(lambda: len(calls.undecided()) < 100)
                    await server.restart()
                await calls.decided()
                await calls.idle()
            assert calls.failed == {}


async def test_calls_outlive_a_flush(redis_server: RedisServer) -> None:
    target, version = options(redis_server.url), new_version()
    async with gateway(target) as queue:
        calls = Calls(queue, version)
        async with calls.worker(target), calls.worker(target):
            for _ in range(3):
                calls.call(200)
                await until(lambda: len(calls.undecided()) < 100)
                await redis_server.run("FLUSHALL")
            await calls.decided()
            await calls.idle()
        assert calls.failed == {}


async def test_a_paused_server_fails_calls_in_time_and_runs_none_of_them(
    redis_server: RedisServer,
) -> None:
    target, version = options(redis_server.url), new_version()
    async with gateway(target) as queue:
        calls = Calls(queue, version)
        async with calls.worker(target), calls.worker(target):
            calls.call(100)
            await until(lambda: len(calls.undecided()) < 50)
            redis_server.pause()
            loop = asyncio.get_running_loop()
            end = loop.time() + 10.0
            calls.call(20)
            try:
                await until(lambda: loop.time() > end, what="ten seconds")
            finally:
                redis_server.resume()
            await calls.decided()
            await calls.idle()
            assert await queue.depth(version) == 0


async def test_a_request_whose_message_was_lost_comes_with_the_next_connection(
    redis_server: RedisServer,
) -> None:
    version = new_version()
    async with (
        cut_proxy(redis_server.port) as proxy,
        gateway(options(redis_server.url)) as queue,
        worker(options(behind(proxy, redis_server)), version) as work,
    ):
        await queue.connection.call(
            keys(version).slot, lambda link: keys(version).frame(link, "state"), 2.0
        )
        await publish(queue, version)
        (lease,) = await work.has(1)
        lease.ack()
        work.pull.want(1)
        await until(lambda: registered(queue, version), lambda count: count == 1)
        proxy.lose_what_servers_send()
        request, _ = await publish(queue, version)
        await end_connections(proxy)
        again = (await work.has(2))[1]
        assert (again.request_id, again.deliveries) == (request, 2)


async def test_a_publish_without_a_reply_is_not_stored_twice(redis_server: RedisServer) -> None:
    version = new_version()
    direct = options(redis_server.url)
    async with (
        cut_proxy(redis_server.port) as proxy,
        gateway(options(behind(proxy, redis_server))) as queue,
        gateway(direct) as other,
        worker(direct, version, 0) as work,
    ):
        await publish_many(queue, version, 1)
        proxy.lose_what_servers_send()
        waits, leased, done = [new_request() for _ in range(3)]
        for request in (done, leased, waits):
            queue.publish(version, request, b"envelope", Client(), b"")
        await until(lambda: other.depth(version), lambda depth: depth == 4)
        work.pull.want(3)
        await work.has(3)
        assert [lease.request_id for lease in work.leases[1:]] == [done, leased]
        work.leases[1].ack()
        await until(lambda: other.line(version), lambda line: line.leased == 2)
        await end_connections(proxy)
        await until(lambda: queue.sequence_of(waits))
        assert queue.sequence_of(leased)
        line = await other.line(version)
        assert (line.waiting, line.leased) == (1, 2)
