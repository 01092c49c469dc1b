"""A cluster of three servers with replicated queues; one of them goes away under load."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import replace

import pytest

from queueing.interface import Lease
from queueing.nats.connection import NatsError
from queueing.nats.jetstream import JetStream, JetStreamError, StreamSettings
from queueing.nats.queue import QueueLimits
from tests.support.nats_server import NatsServer, running_nats_server
from tests.support.queue_harness import (
    OPTIONS,
    Client,
    Worker,
    connected,
    gateway,
    new_request,
    new_version,
    worker,
)
from tests.support.waiting import PATIENCE_S, until

REPLICATED = StreamSettings(replicas=3, ack_wait_s=PATIENCE_S / 4)
"""The broker may lose a lease when a server leaves, and delivers the request again when it expires.

The leader of a replicated consumer sends a message only when the other replicas have counted the
delivery (nats-server, consumer.go, ``replicateDeliveries``). It does not send it if it has stepped
down meanwhile, as a server in lame duck mode does.
"""
PATIENT = QueueLimits(ack_timeout_s=PATIENCE_S)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = []
    for one in sockets:
        with closing(one):
            ports.append(int(one.getsockname()[1]))
    return ports


@pytest.fixture
async def cluster() -> AsyncIterator[list[NatsServer]]:
    ports = free_ports(3)
    routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports)
    async with AsyncExitStack() as stack:
        servers = []
        for number, port in enumerate(ports):
            config = (
                f"server_name: s{number}\n"
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


async def test_a_server_in_lame_duck_mode_costs_no_request(cluster: list[NatsServer]) -> None:
    version = new_version()
    leaving = cluster[0]
    options = replace(OPTIONS, lame_duck_jitter_s=0.1)

    def serve(work: Worker, lease: Lease) -> None:
        lease.ack()
        queue.forget(lease.request_id)
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
