import pytest

from queueing.interface import QueueUnavailable
from queueing.nats.connection import NatsConnection
from queueing.nats.jetstream import StreamSettings
from queueing.nats.queue import JetStreamQueue
from queueing.own_requests import QueueLimits
from tests.support.nats_server import NatsServer
from tests.support.queue_harness import (
    OPTIONS,
    REGION,
    Client,
    connected,
    counted,
    decided,
    gateway,
    new_request,
    new_version,
    publish,
    worker,
)
from tests.support.waiting import until


async def test_a_cancel_that_came_first_keeps_the_request_from_the_worker(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    url = shared_nats_server.url
    async with gateway(url) as queue, worker(url, version, slots=0) as work, connected(url) as raw:
        cancelled, _ = await publish(queue, version)
        raw.publish(f"nvcf.cancel.{version}".encode(), cancelled.encode())
        await work.until(lambda: work.cancelled == [cancelled])
        kept, _ = await publish(queue, version)
        work.pull.want(2)
        await work.has(1)
        assert [lease.request_id for lease in work.leases] == [kept]


async def test_a_silent_peer_delays_a_position_only_so_long(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    url = shared_nats_server.url
    async with (
        gateway(url, limits=QueueLimits(peer_wait_s=0.05)) as queue,
        connected(url) as raw,
    ):
        request, _ = await publish(queue, version)
        raw.publish(f"nvcf.presence.{REGION}".encode(), b"beat somebody 7")
        await raw.flush()
        await queue.depth(version)
        assert queue.known_peers == 1
        assert await queue.position(version, request) == 1
        assert await queue.position(version, request) == 1
        # Twice silent: nobody waits for it any more.
        assert queue.known_peers == 0


async def test_without_a_broker_everything_is_refused_later_and_nothing_raises() -> None:
    connection = NatsConnection(OPTIONS)
    queue = JetStreamQueue(connection, region=REGION, process=1)
    await queue.start()
    client, version = Client(), new_version()
    queue.publish(version, new_request(), b"", client, b"")
    assert client.entries == []
    await client.reaches("publish_failed")
    assert counted(queue, version) == {"Ok": 0, "Unavailable": 1}
    assert not connection.is_connected()
    with pytest.raises(QueueUnavailable):
        await queue.depth(new_version())
    await queue.close()


async def test_an_envelope_larger_than_the_broker_takes_costs_only_itself(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    async with gateway(shared_nats_server.url) as queue:
        _, other = await publish(queue, version)
        _, client = await publish(queue, version, bytes(2 << 20))
        assert client.entries == [("publish_failed", "QueueUnavailable")]
        assert other.entries == [("published",)]
        assert queue.connection.is_connected()


async def test_more_requests_than_the_table_holds_are_refused(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    async with gateway(shared_nats_server.url, limits=QueueLimits(max_requests=1)) as queue:
        first, _ = await publish(queue, version)
        _, second = await publish(queue, version)
        assert second.names == ["publish_failed"]
        queue.answered(first)
        _, third = await publish(queue, version)
        assert third.names == ["published"]


async def test_each_publish_is_counted_once_by_what_came_of_it(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    limits, streams = QueueLimits(max_requests=3), StreamSettings(max_messages=2)
    async with gateway(shared_nats_server.url, limits=limits, streams=streams) as queue:
        await publish(queue, version, bytes(2 << 20))
        first, _ = await publish(queue, version)
        await publish(queue, version)
        await publish(queue, version)
        assert counted(queue, version) == {"Ok": 2, "QueueFull": 1, "TooLarge": 1}
        queue.withdraw(version, first)
        waiting = [new_request() for _ in range(3)]
        clients = [Client() for _ in waiting]
        for request, client in zip(waiting, clients, strict=True):
            queue.publish(version, request, b"envelope", client, b"")
        # The third finds the table full; what is withdrawn undecided is not counted.
        queue.withdraw(version, waiting[1])
        await clients[2].reaches("publish_failed")
        await decided(queue, waiting[0], clients[0])
        assert counted(queue, version)["Overloaded"] == 1
        assert sum(counted(queue, version).values()) == 6


async def test_what_was_counted_stays_when_the_queue_is_forgotten_and_opened_again(
    shared_nats_server: NatsServer,
) -> None:
    version, other = new_version(), new_version()
    async with gateway(shared_nats_server.url, limits=QueueLimits(max_versions=1)) as queue:
        for number in (1, 2):
            request, _ = await publish(queue, version)
            assert counted(queue, version) == {"Ok": number}
            queue.answered(request)
            # Its queue is looked at after it was made, and is not idle before.
            await until(lambda: version in queue.idle_versions())
            request, _ = await publish(queue, other)
            assert queue.open_versions == {other}
            assert counted(queue, version) == {"Ok": number}
            queue.answered(request)
            await until(lambda: other in queue.idle_versions())


async def test_presence_goes_with_the_process(shared_nats_server: NatsServer) -> None:
    url = shared_nats_server.url
    async with gateway(url, process=1) as one:
        async with gateway(url, process=2) as two:
            await until(lambda: one.known_peers == two.known_peers == 1)
        await until(lambda: one.known_peers == 0)
