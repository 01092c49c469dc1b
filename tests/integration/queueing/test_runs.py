"""Which deliveries are run, and who is told when the last one has ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from queueing.nats.consumer import PullOptions
from queueing.nats.jetstream import JetStream, StreamSettings
from queueing.own_requests import QueueLimits
from runtime.tasks import spawn
from tests.support.nats_server import NatsServer
from tests.support.queue_harness import (
    REGION,
    Worker,
    gateway,
    new_version,
    publish,
    publish_many,
    worker,
)
from tests.support.waiting import until
from wire.subjects import stream_name

SHORT = StreamSettings(ack_wait_s=1.0, max_deliver=100)


@pytest.mark.parametrize("waiting", [0, 2])
async def test_the_end_of_the_last_lease_is_told_while_no_worker_pulls(
    shared_nats_server: NatsServer, waiting: int
) -> None:
    version, url = new_version(), shared_nats_server.url
    limits = QueueLimits(max_runs=2, look_interval_s=0.2)
    async with gateway(url, streams=SHORT, limits=limits) as queue:
        request, client = await publish(queue, version)
        for deliveries in (1, 2):
            async with worker(url, version) as work:
                (lease,) = await work.has(1)
                assert lease.deliveries == deliveries
                if deliveries > 1:
                    queue.may_run(request, deliveries)
                    others = await publish_many(queue, version, waiting)
        await client.reaches("undeliverable")
        # What else waited still waits, in its order.
        async with worker(url, version, slots=5) as work:
            await work.has(waiting)
            assert [lease.request_id for lease in work.leases] == others


async def test_the_end_of_the_only_lease_is_told_while_no_worker_pulls(
    shared_nats_server: NatsServer,
) -> None:
    version, url = new_version(), shared_nats_server.url
    limits = QueueLimits(max_runs=1, look_interval_s=0.2)
    async with gateway(url, streams=SHORT, limits=limits) as queue:
        _, client = await publish(queue, version)
        async with worker(url, version) as work:
            await work.has(1)
        await client.reaches("undeliverable")


async def test_the_brokers_own_limit_is_told_while_no_worker_pulls(
    shared_nats_server: NatsServer,
) -> None:
    version, url = new_version(), shared_nats_server.url
    streams = StreamSettings(ack_wait_s=1.0, max_deliver=2)
    limits = QueueLimits(look_interval_s=0.2)
    async with gateway(url, streams=streams, limits=limits) as queue:
        _, client = await publish(queue, version)
        for _ in range(2):
            async with worker(url, version) as work:
                await work.has(1)
        await client.reaches("undeliverable")


async def test_a_lease_that_is_renewed_is_not_taken_for_ended(
    shared_nats_server: NatsServer,
) -> None:
    version, url = new_version(), shared_nats_server.url
    limits = QueueLimits(max_runs=1, look_interval_s=0.1)
    async with gateway(url, streams=SHORT, limits=limits) as queue:
        _, client = await publish(queue, version)
        async with worker(url, version) as work:
            (lease,) = await work.has(1)

            def extend() -> float:
                lease.in_progress()
                return asyncio.get_running_loop().time()

            end = extend() + 2.5
            await until(extend, lambda now: now >= end, what="the end of two lease times")
            assert client.entries == [("published",)]
            assert len(work.leases) == 1


async def test_what_was_never_leased_is_not_taken_for_a_run_that_ended(
    shared_nats_server: NatsServer,
) -> None:
    version, url = new_version(), shared_nats_server.url
    limits = QueueLimits(max_runs=1, look_interval_s=0.1)
    async with gateway(url, streams=SHORT, limits=limits) as queue:
        await publish(queue, version)
        async with worker(url, version) as work:
            (lease,) = await work.has(1)
            _, waits = await publish(queue, version)

            async def deliveries() -> int:
                lease.in_progress()
                state = await JetStream(queue.connection).consumer_state(
                    stream_name(REGION, version)
                )
                return state.deliveries if state is not None else 0

            # The gateway looks for a lease that has ended, and gets the request that waits.
            await until(deliveries, lambda count: count > 1)
            work.pull.want(1)
            await work.has(2)
            assert waits.entries == [("published",)]


async def test_what_a_worker_finds_after_a_standstill_is_dropped(
    shared_nats_server: NatsServer,
) -> None:
    """The clock is what stands still here: time passes without a turn of the loop."""
    version, url = new_version(), shared_nats_server.url
    clock = Clock()
    stood_still: list[float] = []
    async with (
        gateway(url, streams=StreamSettings(ack_wait_s=3.0, max_deliver=100)) as queue,
        worker(url, version, slots=0, pulls=PullOptions(boot_clock=clock)) as work,
    ):
        work.pull.watch(lambda: stood_still.append(clock.now), ignore, ignore, ignore, ignore)
        await publish(queue, version)
        await until(work.pull.is_bound)
        clock.now += 60.0
        work.pull.want(1)
        await until(lambda: stood_still)
        await until(lambda: not work.pull.is_over())
        # It comes again when its lease has ended, and is run then.
        await work.has(1)
        assert work.pull.lapsed == work.leases[0].deliveries - 1
        assert len(stood_still) == 1


async def test_a_short_standstill_renews_the_leases_before_and_after_the_socket_is_read(
    shared_nats_server: NatsServer,
) -> None:
    """The clock is what stands still here, and a link holds what is in the socket."""
    version, url = new_version(), shared_nats_server.url
    clock = Clock()
    stood_still: list[float] = []
    renewed: list[int] = []
    async with (
        gateway(url, streams=StreamSettings(ack_wait_s=30.0)) as queue,
        running_link(shared_nats_server.port) as link,
        worker(
            f"nats://127.0.0.1:{link.port}",
            version,
            slots=2,
            pulls=PullOptions(boot_clock=clock),
        ) as work,
    ):
        await publish(queue, version)
        await work.has(1)
        await work.connection.flush()
        link.may_pass.clear()
        await publish(queue, version)
        jetstream = JetStream(queue.connection)
        stream = stream_name(REGION, version)
        await until(lambda: jetstream.consumer_state(stream), lambda state: state.leased == 2)
        work.pull.watch(
            lambda: stood_still.append(clock.now),
            ignore,
            ignore,
            lambda: renewed.append(len(work.leases)),
            ignore,
        )
        clock.now += 5.0
        await until(lambda: renewed)
        link.may_pass.set()
        await until(lambda: len(renewed) == 2)
        assert renewed == [1, 2]
        # All was read: two in a row do not add up to a long one.
        for times in (2, 3, 4, 5, 6):
            clock.now += 5.0
            await until(lambda times=times: len(renewed) >= 2 * times)
        assert (stood_still, work.pull.lapsed) == ([], 0)


async def test_leases_are_renewed_in_time_however_short_they_are(
    shared_nats_server: NatsServer,
) -> None:
    version, url = new_version(), shared_nats_server.url
    streams = StreamSettings(ack_wait_s=2.0, max_deliver=100)
    async with (
        gateway(url, streams=streams) as queue,
        worker(url, version) as work,
        worker(url, version, slots=0) as other,
    ):
        renewals = renewing(work)
        await publish(queue, version)
        await work.has(1)
        other.pull.want(1)
        await until(lambda: len(renewals) >= 4)
        assert renewals[-1] - renewals[0] > 2.0
        assert (len(work.leases), other.leases) == (1, [])


async def test_a_lease_that_a_slow_connection_brings_is_renewed_at_once(
    shared_nats_server: NatsServer,
) -> None:
    version, url = new_version(), shared_nats_server.url
    streams = StreamSettings(ack_wait_s=6.0, max_deliver=100)
    loop = asyncio.get_running_loop()
    async with (
        gateway(url, streams=streams) as queue,
        running_link(shared_nats_server.port) as link,
        worker(f"nats://127.0.0.1:{link.port}", version, slots=2) as slow,
        worker(url, version, slots=0) as other,
    ):
        await publish(queue, version)
        await slow.has(1)
        await slow.connection.flush()
        link.may_pass.clear()
        published_at = loop.time()
        await publish(queue, version)
        other.pull.want(1)
        await until(lambda: loop.time() >= published_at + 3.5, what="half of a lease and more")
        renewals = renewing(slow)
        link.may_pass.set()
        await slow.has(2)
        await until(lambda: renewals)
        await until(lambda: loop.time() >= published_at + 7.0, what="the end of its first lease")
        assert other.leases == []


async def test_leases_are_renewed_when_the_broker_is_back(nats_server: NatsServer) -> None:
    version, url = new_version(), nats_server.url
    streams = StreamSettings(storage="file")
    async with gateway(url, streams=streams) as queue, worker(url, version) as work:
        await publish(queue, version)
        await work.has(1)
        renewals = renewing(work)
        await nats_server.stop()
        await until(lambda: not work.pull.is_bound())
        await nats_server.start()
        await until(work.pull.is_bound)
        assert len(renewals) == 1


async def test_what_a_connection_brings_after_it_was_cut_off_is_dropped(
    shared_nats_server: NatsServer,
) -> None:
    version, url = new_version(), shared_nats_server.url
    streams = StreamSettings(ack_wait_s=2.0, max_deliver=100)
    async with (
        gateway(url, streams=streams) as queue,
        running_link(shared_nats_server.port) as link,
        worker(f"nats://127.0.0.1:{link.port}", version) as cut_off,
    ):
        stood_still = asyncio.Event()
        cut_off.pull.watch(stood_still.set, ignore, ignore, ignore, ignore)
        await publish(queue, version)
        (first,) = await cut_off.has(1)
        first.ack()
        cut_off.pull.want(1)
        await until(lambda: cut_off.pull.pulls, lambda pulls: pulls == 2)
        await cut_off.connection.flush()
        link.may_pass.clear()
        request, _ = await publish(queue, version)
        await stood_still.wait()
        loop = asyncio.get_running_loop()
        # Longer than a round trip to the server may take.
        end = loop.time() + 2.5
        async with worker(url, version) as other:
            renewing(other)
            (lease,) = await other.has(1)
            assert (lease.request_id, lease.deliveries) == (request, 2)
            await until(lambda: loop.time() >= end)
            link.may_pass.set()
            await until(lambda: cut_off.pull.lapsed)
            lease.ack()
        await until(lambda: not cut_off.pull.is_over())
        # It pulls again, and what comes now counts.
        later, _ = await publish(queue, version)
        assert [lease.request_id for lease in await cut_off.has(2)][1:] == [later]


async def test_a_count_of_deliveries_from_before_a_crash_of_the_broker_is_not_trusted(
    nats_server: NatsServer,
) -> None:
    version, url = new_version(), nats_server.url
    streams = StreamSettings(storage="file")
    async with gateway(url, streams=streams) as queue, worker(url, version, slots=0) as work:
        await publish(queue, version)
        await until(work.pull.is_bound)
        await nats_server.kill()
        await until(lambda: not queue.connection.is_connected() and not work.pull.is_bound())
        await nats_server.start()
        await until(lambda: queue.connection.is_connected() and work.pull.is_bound())
        await publish(queue, version)
        work.pull.want(2)
        await work.has(2)
        assert [lease.deliveries for lease in work.leases] == [1, 1]
        assert [lease.is_first_known() for lease in work.leases] == [False, True]


class Link:
    """Passes bytes between a client and a server while ``may_pass`` is set."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.may_pass = asyncio.Event()
        self.may_pass.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection("127.0.0.1", self._server_port)
        for source, sink in ((reader, onward[1]), (onward[0], writer)):
            self._tasks.add(spawn(self._pass_on(source, sink), "link"))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self.may_pass.wait()
                sink.write(data)
        finally:
            sink.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def running_link(server_port: int) -> AsyncIterator[Link]:
    link = Link(server_port)
    async with await asyncio.start_server(link.accept, "127.0.0.1", 0) as server:
        link.port = server.sockets[0].getsockname()[1]
        yield link
        await link.close()


def renewing(work: Worker) -> list[float]:
    """Let a worker renew its leases when it is told to; return the times at which it was."""
    renewals: list[float] = []

    def renew() -> None:
        renewals.append(asyncio.get_running_loop().time())
        for lease in work.leases:
            lease.in_progress()

    work.pull.watch(ignore, ignore, ignore, renew, ignore)
    return renewals


def ignore() -> None:
    """Do nothing."""


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
