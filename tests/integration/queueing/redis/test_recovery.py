"""What survives when the server or a connection to it goes away, and what is told to whom."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueing.own_requests import QueueLimits
from queueing.standstill import boot_clock_s
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
from tests.support.tcp_relay import tcp_relay
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
            assert aof is False or calls.failed == {}
            assert told_of_loss(calls)


def told_of_loss(calls: Calls) -> bool:
    """Whether no call failed but those that were leased, and that no worker had begun."""
    return all("has lost the request" in reason for reason in calls.failed.values())


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
        assert told_of_loss(calls)


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


async def test_a_request_that_is_taken_for_a_lost_link_stays(redis_server: RedisServer) -> None:
    target, version = options(redis_server.url), new_version()
    async with gateway(target) as queue, worker(target, version, 0) as work:
        request, _ = await publish(queue, version)
        await until(work.pull.is_bound)
        # Within one turn of the loop: the worker does not know of it.
        redis_server.run_blocking("CLIENT", "KILL", "TYPE", "pubsub")
        work.pull.want(1)
        assert (await work.has(1))[0].request_id == request


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


async def test_a_worker_that_vanished_swallows_no_more_than_what_it_was_sent(
    redis_server: RedisServer,
) -> None:
    version = new_version()
    limits = QueueLimits(max_runs=3, look_interval_s=0.2)
    direct = options(redis_server.url)
    async with (
        tcp_relay(redis_server.port) as relay,
        gateway(direct, limits, 1.0) as queue,
    ):
        far = options(f"redis://127.0.0.1:{relay.port}")
        async with worker(far, version, 8):
            await publish(queue, version)
            await until(lambda: registered(queue, version), lambda count: count == 7)
            relay.freeze()
            calls = Calls(queue, version)
            async with calls.worker(direct, 1):
                await until(lambda: registered(queue, version), lambda count: count == 8)
                calls.call(3)
                await calls.decided()
                assert calls.failed == {}
            relay.is_frozen = False
            for end in list(relay.ends):
                end.abort()


async def test_a_worker_that_stood_still_drops_what_it_finds(redis_server: RedisServer) -> None:
    version = new_version()
    stood_s = 0.0
    target = options(redis_server.url)
    limits = QueueLimits(look_interval_s=0.2)
    async with (
        gateway(target, limits, 1.0) as queue,
        worker(target, version, 8, boot_clock=lambda: boot_clock_s() + stood_s) as work,
    ):
        await publish(queue, version)
        (first,) = await work.has(1)
        assert not first.is_over()
        await until(lambda: registered(queue, version), lambda count: count == 7)
        # Its message is read when its lease may be over.
        request = new_request()
        queue.publish(version, request, b"envelope", Client(), b"")
        stood_s = 1.0
        assert first.is_over()
        await work.until(lambda: work.leases[-1].request_id == request)
        assert [lease.deliveries for lease in work.leases if lease.request_id == request] == [2]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of two MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


async def test_a_full_disk_refuses_calls_until_there_is_room(small_disk: Path) -> None:
    version = new_version()
    args = ["--appendonly", "yes", "--appendfsync", "everysec"]
    ballast = small_disk / "ballast"
    async with (
        running_redis_server("valkey", args, folder=small_disk) as server,
        gateway(options(server.url)) as queue,
    ):
        target = options(server.url)
        calls = Calls(queue, version)
        async with calls.worker(target):
            calls.call(20)
            await calls.decided()
            free = os.statvfs(small_disk)
            ballast.write_bytes(bytes(free.f_bavail * free.f_frsize))

            async def is_refused() -> bool:
                _, client = await publish(queue, version)
                return client.entries == [("publish_failed", "QueueUnavailable")]

            await until(is_refused)
            assert "MISCONF" in queue.connection.last_error
            ballast.unlink()
            await until(is_refused, lambda refused: not refused)
            calls.call(20)
            await calls.decided()
            await calls.idle()
        assert calls.failed == {}
