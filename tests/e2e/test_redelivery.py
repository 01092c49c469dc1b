"""What is run again, and what is not, when workers or the broker die or stand still."""

import signal

import httpx
import pytest

from queueing.interface import RunDecision
from tests.support.programs import Program
from tests.support.queue_harness import connected, messages_in, worker
from tests.support.stack import LEASE_S, Stack, running_at_inference, start
from tests.support.waiting import until
from wire.decoded_envelope import decode_envelope
from worker_agent.attach.channels import AgentChannels
from worker_agent.attach.gateways import AttachLimits, GatewayPool

BROKEN = (httpx.RemoteProtocolError, httpx.ReadError)


async def requests_of(agent: Program) -> float:
    """Return how many requests an agent has begun to run."""
    return await metric_of(agent, "nvcf_worker_service_request_total")


async def metric_of(agent: Program, name: str) -> float:
    port = agent.wait_event("worker.ready")["admin_port"]
    async with httpx.AsyncClient() as client:
        lines = (await client.get(f"http://127.0.0.1:{port}/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def left_in_the_queue(stack: Stack) -> int:
    async with connected(stack.nats.url) as look:
        return await messages_in(look, stack.demo.version_id, "local")


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_request_is_not_run_again_after_its_first_byte(
    stack: Stack, way: signal.Signals
) -> None:
    gateway = stack.gateway()
    first = stack.agent()
    async with gateway.client() as client:
        async with client.stream("GET", "/sse?events=40&interval_ms=50") as response:
            lines = response.aiter_lines()
            await anext(lines)
            # It is acknowledged when the response head is on its way, long before the end.
            await until(lambda: left_in_the_queue(stack), lambda left: left == 0)
            first.send(way)
            second = stack.agent()
            # Longer than a lease: what is delivered again comes before any other request.
            slow = await client.get(f"/slow?seconds={2 * LEASE_S}")
            assert slow.status_code == 200
            assert await requests_of(second) == 1
            if way is signal.SIGSTOP:
                first.send(signal.SIGCONT)
                assert 1 + len([line async for line in lines if line.startswith("data:")]) == 40
            else:
                with pytest.raises(BROKEN):
                    [_ async for _ in lines]
        assert (await client.get("/health")).status_code == 200


async def test_a_worker_that_stood_still_runs_nothing_whose_lease_is_over(stack: Stack) -> None:
    gateway = stack.gateway()
    paused = stack.agent()
    async with gateway.client() as client:
        assert (await client.get("/slow?seconds=0.01")).status_code == 200
        await until(lambda: left_in_the_queue(stack), lambda left: left == 0)
        # Its pull is open, so the next request goes into its socket.
        paused.send(signal.SIGSTOP)
        call = start(client.get("/slow?seconds=0.1"))
        await until(lambda: left_in_the_queue(stack), lambda left: left == 1)
        other = stack.agent()
        assert (await call).status_code == 200
        paused.send(signal.SIGCONT)
        paused.wait_event("worker.stood_still")
        assert await requests_of(paused) == 1
        assert await requests_of(other) == 1
        # Both serve again.
        calls = [start(client.get("/slow?seconds=0.5")) for _ in range(8)]
        assert {(await call).status_code for call in calls} == {200}
        assert await requests_of(paused) > 1


async def test_a_request_that_waits_while_its_worker_asks_in_vain_is_answered(
    stack: Stack,
) -> None:
    """The worker is killed before its response head: the second one asks, and may run it."""
    gateway = stack.gateway()
    first = stack.agent()
    async with gateway.client() as client:
        call = start(client.get("/slow?seconds=1"))
        await running_at_inference(stack, 1)
        first.send(signal.SIGKILL)
        second = stack.agent()
        assert (await call).status_code == 200
        assert await requests_of(second) == 1


async def test_a_lease_that_was_given_back_is_no_run_of_a_call_that_is_broken_off_later(
    stack: Stack,
) -> None:
    gateway = stack.gateway()
    async with gateway.client() as client:
        version = stack.demo.version_id
        async with worker(stack.nats.url, version, region="local") as work:
            call = start(client.post("/slow?seconds=1"))
            (lease,) = await work.has(1)
            lease.nak()
        stack.starting_agent()
        await running_at_inference(stack, 1)
        await stack.inference.restart()
        assert (await call).status_code == 200


async def refuse_to_connect(uri: bytes, _: object) -> None:
    raise ConnectionRefusedError(uri)


async def test_an_old_report_of_a_late_delivery_does_not_end_what_another_worker_may_run(
    stack: Stack,
) -> None:
    gateway = stack.gateway()
    version = stack.demo.version_id
    limits = AttachLimits(idle_s=30.0, max_idle=2, connect_timeout_s=5.0, vanished_s=45.0)
    channels = AgentChannels(version, "", refuse_to_connect, connect_timeout_s=5.0, vanished_s=45.0)
    gateways = GatewayPool(limits, channels)
    async with gateway.client() as client:
        async with worker(stack.nats.url, version, slots=2, region="local") as work:
            call = start(client.get("/slow?seconds=0.01"))
            # Its lease ends, and the same worker has it again.
            first, second = await work.has(2)
            assert second.deliveries == first.deliveries + 1
            envelope = decode_envelope(second.envelope)
            decision = await gateways.may_run(envelope, 2, is_running=False)
            assert decision is RunDecision.RERUNNABLE
            await gateways.dropped_late(envelope, 1)
            second.nak()
        stack.agent()
        assert (await call).status_code == 200
    gateways.close()


@pytest.mark.parametrize("way", ["kill", "lame duck"])
async def test_a_restart_of_the_broker_loses_no_request(stack: Stack, way: str) -> None:
    gateway = stack.gateway()
    agent = stack.agent(INFERENCE__MAX_CONCURRENCY="1")
    async with gateway.client() as client:
        # It runs for as long as the others take to be queued, on a busy machine too.
        calls = [start(client.get("/slow?seconds=6"))]
        await running_at_inference(stack, 1)
        calls += [start(client.get("/slow?seconds=0.01")) for _ in range(20)]
        await until(lambda: left_in_the_queue(stack), lambda left: left == 21)
        if way == "kill":
            await stack.nats.kill()
        else:
            stack.nats.lame_duck()
            await stack.nats.ended()
        await stack.nats.start()
        assert [(await call).status_code for call in calls] == [200] * 21
    # The one that ran was not run again.
    assert await requests_of(agent) == 21
