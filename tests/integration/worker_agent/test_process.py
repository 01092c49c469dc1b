"""The worker-agent command beside a real nats-server and a real inference server."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from queueing.interface import QueueError
from queueing.nats.connection import NatsConnection
from queueing.nats.login import ConnectionOptions
from queueing.nats.queue import JetStreamQueue
from runtime.ids import new_uuid
from runtime.interrupts import REPEAT_S
from tests.support.fake_gateway import Expected, FakeGateway, running_fake_gateway
from tests.support.nats_server import NatsServer, shared_nats_server  # noqa: F401  a fixture
from tests.support.programs import Program, resident_bytes, worker_agent
from tests.support.queue_harness import until_depth
from tests.support.raw_server import HEALTHY, OK, Peer, RawServer, Serve
from tests.support.waiting import PATIENCE_S, until, until_unchanged
from wire.ids import request_id

UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
PROBED_OFTEN = {"WORKER_HEALTH__INTERVAL_S": "50ms", "INFERENCE_HEALTH_TIMEOUT": "PT0.1S"}
PROCESS = 7


class Published:
    """`queueing.interface.PublishCallbacks`."""

    def __init__(self) -> None:
        self.error: QueueError | None = None

    def publish_failed(self, error: QueueError) -> None:
        self.error = error

    def undeliverable(self) -> None: ...


class System:
    """One agent, all around it real but the gateway."""

    def __init__(
        self, agent: Program, queue: JetStreamQueue, gateway: FakeGateway, version_id: str
    ) -> None:
        self.agent = agent
        self.queue = queue
        self.gateway = gateway
        self.version_id = version_id

    def expect(self) -> Expected:
        return self.gateway.expect(request_id(os.urandom(16), PROCESS))

    async def publish(self, expected: Expected, envelope: bytes) -> None:
        published = Published()
        self.queue.publish(self.version_id, expected.request_id, envelope, published, b"")
        await until(lambda: self.queue.sequence_of(expected.request_id) or published.error)
        assert published.error is None

    async def call(self, **request: bytes) -> Expected:
        expected = self.expect()
        await self.publish(expected, expected.envelope(b"GET", **request))  # type: ignore[arg-type]
        return expected

    async def admin(self, path: str) -> tuple[int, bytes]:
        ready = await asyncio.to_thread(self.agent.wait_event, "worker.ready")
        port = ready["admin_port"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path.encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), body


async def respond_healthy(peer: Peer) -> None:
    await peer.send(HEALTHY)


@asynccontextmanager
async def running_system(
    nats: NatsServer, serve: Serve, serve_health: Serve = respond_healthy, **env: str
) -> AsyncIterator[System]:
    version_id = new_uuid()

    async def serve_healthy(peer: Peer) -> None:
        if (await peer.reader.readexactly(11)) == b"GET /health":
            await serve_health(peer)
        else:
            await serve(peer)

    server = RawServer(serve_healthy)
    await server.start()
    connection = NatsConnection(ConnectionOptions(servers=(nats.url,)))
    connection.start()
    async with asyncio.timeout(2 * PATIENCE_S), running_fake_gateway() as gateway:
        await connection.wait_connected()
        queue = JetStreamQueue(connection, region="local", process=PROCESS)
        await queue.start()
        agent = worker_agent(
            {
                "NVCF_FQDN_NATS": nats.url,
                "FUNCTION_ID": new_uuid(),
                "FUNCTION_VERSION_ID": version_id,
                "INFERENCE_PORT": str(server.port),
                "INFERENCE_HEALTH_ENDPOINT": "/health",
                "HEALTH_PORT": "0",
                **env,
            }
        )
        try:
            yield System(agent, queue, gateway, version_id)
        finally:
            server.stop()
            agent.stop(signal.SIGKILL)
            await queue.close()
            await connection.close()


async def test_requests_are_pulled_answered_and_gone_from_the_queue(
    shared_nats_server: NatsServer,  # noqa: F811
) -> None:
    async def serve(peer: Peer) -> None:
        while await peer.head():
            await peer.send(OK)

    async with running_system(shared_nats_server, serve, MAX_REQUEST_CONCURRENCY="4") as system:
        calls = [await system.call() for _ in range(20)]
        for expected in calls:
            assert (await expected.completed())[2] == b"{}"
        await until_depth(system.queue, system.version_id, 0)
        assert (await system.admin("/v1/health/ready"))[0] == 200
        status, metrics = await system.admin("/metrics")
        assert status == 200
        counted = f'function_version_id="{system.version_id}",error_code="0"}} 20\n'.encode()
        assert counted in metrics
        assert system.agent.stop() == 0


async def test_a_terminated_agent_finishes_what_runs_and_leaves_the_rest_to_others(
    shared_nats_server: NatsServer,  # noqa: F811
) -> None:
    running = asyncio.Event()
    finish = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        running.set()
        await finish.wait()
        await peer.send(b"4\r\nmore\r\n0\r\n\r\n")

    async with running_system(shared_nats_server, serve) as system:
        first = await system.call()
        await running.wait()
        second = await system.call()
        system.agent.send(signal.SIGTERM)
        await asyncio.to_thread(system.agent.wait_event, "worker.draining")
        finish.set()
        assert (await first.completed())[2] == b"halfmore"
        assert await asyncio.to_thread(system.agent.wait_end) == 0
        assert second.post_count == 0
        await until_depth(system.queue, system.version_id, 1)


async def test_a_second_signal_ends_the_agent_at_once_and_visibly(
    shared_nats_server: NatsServer,  # noqa: F811
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await peer.closed()

    async with running_system(shared_nats_server, serve) as system:
        expected = await system.call()
        await expected.body_reaches(b"half")
        system.agent.send(signal.SIGTERM)
        await asyncio.to_thread(system.agent.wait_event, "worker.draining")
        while not expected.is_broken:
            # Sent shortly after the first it counts as the same signal.
            system.agent.send(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * REPEAT_S):
                    await expected.broken()
        assert await asyncio.to_thread(system.agent.wait_end) == 128 + signal.SIGTERM


async def test_a_withdrawn_request_frees_the_inference_server_within_200_ms(
    shared_nats_server: NatsServer,  # noqa: F811
) -> None:
    there = asyncio.Event()
    gone = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        there.set()
        await peer.closed()
        gone.set()

    async with running_system(shared_nats_server, serve) as system:
        expected = await system.call()
        await there.wait()
        system.queue.withdraw(system.version_id, expected.request_id)
        async with asyncio.timeout(0.2):
            await gone.wait()


@pytest.mark.parametrize("how", ["slow", "503"])
async def test_a_server_that_is_busy_keeps_its_calls_and_gets_the_next_one_after_them(
    shared_nats_server: NatsServer,  # noqa: F811
    how: str,
) -> None:
    probes = 0
    running = 0
    turn = asyncio.Lock()

    async def serve(peer: Peer) -> None:
        nonlocal running
        await peer.head()
        async with turn:
            running += 1
            await until(lambda: probes >= probes_wanted)
            running -= 1
            await peer.send(OK)

    async def serve_health(peer: Peer) -> None:
        nonlocal probes
        probes += 1
        if how == "slow":
            async with turn:
                await peer.send(HEALTHY)
        else:
            await peer.send(UNAVAILABLE if turn.locked() else HEALTHY)

    probes_wanted = 0
    async with running_system(
        shared_nats_server, serve, serve_health, MAX_REQUEST_CONCURRENCY="1", **PROBED_OFTEN
    ) as system:
        await system.admin("/health/ready")
        probes_wanted = probes + 12
        first = await system.call()
        await until(lambda: running)
        second = await system.call()
        await until(lambda: probes >= probes_wanted - 1)
        assert (await system.admin("/health/ready"))[0] == 200
        for expected in (first, second):
            assert (await expected.completed())[2] == b"{}"
        assert "inference.unhealthy" not in system.agent.output


async def test_a_server_that_misses_several_probes_without_a_call_gets_none_until_it_is_back(
    shared_nats_server: NatsServer,  # noqa: F811
) -> None:
    is_healthy = True

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK)

    async def serve_health(peer: Peer) -> None:
        await peer.send(HEALTHY if is_healthy else UNAVAILABLE)

    async with running_system(shared_nats_server, serve, serve_health, **PROBED_OFTEN) as system:
        await system.admin("/health/ready")
        is_healthy = False
        await asyncio.to_thread(system.agent.wait_event, "inference.unhealthy")
        status, body = await system.admin("/health/ready")
        assert (status, json.loads(body)["failures"]) == (
            503,
            {"inference": "status 503, expected 200"},
        )
        expected = await system.call()
        await until_depth(system.queue, system.version_id, 1)
        is_healthy = True
        assert (await expected.completed())[2] == b"{}"


async def test_no_more_calls_run_than_there_are_slots_while_clients_leave(
    shared_nats_server: NatsServer,  # noqa: F811
) -> None:
    running = most = begun = 0
    finish = asyncio.Event()

    async def serve(peer: Peer) -> None:
        nonlocal running, most, begun
        while await peer.head():
            begun, running = begun + 1, running + 1
            most = max(most, running)
            # It works on, whoever has left.
            await finish.wait()
            running -= 1
            await peer.send(OK)

    async with running_system(shared_nats_server, serve, MAX_REQUEST_CONCURRENCY="2") as system:
        left = [await system.call() for _ in range(6)]
        await until(lambda: begun == 2)
        for expected in left:
            system.queue.withdraw(system.version_id, expected.request_id)
        kept = [await system.call() for _ in range(4)]
        await until_depth(system.queue, system.version_id, 4)
        assert (begun, running) == (2, 2)
        finish.set()
        for expected in kept:
            assert (await expected.completed())[2] == b"{}"
        assert most == 2


async def test_a_reader_that_takes_nothing_of_a_huge_answer_stops_the_inference_server(
    shared_nats_server: NatsServer,  # noqa: F811
) -> None:
    sent = 0
    piece = b"x" * (1 << 20)

    async def serve(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (1 << 30))
        while True:
            await peer.send(piece)
            sent += len(piece)

    async with running_system(shared_nats_server, serve) as system:
        expected = system.expect()
        expected.keeps = False
        expected.may_read.clear()
        await system.publish(expected, expected.envelope(b"GET"))
        await expected.until(lambda: expected.received_bytes > 0)
        await until_unchanged(lambda: sent, for_s=0.5)
        assert sent < 32 << 20
        assert resident_bytes(system.agent.pid) < 64 << 20
        expected.may_read.set()
        await expected.until(lambda: expected.received_bytes > 128 << 20)
        assert resident_bytes(system.agent.pid) < 64 << 20


async def test_an_inference_server_that_never_gets_healthy_ends_the_agent(
    shared_nats_server: NatsServer,  # noqa: F811
) -> None:
    async def serve(peer: Peer) -> None:
        raise AssertionError

    async with running_system(
        shared_nats_server,
        serve,
        INFERENCE_HEALTH_EXPECTED_RESPONSE_CODE="418",
        INFERENCE_READY_TIMEOUT="PT0.2S",
        WORKER_HEALTH__START_INTERVAL_S="50ms",
    ) as system:
        assert await asyncio.to_thread(system.agent.wait_end) == 1
        (loading,) = [line for line in system.agent.lines if "inference.loading" in line]
        assert json.loads(loading)["reason"] == "status 200, expected 418"
        assert "inference.not_ready" in system.agent.output


async def test_unusable_settings_are_named(shared_nats_server: NatsServer) -> None:  # noqa: F811
    agent = worker_agent({"FUNCTION_ID": "nonsense", "WORKER_INFERENCE__PROT": "1"})
    assert await asyncio.to_thread(agent.wait_end) == 2
    assert "function.id: not a UUID" in agent.output
    assert "WORKER_INFERENCE__PROT: no such setting" in agent.output
