import asyncio
from contextlib import AsyncExitStack

import pytest

from queueing.interface import QueueUnavailable
from queueing.nats.connection import Connection
from queueing.nats.jetstream import StreamSettings
from queueing.nats.queue import JetStreamQueue, QueueLimits
from tests.support.nats_server import NatsServer
from tests.support.queue_harness import (
    OPTIONS,
    REGION,
    STREAMS,
    Client,
    connected,
    counted,
    gateway,
    messages_in,
    new_request,
    new_version,
    publish,
    publish_many,
    until_depth,
    until_messages,
    worker,
)
from tests.support.waiting import PATIENCE_S, until


async def test_a_request_goes_through_a_queue_that_did_not_exist(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    url = shared_nats_server.url
    async with gateway(url) as queue, worker(url, version) as work, connected(url) as look:
        request, client = await publish(queue, version, b"\x00\r\nbytes")
        (lease,) = await work.has(1)
        assert client.entries == [("published",)]
        assert (lease.request_id, lease.envelope, lease.deliveries) == (
            request,
            b"\x00\r\nbytes",
            1,
        )
        lease.ack()
        await until_messages(look, version, 0)


async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    url, streams = shared_nats_server.url, StreamSettings(max_messages=2)
    async with gateway(url, streams=streams) as queue, connected(url) as look:
        first, _ = await publish(queue, version)
        await publish(queue, version)
        _, refused = await publish(queue, version)
        assert refused.entries == [("refused", "QueueFull")]
        queue.withdraw(version, first)
        await until_messages(look, version, 1)
        _, taken = await publish(queue, version)
        assert taken.entries == [("published",)]
        assert await messages_in(look, version) == 2


async def test_a_lease_that_runs_out_is_delivered_again(shared_nats_server: NatsServer) -> None:
    version = new_version()
    url = shared_nats_server.url
    async with gateway(url) as queue:
        request, _ = await publish(queue, version)
        async with worker(url, version, slots=2) as work:
            first, second = await work.has(2)
            assert first.request_id == second.request_id == request
            assert (first.deliveries, second.deliveries) == (1, 2)


async def test_progress_keeps_a_lease(shared_nats_server: NatsServer) -> None:
    version = new_version()
    url = shared_nats_server.url
    async with gateway(url) as queue, connected(url) as look:
        await publish(queue, version)
        async with worker(url, version, slots=2) as work:
            (lease,) = await work.has(1)
            until = asyncio.get_running_loop().time() + 2 * STREAMS.ack_wait_s
            while asyncio.get_running_loop().time() < until:
                lease.progress()
                # Any real answer paces the loop.
                await messages_in(look, version)
            assert len(work.leases) == 1


async def test_handed_back_requests_go_to_another_worker_at_once(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    url = shared_nats_server.url
    async with gateway(url, streams=StreamSettings(ack_wait_s=300.0)) as queue:
        request, _ = await publish(queue, version)
        async with worker(url, version) as one:
            (lease,) = await one.has(1)
            await one.pull.drain()
            lease.hand_back()
            async with worker(url, version) as other:
                (again,) = await other.has(1)
                assert (again.request_id, again.deliveries) == (request, 2)


async def test_a_draining_worker_attracts_nothing_more(shared_nats_server: NatsServer) -> None:
    version = new_version()
    url = shared_nats_server.url
    async with gateway(url) as queue, worker(url, version, slots=8) as leaving:
        await publish(queue, version)
        await leaving.has(1)
        await leaving.pull.drain()
        async with worker(url, version, slots=8) as staying:
            await publish_many(queue, version, 5)
            leases = await staying.has(5)
            # A first delivery each: none had been at the leaving worker.
            assert [lease.deliveries for lease in leases[:5]] == [1] * 5
            assert len(leaving.leases) == 1


async def test_a_request_that_every_delivery_failed_is_exhausted_and_gone(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    url = shared_nats_server.url
    streams = StreamSettings(ack_wait_s=1.0, max_deliver=2)
    async with (
        gateway(url, streams=streams) as queue,
        worker(url, version, slots=5) as work,
        connected(url) as look,
    ):
        request, client = await publish(queue, version)
        await client.reaches("exhausted")
        assert [lease.deliveries for lease in work.leases] == [1, 2]
        await until_messages(look, version, 0)
        assert await queue.position(version, request) == 0


async def test_a_rejected_request_is_delivered_to_nobody(shared_nats_server: NatsServer) -> None:
    version = new_version()
    url = shared_nats_server.url
    async with gateway(url) as queue, worker(url, version) as work, connected(url) as look:
        await publish(queue, version)
        (lease,) = await work.has(1)
        lease.reject()
        lease.hand_back()
        await until_messages(look, version, 0)
        assert work.leases == [lease]


async def test_a_withdrawn_request_is_never_leased_and_workers_hear_of_it(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    url = shared_nats_server.url
    async with gateway(url) as queue, worker(url, version, slots=0) as work:
        gone, client = await publish(queue, version)
        stays, _ = await publish(queue, version)
        queue.withdraw(version, gone)
        await work.until(lambda: work.cancelled == [gone])
        work.pull.want(2)
        await work.has(1)
        assert [lease.request_id for lease in work.leases] == [stays]
        assert client.entries == [("published",)]
        await until_depth(queue, version, 0)


async def test_a_request_withdrawn_before_its_acknowledgement_leaves_the_queue(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    url = shared_nats_server.url
    async with gateway(url) as queue, connected(url) as look:
        await publish(queue, version)
        request, client = new_request(), Client()
        queue.publish(version, request, b"envelope", client, b"")
        queue.withdraw(version, request)
        last, _ = await publish(queue, version)
        await until_messages(look, version, 2)
        assert client.entries == []
        assert await queue.position(version, last) == 2


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


async def test_positions_are_exact_over_two_gateways_and_after_cancellations(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    url = shared_nats_server.url
    limits = QueueLimits(peer_wait_s=PATIENCE_S)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(gateway(url, process=1, limits=limits))
        two = await stack.enter_async_context(gateway(url, process=2, limits=limits))
        line: list[tuple[str, JetStreamQueue]] = []
        for _ in range(15):
            line += [(request, one) for request in await publish_many(one, version, 60, 1)]
            line += [(request, two) for request in await publish_many(two, version, 40, 2)]

        async def position(index: int, of: JetStreamQueue | None = None) -> int:
            request, queue = line[index]
            return await (of or queue).position(version, request)

        assert [await position(i) for i in (0, 499, 999, 1499)] == [1, 500, 1000, 1500]
        # Asked at the process that does not hold it.
        assert await position(499, one) == await position(499, two) == 500

        for index in range(10, 410):
            request, queue = line[index]
            queue.withdraw(version, request)
        assert [await position(i) for i in (0, 9, 410, 1499)] == [1, 10, 11, 1100]

        async with worker(url, version, slots=4) as work:
            await work.has(4)
            assert [await position(i) for i in (0, 3, 4, 1499)] == [0, 0, 1, 1096]
            for lease in work.leases[:2]:
                (one if lease.request_id == line[0][0] else line[1][1]).settled(lease.request_id)
                lease.ack()
            assert [await position(i) for i in (0, 4, 1499)] == [0, 1, 1096]
        await until_depth(one, version, 1096)


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
        assert queue._standing.peers.known() == 1
        assert await queue.position(version, request) == 1
        assert await queue.position(version, request) == 1
        # Twice silent: nobody waits for it any more.
        assert queue._standing.peers.known() == 0


async def test_a_repeated_publish_is_taken_once(shared_nats_server: NatsServer) -> None:
    version = new_version()
    url = shared_nats_server.url
    async with gateway(url) as queue, gateway(url) as same, connected(url) as look:
        request, first = await publish(queue, version)
        again = Client()
        same.publish(version, request, b"envelope", again, b"")
        await again.until(lambda: bool(again.entries))
        assert (again.names, again.sequence) == (["published"], first.sequence)
        assert await messages_in(look, version) == 1


async def test_without_a_broker_everything_is_refused_later_and_nothing_raises() -> None:
    connection = Connection(OPTIONS)
    queue = JetStreamQueue(connection, region=REGION, process=1)
    await queue.start()
    client, version = Client(), new_version()
    queue.publish(version, new_request(), b"", client, b"")
    assert client.entries == []
    await client.reaches("refused")
    assert counted(queue, version) == {"Ok": 0, "Unavailable": 1}
    assert not queue.is_available()
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
        assert client.entries == [("refused", "QueueUnavailable")]
        assert other.entries == [("published",)]
        assert queue.is_available()


async def test_more_requests_than_the_table_holds_are_refused(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    async with gateway(shared_nats_server.url, limits=QueueLimits(max_requests=1)) as queue:
        first, _ = await publish(queue, version)
        _, second = await publish(queue, version)
        assert second.names == ["refused"]
        queue.settled(first)
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
        await clients[2].reaches("refused")
        await clients[0].until(clients[0].has_begun)
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
            queue.settled(request)
            # Its queue is looked at after it was made, and is not idle before.
            await until(queue._queues[version].is_idle)
            request, _ = await publish(queue, other)
            assert set(queue._queues) == {other}
            assert counted(queue, version) == {"Ok": number}
            queue.settled(request)
            await until(queue._queues[other].is_idle)


async def test_presence_goes_with_the_process(shared_nats_server: NatsServer) -> None:
    url = shared_nats_server.url
    async with gateway(url, process=1) as one:
        async with gateway(url, process=2) as two:
            await until(lambda: one._standing.peers.known() == two._standing.peers.known() == 1)
        await until(lambda: one._standing.peers.known() == 0)
