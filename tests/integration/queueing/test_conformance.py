"""What every backend of `queueing.interface` must do."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from queueing.interface import Lease, Load, NoResponder, QueueUnavailable, RunDecision
from queueing.settings import QueueSettings
from tests.integration.queueing.backends import Backend, Gateway, NatsBackend, RedisBackend
from tests.support.queue_harness import (
    Client,
    Diary,
    new_request,
    new_version,
    until_depth,
)
from tests.support.redis_server import RedisServer, available_servers
from tests.support.waiting import PATIENCE_S, until

NATS = "nats"
BROKERS = [NATS, *available_servers()]
LEASE_S = 1.0
PATIENT = QueueSettings(lease_s=300.0)
"""A request that is delivered again was given back: its lease has not ended."""


@pytest.fixture(scope="module")
def shared_redis_servers() -> Iterator[dict[str, RedisServer]]:
    """Servers that all tests of this module share, each started when it is first asked for."""
    servers: dict[str, RedisServer] = {}
    yield servers
    for server in servers.values():
        server.close_blocking()


@pytest.fixture(params=BROKERS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """A broker that all tests of this module share, and leave running."""
    if request.param == NATS:
        return NatsBackend(request.getfixturevalue("shared_nats_server"))
    servers = request.getfixturevalue("shared_redis_servers")
    if request.param not in servers:
        servers[request.param] = RedisServer(request.param)
        servers[request.param].start_blocking()
    return RedisBackend(servers[request.param])


@pytest.fixture(params=BROKERS)
def own_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A broker of one test, which may stop it."""
    if request.param == NATS:
        yield NatsBackend(request.getfixturevalue("nats_server"))
        return
    server = RedisServer(request.param)
    try:
        server.start_blocking()
        yield RedisBackend(server)
    finally:
        server.close_blocking()


async def publish(
    backend: Backend,
    gateway: Gateway,
    version_id: str,
    envelope: bytes = b"envelope",
    process: int = 1,
) -> tuple[str, Client]:
    """Publish one request and wait until it is stored or has failed."""
    request_id, client = new_request(process), Client()
    gateway.queue.publish(version_id, request_id, envelope, client, b"")
    await decided(backend, gateway, request_id, client)
    return request_id, client


async def decided(backend: Backend, gateway: Gateway, request_id: str, client: Client) -> None:
    await until(lambda: backend.is_stored(gateway, request_id) or client.entries)


async def publish_many(
    backend: Backend, gateway: Gateway, version_id: str, count: int, process: int = 1
) -> list[str]:
    """Publish requests in order, and wait until all are stored."""
    request_ids = [new_request(process) for _ in range(count)]
    clients = [Client() for _ in request_ids]
    for request_id, client in zip(request_ids, clients, strict=True):
        gateway.queue.publish(version_id, request_id, b"envelope", client, b"")
    for request_id, client in zip(request_ids, clients, strict=True):
        await decided(backend, gateway, request_id, client)
        assert client.entries == []
    return request_ids


async def until_load(gateway: Gateway, version_id: str, waiting: int, leased: int) -> None:
    """Wait for a load: the broker counts a little after a publish or acknowledgement."""
    await until(lambda: gateway.admin.load(version_id), lambda load: load == Load(waiting, leased))


# Publish, lease, acknowledge


async def test_a_request_goes_through_a_queue_that_did_not_exist(backend: Backend) -> None:
    version = new_version()
    async with backend.gateway() as gateway, backend.worker(version) as work:
        request, client = await publish(backend, gateway, version, b"\x00\r\nbytes")
        (lease,) = await work.has(1)
        assert client.entries == []
        assert (lease.request_id, lease.envelope, lease.deliveries) == (
            request,
            b"\x00\r\nbytes",
            1,
        )
        await until_load(gateway, version, 0, 1)
        lease.ack()
        await until_load(gateway, version, 0, 0)
        gateway.queue.answered(request)
        assert client.entries == []


async def test_a_repeated_publish_is_stored_once(backend: Backend) -> None:
    version = new_version()
    async with backend.gateway() as gateway, backend.gateway() as same:
        request, first = await publish(backend, gateway, version)
        again = Client()
        same.queue.publish(version, request, b"envelope", again, b"")
        await decided(backend, same, request, again)
        assert first.entries == again.entries == []
        await until_load(gateway, version, 1, 0)


async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(backend: Backend) -> None:
    version = new_version()
    async with backend.gateway(settings=QueueSettings(max_messages=2)) as gateway:
        first, _ = await publish(backend, gateway, version)
        await publish(backend, gateway, version)
        _, refused = await publish(backend, gateway, version)
        assert refused.entries == [("publish_failed", "QueueFull")]
        gateway.queue.withdraw(version, first)
        await until_load(gateway, version, 1, 0)
        _, taken = await publish(backend, gateway, version)
        assert taken.entries == []
        await until_load(gateway, version, 2, 0)


async def test_leases_do_not_exceed_what_is_wanted(backend: Backend) -> None:
    version = new_version()
    async with backend.gateway() as gateway, backend.worker(version, slots=2) as work:
        await publish_many(backend, gateway, version, 5)
        await work.has(2)
        await until_load(gateway, version, 3, 2)
        work.pull.want(1)
        await work.has(3)
        await until_load(gateway, version, 2, 3)


# Redelivery


async def test_a_lease_that_runs_out_is_delivered_again(backend: Backend) -> None:
    version = new_version()
    async with backend.gateway() as gateway:
        request, _ = await publish(backend, gateway, version)
        async with backend.worker(version, slots=2) as work:
            first, second = await work.has(2)
            assert first.request_id == second.request_id == request
            assert (first.deliveries, second.deliveries) == (1, 2)


async def test_a_lease_that_runs_out_is_no_load_when_its_request_was_withdrawn(
    backend: Backend,
) -> None:
    version = new_version()
    async with backend.gateway() as gateway:
        request, _ = await publish(backend, gateway, version)
        async with backend.worker(version) as work:
            await work.has(1)
        gateway.queue.withdraw(version, request)
        await until_load(gateway, version, 0, 0)


async def test_progress_keeps_a_lease(backend: Backend) -> None:
    version = new_version()
    async with backend.gateway() as gateway:
        await publish(backend, gateway, version)
        async with backend.worker(version, slots=2) as work:
            (lease,) = await work.has(1)

            def extend() -> float:
                lease.in_progress()
                return asyncio.get_running_loop().time()

            end = extend() + 2 * LEASE_S
            await until(extend, lambda now: now >= end, what="the end of two lease times")
            assert len(work.leases) == 1


async def test_a_request_given_back_goes_to_another_worker_at_once(backend: Backend) -> None:
    version = new_version()
    async with backend.gateway(settings=PATIENT) as gateway:
        request, _ = await publish(backend, gateway, version)
        async with backend.worker(version) as one:
            (lease,) = await one.has(1)
            await one.pull.drain()
            lease.nak()
            async with backend.worker(version) as other:
                (again,) = await other.has(1)
                assert (again.request_id, again.deliveries) == (request, 2)


async def test_a_request_whose_every_run_failed_is_undeliverable_and_gone(
    backend: Backend,
) -> None:
    version = new_version()
    settings = QueueSettings(lease_s=LEASE_S, max_deliveries=2)
    async with (
        backend.gateway(settings=settings) as gateway,
        backend.worker(version, slots=5) as work,
    ):
        request, client = await publish(backend, gateway, version)
        await work.has(1)
        runs = 1
        while "undeliverable" not in client.names:
            grown = len(work.leases)
            await until(
                lambda grown=grown: (
                    len(work.leases) > grown  # type: ignore[misc]
                    or "undeliverable" in client.names
                )
            )
            for lease in work.leases[grown:]:
                decision = gateway.queue.may_run(request, lease.deliveries)
                runs += decision is RunDecision.RUN
                if decision is not RunDecision.RUN:
                    lease.nak()
        assert runs == 2
        await until_load(gateway, version, 0, 0)
        assert await gateway.queue.position(version, request) == 0


async def test_a_lease_that_was_given_back_is_no_run(backend: Backend) -> None:
    version = new_version()
    settings = QueueSettings(lease_s=300.0, max_deliveries=1)
    async with (
        backend.gateway(settings=settings) as gateway,
        backend.worker(version, slots=50) as work,
    ):
        request, client = await publish(backend, gateway, version)
        for count in range(1, 20):
            lease = (await work.has(count))[-1]
            if count > 1:

                def decide(lease: Lease = lease) -> RunDecision:
                    return gateway.queue.may_run(request, lease.deliveries)

                # The broker's report of the last one may be a little late.
                await until(decide, lambda decision: decision is RunDecision.RUN)
            lease.nak()
        assert client.entries == []


async def test_a_terminated_request_is_not_delivered_again(backend: Backend) -> None:
    version = new_version()
    async with backend.gateway(settings=PATIENT) as gateway, backend.worker(version) as work:
        await publish(backend, gateway, version)
        (lease,) = await work.has(1)
        lease.term()
        # The lease has ended: this does nothing.
        lease.nak()
        await until_load(gateway, version, 0, 0)
        work.pull.want(1)
        later, _ = await publish(backend, gateway, version)
        await work.has(2)
        assert work.leases[1].request_id == later


# Withdraw and cancel


async def test_a_withdrawn_request_is_never_leased_and_workers_get_a_cancel(
    backend: Backend,
) -> None:
    version = new_version()
    async with backend.gateway() as gateway, backend.worker(version, slots=0) as work:
        gone, client = await publish(backend, gateway, version)
        stays, _ = await publish(backend, gateway, version)
        gateway.queue.withdraw(version, gone)
        await work.until(lambda: work.cancelled == [gone])
        work.pull.want(2)
        await work.has(1)
        assert [lease.request_id for lease in work.leases] == [stays]
        assert client.entries == []
        await until_depth(gateway.queue, version, 0)


async def test_every_worker_of_the_version_gets_the_cancel_of_a_leased_request(
    backend: Backend,
) -> None:
    version, another = new_version(), new_version()
    async with (
        backend.gateway(settings=PATIENT) as gateway,
        backend.worker(version) as holder,
        backend.worker(version, slots=0) as other,
        backend.worker(another) as stranger,
    ):
        request, client = await publish(backend, gateway, version)
        await holder.has(1)
        gateway.queue.withdraw(version, request)
        for work in (holder, other):
            await work.until(lambda work=work: work.cancelled == [request])  # type: ignore[misc]
        holder.leases[0].ack()
        await until_load(gateway, version, 0, 0)
        assert client.entries == []
        assert stranger.cancelled == []


async def test_a_request_withdrawn_before_it_is_stored_leaves_the_queue(backend: Backend) -> None:
    version = new_version()
    async with backend.gateway() as gateway:
        await publish(backend, gateway, version)
        request, client = new_request(), Client()
        gateway.queue.publish(version, request, b"envelope", client, b"")
        gateway.queue.withdraw(version, request)
        last, _ = await publish(backend, gateway, version)
        await until_load(gateway, version, 2, 0)
        assert client.entries == []
        assert await gateway.queue.position(version, last) == 2


# Positions


async def test_positions_are_exact_over_two_gateways_and_after_cancellations(
    backend: Backend,
) -> None:
    version = new_version()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(backend.gateway(1))
        two = await stack.enter_async_context(backend.gateway(2))
        queued: list[tuple[str, Gateway]] = []
        for _ in range(15):
            for gateway, count, process in ((one, 60, 1), (two, 40, 2)):
                requests = await publish_many(backend, gateway, version, count, process)
                queued += [(request, gateway) for request in requests]

        async def position(index: int) -> int:
            request, gateway = queued[index]
            return await gateway.queue.position(version, request)

        assert [await position(i) for i in (0, 499, 999, 1499)] == [1, 500, 1000, 1500]

        for index in range(10, 410):
            request, gateway = queued[index]
            gateway.queue.withdraw(version, request)
        assert [await position(i) for i in (0, 9, 410, 1499)] == [1, 10, 11, 1100]

        async with backend.worker(version, slots=4) as work:
            await work.has(4)
            assert [await position(i) for i in (0, 3, 4, 1499)] == [0, 0, 1, 1096]
            for lease in work.leases[:2]:
                dict(queued)[lease.request_id].queue.answered(lease.request_id)
                lease.ack()
            assert [await position(i) for i in (0, 4, 1499)] == [0, 1, 1096]
        await until_depth(one.queue, version, 1096)


async def test_what_waits_is_told_without_what_is_leased_and_as_old_as_it_is(
    backend: Backend,
) -> None:
    version = new_version()
    async with backend.gateway() as gateway:
        queue = gateway.queue

        def waiting() -> tuple[int, float]:
            found = {one.version_id: one for one in queue.waiting()}
            return (found[version].depth, found[version].oldest_s) if version in found else (0, 0.0)

        assert waiting() == (0, 0.0)
        requests = await publish_many(backend, gateway, version, 5)
        await until(waiting, lambda found: found[0] == 5 and found[1] >= 0.2)
        async with backend.worker(version, slots=3) as work:
            await work.has(3)
            # The process looks at its queues about once a second.
            await until(waiting, lambda found: found[0] == 2)
        for request in requests:
            queue.withdraw(version, request)
        assert waiting() == (0, 0.0)


async def test_an_unknown_request_has_no_position(backend: Backend) -> None:
    version = new_version()
    async with backend.gateway() as gateway:
        await publish(backend, gateway, version)
        assert await gateway.queue.position(version, new_request()) == 0


async def test_an_expired_request_is_withdrawn_and_its_position_is_told(backend: Backend) -> None:
    version = new_version()
    async with (
        backend.gateway(1, settings=PATIENT) as one,
        backend.gateway(2, settings=PATIENT) as two,
    ):
        requests = await publish_many(backend, one, version, 2)
        await publish_many(backend, two, version, 1, process=2)
        last, _ = await publish(backend, one, version)
        await until(lambda: one.queue.position(version, last), lambda position: position == 4)
        # Withdrawn together, each is told what was ahead of it when it left.
        positions = await asyncio.gather(
            *(one.queue.withdraw_expired(version, request) for request in [*requests, last])
        )
        assert positions == [1, 1, 2]
        await until_load(one, version, 1, 0)


async def test_an_expired_request_that_a_worker_has_is_told_no_position(backend: Backend) -> None:
    version = new_version()
    async with (
        backend.gateway(settings=PATIENT) as gateway,
        backend.worker(version, slots=1) as work,
    ):
        leased, _ = await publish(backend, gateway, version)
        await work.has(1)
        waiting, _ = await publish(backend, gateway, version)
        assert await gateway.queue.withdraw_expired(version, leased) == 0
        assert await gateway.queue.withdraw_expired(version, waiting) == 1
        await work.until(lambda: work.cancelled == [leased, waiting])
        assert len(work.leases) == 1


# The line


async def test_the_line_is_counted_for_all_gateways(backend: Backend) -> None:
    version = new_version()
    async with (
        backend.gateway(1, settings=PATIENT) as one,
        backend.gateway(2, settings=PATIENT) as two,
    ):
        assert await one.queue.line(version) == ("", 0, 0, 0, 0)
        assert one.queue.own_line(version, 0) == (0, 0, 0, 0)
        await publish_many(backend, one, version, 3)
        await publish_many(backend, two, version, 2, process=2)
        await until_load(one, version, 5, 0)
        first = await one.queue.line(version)
        base = first.delivered
        assert first == (first.epoch, 5, 0, 0, base)
        assert one.queue.own_line(version, base)[2:] == (3, 3)
        assert two.queue.own_line(version, base) == (base + 5, 0, 2, 2)
        async with backend.worker(version, slots=2) as work:
            leases = await work.has(2)
            assert all(lease.followers() for lease in leases)
            assert await two.queue.line(version) == (first.epoch, 3, 2, 2, base + 2)
            for lease in list(leases):
                one.queue.answered(lease.request_id)
                lease.ack()
            await until_load(one, version, 3, 0)
            assert await one.queue.line(version) == (first.epoch, 3, 0, 2, base + 2)
            assert one.queue.own_line(version, base + 2)[2:] == (3, 1)
            assert two.queue.own_line(version, base + 2) == (base + 5, 0, 2, 2)


async def test_a_request_may_have_waited_unless_a_younger_one_is_answered(
    backend: Backend,
) -> None:
    version = new_version()
    async with backend.gateway() as gateway:
        queue = gateway.queue
        assert not queue.has_waited(version, 0.0)
        await publish(backend, gateway, version)
        assert not queue.has_waited(version, 60.0)
        await until(lambda: queue.has_waited(version, 0.05))
        younger, _ = await publish(backend, gateway, version)
        queue.answered(younger)
        assert not queue.has_waited(version, 0.05)
        await until(lambda: queue.has_waited(version, 0.05))


async def test_a_lease_knows_whether_others_waited(backend: Backend) -> None:
    version = new_version()
    async with (
        backend.gateway(settings=PATIENT) as gateway,
        backend.worker(version, slots=1) as work,
    ):
        await publish(backend, gateway, version)
        (lease,) = await work.has(1)
        assert lease.followers() == 0


async def test_a_lease_knows_that_its_request_is_older_than_the_worker(backend: Backend) -> None:
    version = new_version()
    async with backend.gateway(settings=PATIENT) as gateway:
        await publish(backend, gateway, version)
        async with backend.worker(version) as work:
            (lease,) = await work.has(1)
            assert not lease.is_first_known()


# Drain


async def test_a_draining_worker_attracts_nothing_more(backend: Backend) -> None:
    version = new_version()
    async with (
        backend.gateway(settings=PATIENT) as gateway,
        backend.worker(version, slots=8) as leaving,
    ):
        await publish(backend, gateway, version)
        await leaving.has(1)
        await leaving.pull.drain()
        async with backend.worker(version, slots=8) as staying:
            await publish_many(backend, gateway, version, 5)
            leases = await staying.has(5)
            # A first delivery each: none had been at the leaving worker.
            assert [lease.deliveries for lease in leases[:5]] == [1] * 5
            assert len(leaving.leases) == 1


async def test_acknowledgements_before_the_close_arrive(backend: Backend) -> None:
    version = new_version()
    async with backend.gateway(settings=PATIENT) as gateway:
        await publish_many(backend, gateway, version, 20)
        async with backend.worker(version, slots=20) as work:
            for lease in list(await work.has(20)):
                lease.ack()
        await until_load(gateway, version, 0, 0)


async def test_a_worker_waits_for_a_queue_that_does_not_exist_yet(backend: Backend) -> None:
    version = new_version()
    async with backend.worker(version, slots=3) as work, backend.gateway() as gateway:
        await gateway.queue.depth(version)
        assert not work.pull.is_bound()
        await publish_many(backend, gateway, version, 3)
        await work.has(3)
        assert work.pull.is_bound()


# Broker that is away


async def test_without_a_broker_calls_fail_and_publishes_are_called_back_later(
    own_backend: Backend,
) -> None:
    version = new_version()
    async with own_backend.gateway() as gateway:
        await own_backend.stop()
        await until(lambda: not gateway.bus.publish(b"test.anything", b""))
        client = Client()
        gateway.queue.publish(version, new_request(), b"", client, b"")
        assert client.entries == []
        await client.reaches("publish_failed")
        assert client.entries == [("publish_failed", "QueueUnavailable")]
        # Side by side: each may wait for a connection before it fails.
        results = await asyncio.gather(
            gateway.queue.depth(new_version()),
            gateway.admin.ensure(version),
            gateway.admin.load(version),
            gateway.admin.purge(version),
            gateway.admin.remove(version),
            gateway.admin.version_ids(),
            gateway.bus.request(b"test.anything", b""),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [QueueUnavailable] * 7


async def test_a_broker_that_is_back_is_used_again(own_backend: Backend) -> None:
    version = new_version()
    async with own_backend.gateway() as gateway, own_backend.worker(version) as work:
        await own_backend.stop()
        await until(lambda: not gateway.bus.publish(b"test.anything", b""))
        await own_backend.start()
        await until(lambda: gateway.bus.publish(b"test.anything", b""))
        request, client = await publish(own_backend, gateway, version)
        (lease,) = await work.has(1)
        assert (lease.request_id, client.entries) == (request, [])


# Administration


async def test_a_queue_is_ensured_listed_purged_and_removed(backend: Backend) -> None:
    version, another = new_version(), new_version()
    async with backend.gateway() as gateway:
        admin = gateway.admin
        assert await admin.load(version) == Load(0, 0)
        await admin.purge(version)
        await admin.remove(version)
        assert version not in await admin.version_ids()
        for each in (version, version, another):
            await admin.ensure(each)
        assert {version, another} <= set(await admin.version_ids())
        await publish_many(backend, gateway, version, 3)
        await until_load(gateway, version, 3, 0)
        await admin.purge(version)
        await until_load(gateway, version, 0, 0)
        await admin.remove(version)
        assert version not in await admin.version_ids()
        assert another in await admin.version_ids()


async def test_a_load_separates_waiting_from_leased_requests(backend: Backend) -> None:
    version = new_version()
    async with (
        backend.gateway(settings=PATIENT) as gateway,
        backend.worker(version, slots=2) as work,
    ):
        await publish_many(backend, gateway, version, 5)
        await work.has(2)
        await until_load(gateway, version, 3, 2)
        assert await gateway.queue.depth(version) == 3


# Bus


async def test_messages_reach_all_subscribers_of_a_subject(backend: Backend) -> None:
    subject = f"test.{new_version()}".encode()
    received = [Diary(), Diary()]
    async with backend.gateway(1) as one, backend.gateway(2) as two:
        for gateway, diary in zip((one, two), received, strict=True):
            gateway.bus.subscribe(subject + b".*", diary.write)
        await backend.subscribed(one)
        await backend.subscribed(two)
        assert one.bus.publish(subject + b".a", b"payload")
        for diary in received:
            await diary.until(lambda diary=diary: bool(diary.entries))  # type: ignore[misc]
            assert diary.entries == [(subject + b".a", b"", b"payload")]


async def test_nothing_reaches_a_subscriber_that_has_unsubscribed(backend: Backend) -> None:
    subject = f"test.{new_version()}".encode()
    ended, lasting = Diary(), Diary()
    async with backend.gateway(1) as gateway:
        subscription = gateway.bus.subscribe(subject, ended.write)
        gateway.bus.subscribe(subject, lasting.write)
        subscription.unsubscribe()
        gateway.bus.publish(subject, b"late")
        await lasting.until(lambda: bool(lasting.entries))
        assert ended.entries == []


async def test_a_bus_request_gets_the_first_reply(backend: Backend) -> None:
    subject = f"test.{new_version()}".encode()
    async with backend.gateway(1) as asking, backend.gateway(2) as answering:

        def answer(_subject: bytes, reply: bytes, payload: bytes) -> None:
            answering.bus.publish(reply, payload.upper())

        answering.bus.subscribe(subject, answer)
        await backend.subscribed(answering)
        assert await asking.bus.request(subject, b"question") == b"QUESTION"


async def test_a_bus_request_without_a_responder_fails_at_once(backend: Backend) -> None:
    async with backend.gateway() as gateway:
        with pytest.raises(NoResponder):
            await gateway.bus.request(f"test.{new_version()}".encode(), b"", timeout_s=60.0)


async def test_a_bus_request_without_a_reply_fails_in_time(backend: Backend) -> None:
    subject = f"test.{new_version()}".encode()
    async with backend.gateway() as gateway:
        gateway.bus.subscribe(subject, lambda _subject, _reply, _payload: None)
        with pytest.raises(QueueUnavailable) as raised:
            await gateway.bus.request(subject, b"", timeout_s=0.05)
        assert not isinstance(raised.value, NoResponder)


# Polls


async def test_the_worker_of_a_request_gets_its_polls_until_it_listens_no_more(
    backend: Backend,
) -> None:
    version, request = new_version(), new_request(1)
    async with backend.gateway() as gateway, backend.worker(version) as work:
        await gateway.admin.ensure(version)
        await until(work.pull.is_bound)
        polls: list[bytes] = []

        def poll(envelope: bytes, acknowledge: Callable[[], None]) -> None:
            polls.append(envelope)
            acknowledge()

        subscription = await work.pull.listen_for_polls(request, poll)
        for envelope in (b"one", b"two\r\n"):
            await gateway.polls.poll(version, request, envelope, PATIENCE_S)
        await until(lambda: len(polls) == 2)
        assert polls == [b"one", b"two\r\n"]
        with pytest.raises(NoResponder):
            await gateway.polls.poll(version, new_request(1), b"another's", PATIENCE_S)
        subscription.unsubscribe()

        async def is_gone() -> bool:
            try:
                await gateway.polls.poll(version, request, b"late", PATIENCE_S)
            except NoResponder:
                return True
            return False

        await until(is_gone)


async def test_polls_cannot_be_heard_or_sent_without_a_broker(own_backend: Backend) -> None:
    version, request = new_version(), new_request(1)
    async with own_backend.gateway() as gateway, own_backend.worker(version) as work:
        await gateway.admin.ensure(version)
        await until(work.pull.is_bound)
        await own_backend.stop()
        with pytest.raises(QueueUnavailable):
            await gateway.polls.poll(version, request, b"one", PATIENCE_S)
        with pytest.raises(QueueUnavailable):
            await work.pull.listen_for_polls(request, lambda _envelope, _acknowledge: None)
