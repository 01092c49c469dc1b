"""Calls while a Cluster moves slots or loses a node, and while Sentinels replace a master."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from queueing.redis.connection import RedisConnection
from tests.integration.queueing.redis.harness import (
    Calls,
    gateway,
    keys,
    options,
    publish,
    publish_many,
    worker,
)
from tests.support.queue_harness import Client, new_request, new_version
from tests.support.redis_server import RedisServer
from tests.support.redis_topologies import RedisCluster, SentinelSet
from tests.support.waiting import until


@pytest.fixture
async def cluster() -> AsyncIterator[RedisCluster]:
    found = RedisCluster()
    try:
        await found.start()
        yield found
    finally:
        await found.close()


async def version_of(cluster: RedisCluster, node: RedisServer) -> str:
    """Return a new version whose queue is on the node."""
    while True:
        version = new_version()
        if await cluster.owner(keys(version).slot) is node:
            return version


async def test_queues_are_spread_over_all_nodes(cluster: RedisCluster) -> None:
    target = options(cluster.urls)
    versions = [await version_of(cluster, node) for node in cluster.nodes for _ in range(2)]
    async with gateway(target) as queue, AsyncExitStack() as stack:
        calls = [Calls(queue, version) for version in versions]
        for each in calls:
            await stack.enter_async_context(each.worker(target))
            each.call(50)
        for each in calls:
            await each.decided()
            await each.idle()
            assert (each.failed, max(each.runs.values())) == ({}, 1)


async def test_calls_go_on_while_their_slot_moves(cluster: RedisCluster) -> None:
    source, target, _ = cluster.nodes
    version = await version_of(cluster, source)
    slot, where = keys(version).slot, options(cluster.urls)
    async with gateway(where) as queue:
        calls = Calls(queue, version)
        async with calls.worker(where), calls.worker(where):
            for to in (target, source, target):
                calls.call(100)
                await until(lambda: len(calls.undecided()) < 50)
                await cluster.begin_move(slot, to)
                calls.call(10)
                while await cluster.move_keys(slot, to, 2):
                    calls.call(1)
                calls.call(10)
                await cluster.finish_move(slot, to)
                calls.call(10)
                await calls.decided()
                await calls.idle()
        assert (calls.failed, max(calls.runs.values())) == ({}, 1)


async def test_calls_go_on_while_their_slot_moves_at_once(cluster: RedisCluster) -> None:
    source, target, _ = cluster.nodes
    version = await version_of(cluster, source)
    slot, where = keys(version).slot, options(cluster.urls)
    async with gateway(where) as queue:
        calls = Calls(queue, version)
        async with calls.worker(where), calls.worker(where):
            calls.call(200)
            await until(lambda: len(calls.undecided()) < 150)
            name = await target.run("CLUSTER", "MYID")
            await source.run("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", name)

            async def is_moved() -> bool:
                calls.call(1)
                return await cluster.owner(slot) is target

            await until(is_moved)
            calls.call(20)
            await calls.decided()
            await calls.idle()
        assert (calls.failed, max(calls.runs.values())) == ({}, 1)


async def test_what_waits_is_withdrawn_and_counted_at_its_new_node(cluster: RedisCluster) -> None:
    source, target, _ = cluster.nodes
    version = await version_of(cluster, source)
    slot, where = keys(version).slot, options(cluster.urls)
    async with gateway(where) as queue:
        first, second = await publish_many(queue, version, 2)
        await cluster.move_slot(slot, target)
        queue.withdraw(version, first)
        await until(lambda: queue.position(version, second), lambda place: place == 1)
        await until(lambda: queue.depth(version), lambda depth: depth == 1)


async def test_a_node_that_dies_takes_only_its_own_queues(cluster: RedisCluster) -> None:
    dead, alive, _ = cluster.nodes
    lost, kept = await version_of(cluster, dead), await version_of(cluster, alive)
    where = options(cluster.urls)
    async with gateway(where) as queue:
        calls = Calls(queue, kept)
        async with calls.worker(where):
            await publish(queue, lost)
            await dead.kill()
            calls.call(50)
            client = Client()
            queue.publish(lost, new_request(), b"", client, b"")
            await client.reaches("publish_failed")
            await calls.decided()
            assert calls.failed == {}
            # A process that starts now works with the others.
            async with gateway(where) as other, worker(where, kept) as late:
                await publish(other, kept)
                async with asyncio.timeout(5):
                    await until(late.pull.is_bound)
            await dead.start()
            _, client = await publish(queue, lost)
            assert client.entries == []


@pytest.fixture
async def sentinels() -> AsyncIterator[SentinelSet]:
    found = SentinelSet()
    try:
        await found.start()
        yield found
    finally:
        await found.close()


@pytest.mark.parametrize("planned", [True, False])
async def test_calls_outlive_a_failover(sentinels: SentinelSet, planned: bool) -> None:
    version = new_version()
    target = options(sentinels.urls, sentinel_master=sentinels.name)
    async with gateway(target) as queue:
        calls = Calls(queue, version)
        async with calls.worker(target), calls.worker(target):
            calls.call(100)
            await until(lambda: len(calls.undecided()) < 50)
            before = await sentinels.current()
            if planned:
                await sentinels.fail_over()
            else:
                await before.kill()
            calls.call(20)

            async def is_over() -> bool:
                calls.call(1)
                return await sentinels.current() is not before

            await until(is_over)
            calls.call(20)
            await calls.decided()
            await until(lambda: queue.connection.servers != f"127.0.0.1:{before.port}")
            calls.call(20)
            await calls.decided()
            await calls.idle()
        assert calls.failed == {}


async def test_a_master_that_hangs_is_left_when_the_sentinels_say_so(
    sentinels: SentinelSet,
) -> None:
    version = new_version()
    # The silence of a link is not noticed.
    target = replace(
        options(sentinels.urls, sentinel_master=sentinels.name), ping_interval_s=3600.0
    )
    async with gateway(target) as queue:
        before = await sentinels.current()
        await until(
            lambda: sentinels.sentinels[0].run("CLIENT", "LIST"),
            lambda found: b" sub=1 " in found,
            what="a subscription at the Sentinel",
        )
        before.pause()
        try:
            await until(lambda: queue.connection.servers not in {"", f"127.0.0.1:{before.port}"})
            _, client = await publish(queue, version)
            assert client.entries == []
        finally:
            before.resume()


async def test_what_a_new_master_does_not_have_is_published_again(
    sentinels: SentinelSet,
) -> None:
    version = new_version()
    target = options(sentinels.urls, sentinel_master=sentinels.name)
    async with gateway(target) as queue:
        kept = await publish_many(queue, version, 1)
        await until(lambda: sentinels.replica.run("EXISTS", keys(version).key + b":w"))
        # The replica cannot come back.
        await sentinels.master.run("ACL", "SETUSER", "default", "-psync", "-sync")
        await sentinels.master.run("CLIENT", "KILL", "TYPE", "replica")
        lost = await publish_many(queue, version, 2)
        await sentinels.master.kill()
        await until(lambda: queue.republished == 2)
        async with worker(target, version, 4) as work:
            await work.has(3)
            assert [lease.request_id for lease in work.leases] == [*kept, *lost]
            # The old master may have leased it, and all are older than the worker.
            assert not any(lease.is_first_known() for lease in work.leases)


async def test_a_sentinel_in_place_of_a_server_is_told_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    servers = SentinelSet()
    try:
        await servers.start()
        connection = RedisConnection(options(servers.urls))
        connection.start()
        await until(lambda: connection.failures, lambda failures: failures >= 3)
        await connection.close()
    finally:
        await servers.close()
    told = [vars(r)["fields"] for r in caplog.records if r.getMessage() == "redis.connect_failed"]
    assert [str(fields["error"]).partition(": a ")[2] for fields in told] == [
        "Sentinel: redis.sentinel_master is not set"
    ]
