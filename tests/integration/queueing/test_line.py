"""Who knows that requests wait: the gateway's queue, and the worker's consumer."""

from tests.support.nats_server import NatsServer
from tests.support.queue_harness import (
    Client,
    gateway,
    new_request,
    new_version,
    publish,
    publish_many,
    worker,
)
from tests.support.waiting import until


async def test_a_request_waits_until_a_worker_says_that_it_has_leased_it(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    async with gateway(nats_server.url) as queue:
        assert not queue.has_waiting(version)
        first, second, third = await publish_many(queue, version, 3)
        assert queue.has_waiting(version)
        queue.leased(first)
        assert queue.has_waiting(version)
        # Those in front of one that is leased are leased too.
        queue.leased(third)
        assert not queue.has_waiting(version)
        queue.answered(third)
        queue.answered(second)
        assert not queue.has_waiting(version)
        later, _ = await publish(queue, version)
        assert queue.has_waiting(version)
        queue.withdraw(version, later)
        assert not queue.has_waiting(version)


async def test_a_request_that_is_leased_before_the_broker_confirms_it_does_not_wait(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    async with gateway(nats_server.url) as queue:
        await publish(queue, version)
        requests = [new_request() for _ in range(2)]
        for request in requests:
            queue.publish(version, request, b"envelope", Client(), b"")
        assert queue.has_waiting(version)
        queue.leased(requests[0])
        queue.leased(requests[0])
        assert queue.has_waiting(version)
        queue.leased(requests[1])
        queue.leased("not known")
        await until(lambda: queue.sequence_of(requests[1]))
        assert not queue.has_waiting(version)
        last, _ = await publish(queue, version)
        assert queue.has_waiting(version)
        queue.answered(last)
        assert not queue.has_waiting(version)


async def test_a_worker_knows_the_line_as_empty_while_its_pull_waits(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    async with gateway(nats_server.url) as queue:
        (first,) = await publish_many(queue, version, 1)
        async with worker(nats_server.url, version, slots=2) as work:
            (lease,) = await work.has(1)
            assert lease.request_id == first
            await until(work.pull.is_line_empty)
            # Nothing is known while no pull waits.
            work.pull.want(0)
            assert not work.pull.is_line_empty()
            await publish_many(queue, version, 3)
            work.pull.want(1)
            await work.has(2)
            assert not work.pull.is_line_empty()
            work.pull.want(2)
            await work.has(4)
            work.pull.want(1)
            await until(work.pull.is_line_empty)
