"""Requests that a worker pulls before it has slots for them."""

import asyncio
from collections import Counter
from functools import partial

from queueing.interface import Lease
from queueing.nats.jetstream import StreamSettings
from queueing.own_requests import QueueLimits
from tests.support.nats_server import NatsServer
from tests.support.queue_harness import (
    GatewayQueue,
    Worker,
    gateway,
    messages_in,
    new_version,
    publish_many,
    worker,
)
from tests.support.waiting import until

SLOTS = 2
LONG = StreamSettings(ack_wait_s=30.0)
"""Leases that a busy machine does not outlive: what is stuck here renews none."""


class _ShortCalls:
    """Serves every request at once, until it is told to stop; checks that no slot is used twice."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running: list[Lease] = []
        self.most = 0
        self.is_stuck = False
        self.stuck_after = 0

    def serve(self, work: Worker, lease: Lease) -> None:
        self.begun.append(lease.request_id)
        self.running.append(lease)
        self.most = max(self.most, len(self.running))
        work.leased(lease)
        self.is_stuck = self.is_stuck or 0 < self.stuck_after <= len(self.begun)
        if not self.is_stuck:
            asyncio.get_running_loop().call_soon(self.finish, work, lease)

    def finish(self, work: Worker, lease: Lease) -> None:
        self.running.remove(lease)
        lease.ack()
        work.pull.want(SLOTS - len(self.running))


async def _pull_ahead(queue: GatewayQueue, version: str, calls: _ShortCalls, work: Worker) -> None:
    """Return when the worker takes several requests with one pull."""
    share = 1.0
    while share > 0.4:
        pulls, count = work.pull.pulls, len(calls.begun)
        await publish_many(queue, version, 400)
        await work.has(count + 400)
        share = (work.pull.pulls - pulls) / 400


async def test_short_calls_of_a_line_need_few_pulls_and_no_more_slots(
    shared_nats_server: NatsServer,
) -> None:
    version, calls = new_version(), _ShortCalls()
    url = shared_nats_server.url
    async with (
        gateway(url, streams=LONG) as queue,
        worker(url, version, SLOTS, serve=calls.serve) as work,
    ):
        await _pull_ahead(queue, version, calls, work)
        work.pull.want(0)
        await work.connection.flush()
        count = len(calls.begun)
        requests = await publish_many(queue, version, 300)
        work.pull.want(SLOTS)
        await work.has(count + 300)
        # In their order, but for those that were given back meanwhile.
        assert sorted(calls.begun[count:]) == sorted(requests)
        assert calls.most <= SLOTS
        await until(lambda: messages_in(queue.connection, version), lambda left: left == 0)


def _is_counted(queue: GatewayQueue, lease: Lease) -> bool:
    """Return whether the gateway knows that an earlier delivery was no run."""
    request = queue.request(lease.request_id)
    return lease.deliveries == 1 or (request is not None and request.runs is not None)


async def test_what_is_held_too_long_goes_to_another_worker_and_was_no_run(
    shared_nats_server: NatsServer,
) -> None:
    version, calls = new_version(), _ShortCalls()
    url = shared_nats_server.url
    limits = QueueLimits(max_runs=1)
    async with (
        gateway(url, limits=limits, streams=LONG) as queue,
        worker(url, version, SLOTS, serve=calls.serve) as work,
    ):
        await _pull_ahead(queue, version, calls, work)
        calls.stuck_after = len(calls.begun) + 100
        requests = await publish_many(queue, version, 300)
        await until(lambda: calls.is_stuck and len(calls.running) == SLOTS)
        rest = set(requests) - set(calls.begun)
        async with worker(url, version, slots=1000) as other:
            await other.has(len(rest))
            taken = Counter(lease.request_id for lease in other.leases)
            assert taken == Counter(rest)
            for lease in other.leases:
                # The broker's report of what was given back comes on its own way.
                await until(partial(_is_counted, queue, lease))
                assert queue.may_run(lease.request_id, lease.deliveries).name == "RUN"
        assert calls.most <= SLOTS


async def test_nothing_that_was_withdrawn_while_it_was_held_is_begun(
    shared_nats_server: NatsServer,
) -> None:
    version, calls = new_version(), _ShortCalls()
    url = shared_nats_server.url
    async with (
        gateway(url, streams=LONG) as queue,
        worker(url, version, SLOTS, serve=calls.serve) as work,
    ):
        await _pull_ahead(queue, version, calls, work)
        calls.stuck_after = len(calls.begun) + 100
        requests = await publish_many(queue, version, 300)
        await until(lambda: calls.is_stuck and len(calls.running) == SLOTS)
        begun = set(calls.begun)
        rest = [request for request in requests if request not in begun]
        for request in rest:
            queue.withdraw(version, request)
        await work.until(lambda: len(work.cancelled) == len(rest))
        calls.stuck_after, calls.is_stuck = 0, False
        for lease in list(calls.running):
            calls.finish(work, lease)
        last = await publish_many(queue, version, 1)
        await until(lambda: last[0] in calls.begun)
        assert set(calls.begun) - begun == set(last)
        await until(lambda: messages_in(queue.connection, version), lambda left: left == 0)


async def test_a_worker_that_stops_keeps_nothing(shared_nats_server: NatsServer) -> None:
    version, calls = new_version(), _ShortCalls()
    url = shared_nats_server.url
    async with gateway(url, streams=LONG) as queue:
        async with worker(url, version, SLOTS, serve=calls.serve) as work:
            await _pull_ahead(queue, version, calls, work)
            calls.stuck_after = len(calls.begun) + 50
            requests = await publish_many(queue, version, 200)
            await until(lambda: calls.is_stuck)
            await work.pull.drain()
            count = len(calls.begun)
            for lease in calls.running:
                lease.ack()
        assert len(calls.begun) == count
        rest = set(requests) - set(calls.begun)
        async with worker(url, version, slots=1000) as other:
            await other.has(len(rest))
            assert {lease.request_id for lease in other.leases} == rest
