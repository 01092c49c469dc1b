"""A cluster of three servers with replicated queues; one of them goes away under load."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from queueing.interface import Lease, Load, QueueUnavailable
from queueing.nats.admin import JetStreamAdmin
from queueing.nats.connection import NatsConnection, NatsError
from queueing.nats.jetstream import JetStream, JetStreamError, StreamSettings
from queueing.nats.presence import OWN_ACCOUNT, listening_workers
from queueing.own_requests import QueueLimits
from tests.support.free_ports import free_ports
from tests.support.nats_server import NatsServer, running_nats_server
from tests.support.nvcf_nats import nvcf_nats
from tests.support.queue_harness import (
    OPTIONS,
    REGION,
    Client,
    GatewayQueue,
    Worker,
    connected,
    gateway,
    messages_in,
    new_request,
    new_version,
    publish,
    worker,
)
from tests.support.waiting import PATIENCE_S, until
from wire.subjects import cancel_subject, stream_name

REPLICATED = StreamSettings(replicas=3, ack_wait_s=PATIENCE_S / 4)
"""The broker may lose a lease when a server leaves, and delivers the request again when it expires.

The leader of a replicated consumer sends a message only when the other replicas have counted the
delivery (nats-server, consumer.go, ``replicateDeliveries``). It does not send it if it has stepped
down meanwhile, as a server in lame duck mode does.
"""
PATIENT = QueueLimits(ack_timeout_s=PATIENCE_S)


@pytest.fixture
async def cluster() -> AsyncIterator[list[NatsServer]]:
    ports = free_ports(3)
    routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports)
    async with AsyncExitStack() as stack:
        servers = []
        for number, port in enumerate(ports):
            config = (
                f"server_name: s{number}\n"
                f'server_tags: ["region:r{number}"]\n'
                f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{routes}] }}'
            )
            servers.append(await stack.enter_async_context(running_nats_server(config)))
        async with connected(servers[0].url) as connection:
            api = JetStream(connection, timeout_s=0.5)
            version = new_version()

            async def has_leader() -> bool:
                try:
                    await api.ensure("warm", version, REPLICATED)
                except (JetStreamError, NatsError):
                    return False
                return True

            await until(has_leader, what="the cluster's leader", timeout_s=2 * PATIENCE_S)
        yield servers


async def test_the_load_of_a_region_that_is_away_is_not_known_and_that_of_others_is(
    cluster: list[NatsServer],
) -> None:
    version, regions = new_version(), ["r0", "r1"]
    async with connected(cluster[0].url) as connection:
        admin = JetStreamAdmin(connection, regions, StreamSettings(replicas=1, region_tag="region"))
        await admin.ensure(version)
        for region in regions:
            await connection.request(f"rq.{region}.{version}.0".encode(), b"envelope")
        await until(lambda: admin.load(version), lambda load: load == Load(2, 0))
        await cluster[1].kill()

        async def load() -> Load | None:
            try:
                return await admin.load(version)
            except QueueUnavailable:
                # The cluster may have to choose a leader.
                return None

        await until(
            load, lambda load: load == Load(1, 0, is_complete=False), timeout_s=2 * PATIENCE_S
        )


ONE_COPY = StreamSettings(ack_wait_s=300.0)
SOON = QueueLimits(look_interval_s=0.2, peer_wait_s=PATIENCE_S)


class Home:
    """The server of a cluster that alone has a queue, which is not the one of the clients."""

    def __init__(self, cluster: list[NatsServer], look: NatsConnection, version: str) -> None:
        self._cluster = cluster
        self._api = JetStream(look, timeout_s=0.5)
        self._stream = stream_name(REGION, version)

    async def move_away(self) -> None:
        """Make the stream again until another server than the first has it."""
        while await self._number() == 0:
            await self._api.call(f"STREAM.DELETE.{self._stream}", {})
            await self._api.ensure(REGION, self._stream.removeprefix(f"rq_{REGION}_"), ONE_COPY)

    async def restart(self) -> None:
        """Kill and start its server; return when the queue is back, empty."""
        home = self._cluster[await self._number()]
        await home.kill()
        await home.start()

        async def is_back() -> bool:
            try:
                return await self._api.stream_state(self._stream) is not None
            except (JetStreamError, NatsError):
                return False

        await until(is_back, what="the restarted server's stream", timeout_s=2 * PATIENCE_S)

    async def _number(self) -> int:
        info = await self._api.call(f"STREAM.INFO.{self._stream}", {})
        return int(info["cluster"]["leader"][1:])


@asynccontextmanager
async def one_copy(
    cluster: list[NatsServer], version: str, *processes: int, limits: QueueLimits = SOON
) -> AsyncIterator[tuple[Home, list[GatewayQueue]]]:
    """Run gateways on the first server, with a queue that has one copy on another."""
    async with AsyncExitStack() as stack:
        url = cluster[0].url
        look = await stack.enter_async_context(connected(url))
        await JetStream(look).ensure(REGION, version, ONE_COPY)
        home = Home(cluster, look, version)
        await home.move_away()
        queues = [
            await stack.enter_async_context(
                gateway(url, process=process, streams=ONE_COPY, limits=limits)
            )
            for process in processes
        ]
        yield home, queues


async def looked(queue: GatewayQueue) -> None:
    before = queue.looks
    await until(lambda: queue.looks > before)


async def test_a_queue_that_comes_back_empty_is_noticed(cluster: list[NatsServer]) -> None:
    version = new_version()
    limits = replace(SOON, max_kept_bytes=0)
    async with one_copy(cluster, version, 1, limits=limits) as (home, (queue,)):
        clients = [(await publish(queue, version))[1] for _ in range(5)]
        await home.restart()
        loop = asyncio.get_running_loop()
        back_at = loop.time()
        for client in clients:
            await client.reaches("publish_failed")
        # Told within 2 s; the margin is for a busy machine.
        assert loop.time() - back_at < 5.0
        assert queue.losses == 5


async def test_what_waited_in_a_queue_that_comes_back_empty_is_published_again(
    cluster: list[NatsServer],
) -> None:
    version = new_version()
    async with one_copy(cluster, version, 1, 2) as (home, queues):
        requests = [
            (await publish(queue, version, process=process))[0]
            for process, queue in enumerate(queues, 1)
            for _ in range(5)
        ]
        await home.restart()
        async with worker(cluster[0].url, version, slots=20) as work:
            await work.has(10)
            assert sorted(lease.request_id for lease in work.leases) == sorted(requests)
        assert [queue.republished for queue in queues] == [5, 5]


async def test_an_old_lease_does_not_end_a_new_request(cluster: list[NatsServer]) -> None:
    version = new_version()
    url = cluster[0].url
    async with (
        one_copy(cluster, version, 1) as (home, (queue,)),
        connected(url) as look,
        worker(url, version) as old,
    ):
        first, _ = await publish(queue, version)
        (old_lease,) = await old.has(1)
        # A look that began before the lease does not see it.
        await looked(queue)
        await looked(queue)
        await home.restart()
        await until(lambda: not queue.sequence_of(first))
        async with worker(url, version) as new:
            request, _ = await publish(queue, version)
            (new_lease,) = await new.has(1)
            assert new_lease.request_id == request
            old_lease.ack()
            await old.connection.flush()
            await queue.depth(version)
            assert await messages_in(look, version) == 1
            new_lease.ack()
            await until(lambda: messages_in(look, version), lambda left: left == 0)


async def test_what_is_withdrawn_is_the_processes_own(cluster: list[NatsServer]) -> None:
    version = new_version()
    async with (
        one_copy(cluster, version, 1, 2) as (home, (one, two)),
        connected(cluster[0].url) as look,
    ):
        lost = [(await publish(one, version))[0] for _ in range(3)]
        await home.restart()
        # Before anybody has noticed: the new ones may have the sequences of the lost ones.
        clients = [(await publish(two, version, process=2))[1] for _ in range(3)]
        for request in lost:
            one.withdraw(version, request)
        # Asked on the same connection, after what it removes.
        assert await messages_in(one.connection, version) == 3
        assert await messages_in(look, version) == 3
        assert [client.entries for client in clients] == [[("published",)]] * 3


async def test_a_queue_of_a_cluster_has_three_copies_unless_told_otherwise(
    cluster: list[NatsServer],
) -> None:
    async with connected(cluster[0].url) as connection:
        api = JetStream(connection)
        for replicas, copies in ((0, 3), (1, 1)):
            version = new_version()
            await api.ensure(REGION, version, StreamSettings(replicas=replicas))
            state = await api.stream_state(stream_name(REGION, version))
            assert state is not None
            assert state.replicas == copies


async def test_a_server_in_lame_duck_mode_costs_no_request(cluster: list[NatsServer]) -> None:
    version = new_version()
    leaving = cluster[0]
    options = replace(OPTIONS, lame_duck_jitter_s=0.1)

    def serve(work: Worker, lease: Lease) -> None:
        lease.ack()
        queue.answered(lease.request_id)
        work.leased(lease)
        work.pull.want(8)

    async with (
        gateway(leaving.url, streams=REPLICATED, limits=PATIENT, options=options) as queue,
        worker(leaving.url, version, slots=8, options=options, serve=serve) as work,
    ):
        clients: dict[str, Client] = {}

        async def publish_next() -> None:
            """Publish one request and wait for its lease, which answers it.

            With replicas the lease may come before the acknowledgement of the publish. The queue
            then knows the request neither as stored nor as failed: only the lease can be awaited.
            """
            request, client = new_request(), Client()
            clients[request] = client
            queue.publish(version, request, b"envelope", client, b"")
            await work.has(len(clients))

        await publish_next()
        connection = queue.connection
        leaving.lame_duck()
        async with asyncio.timeout(2 * PATIENCE_S):
            while connection.connects < 2 or work.connection.connects < 2:
                await publish_next()
        assert not [client.error for client in clients.values() if client.error]
        served = [lease.request_id for lease in work.leases]
        assert len(served) == len(set(served)) == len(clients)
        assert connection.losses == work.connection.losses == 0


async def test_nvcf_workers_are_seen_at_every_server(cluster: list[NatsServer]) -> None:
    version = new_version()
    async with connected(cluster[0].url) as connection, AsyncExitStack() as stack:
        for number, server in enumerate(cluster):
            name = f"worker_{version}_{number}"
            client = await stack.enter_async_context(nvcf_nats(server.url, "token", name))
            client.subscribe(cancel_subject(version))
            await client.flush()
        await stack.enter_async_context(nvcf_nats(cluster[0].url, "token", "listens to nothing"))
        names = {f"worker_{version}_{number}" for number in range(3)}
        await until(
            lambda: listening_workers(connection, OWN_ACCOUNT, version),
            lambda found: {one.name for one in found} == names,
        )
