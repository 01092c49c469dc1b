"""What becomes of calls while a server refuses commands."""

import asyncio
from collections.abc import Iterator

import pytest

from queueing.publishes import PublishStatus
from queueing.redis.errors import NoResponse
from queueing.redis.link import Link
from queueing.redis.queue import QueueLimits
from tests.integration.queueing.redis.harness import (
    PATIENT,
    Calls,
    connected,
    gateway,
    keys,
    options,
    publish,
    publish_many,
    registered,
    worker,
)
from tests.support.queue_harness import Client, new_request, new_version
from tests.support.redis_server import RedisServer, available_servers, running_redis_server
from tests.support.waiting import until


@pytest.fixture(scope="module", params=available_servers())
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """One server of each kind, with an administrator and a user without rights."""
    found = RedisServer(request.param, ["--busy-reply-threshold", "100"])
    try:
        found.start_blocking()
        yield found
    finally:
        found.close_blocking()


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
        leased, *_ = await publish_many(queue, version, 5)
        (lease,) = await work.has(1)
        await server.run("CONFIG", "SET", "maxmemory", "1")
        try:
            _, refused = await publish(queue, version)
            assert refused.entries == [("publish_failed", "QueueFull")]
            requests = [request for request in queue._requests if request != leased]
            queue.withdraw(version, requests.pop())
            await until(lambda: queue.depth(version), lambda depth: depth == 3)
            lease.ack()
            work.pull.want(1)
            lease = (await work.has(2))[1]
            lease.in_progress()
            lease.nak()
            work.pull.want(1)
            assert (await work.has(3))[2].request_id == lease.request_id
            # A worker and a gateway that come meanwhile can work too.
            async with worker(target, version, 2) as late, gateway(target) as other:
                await late.has(2)
                assert await other.depth(version) == 0
        finally:
            await server.run("CONFIG", "SET", "maxmemory", "0")
