"""Calls over channels whose worker, gateway process or network fails while they run."""

import asyncio
import signal
from typing import Any

import httpx

from tests.support.cut_proxy import cut_proxy
from tests.support.free_ports import free_port
from tests.support.programs import Program
from tests.support.stack import Gateway, Stack, running_at_inference, start
from tests.support.waiting import until

SLOW = "/slow?seconds=1"
LONG = "/slow?seconds=60"


async def metrics(url: str) -> dict[str, float]:
    """Return the metrics of a program, without those that have labels."""
    async with httpx.AsyncClient() as client:
        lines = (await client.get(f"{url}/metrics")).text.splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


async def dispatched(gateway: Gateway, way: str) -> float:
    return (await metrics(gateway.admin_url))[f'gateway_dispatched_total{{dispatch="{way}"}}']


async def runs_of(agent: Program) -> float:
    """Return how many requests an agent has begun to run."""
    port = agent.wait_event("worker.ready")["admin_port"]
    found = await metrics(f"http://127.0.0.1:{port}")
    begun = "nvcf_worker_service_request_total"
    return sum(value for name, value in found.items() if name.startswith(begun))


async def free_slots(gateway: Gateway) -> float:
    found = await metrics(gateway.admin_url)
    return sum(v for name, v in found.items() if name.startswith("gateway_channel_free_slots"))


async def open_channel(gateway: Gateway, client: httpx.AsyncClient, channels: int = 1) -> None:
    """Call until so many workers have told of free slots."""

    async def slots() -> float:
        found = await metrics(gateway.admin_url)
        if found["gateway_channels"] < channels:
            await asyncio.gather(*[client.get("/slow?seconds=0.02") for _ in range(4)])
        return 4.0 * found["gateway_channels"] - await free_slots(gateway) + channels

    await until(slots, lambda _: True)
    await until(slots, lambda left: left == channels, what="free slots")


async def begin_directly(
    stack: Stack, gateway: Gateway, client: httpx.AsyncClient, path: str
) -> "asyncio.Task[httpx.Response]":
    """Begin a call, and wait until it runs: at a worker that got it over its channel."""
    before = await dispatched(gateway, "direct")
    call: asyncio.Task[Any] = start(client.get(path))
    await running_at_inference(stack, 1)
    assert await dispatched(gateway, "direct") == before + 1
    return call


async def test_a_call_of_a_killed_worker_is_answered_by_another_one(stack: Stack) -> None:
    gateway = stack.gateway()
    first = stack.agent()
    async with gateway.client() as client:
        await open_channel(gateway, client)
        call = await begin_directly(stack, gateway, client, SLOW)
        second = stack.agent()
        first.send(signal.SIGKILL)
        response = await call
        assert response.status_code == 200
        assert response.elapsed.total_seconds() < 10
        assert await runs_of(second) == 1
        # And the next ones are served at once.
        await open_channel(gateway, client)


async def test_the_calls_of_a_killed_gateway_are_stopped_and_the_worker_serves_the_next_one(
    stack: Stack,
) -> None:
    gateway = stack.gateway()
    stack.agent()
    async with gateway.client() as client:
        await open_channel(gateway, client)
        call = await begin_directly(stack, gateway, client, LONG)
        gateway.program.send(signal.SIGKILL)
        await running_at_inference(stack, 0)
        await asyncio.wait([call])
        assert call.exception() is not None
    following = stack.gateway()
    async with following.client() as client:
        await open_channel(following, client)
        response = await client.get("/slow?seconds=0.01")
        assert response.status_code == 200
        assert await dispatched(following, "direct") >= 1


async def test_a_call_of_a_worker_that_stands_still_is_answered_once(stack: Stack) -> None:
    gateway = stack.gateway()
    paused = stack.agent()
    async with gateway.client() as client:
        await open_channel(gateway, client)
        call = await begin_directly(stack, gateway, client, "/slow?seconds=2")
        begun = await runs_of(paused)
        paused.send(signal.SIGSTOP)
        # It waits in the socket of the worker, which will be woken when it has been answered.
        waiting = start(client.get("/slow?seconds=0.1"))
        other = stack.agent()
        assert [(await one).status_code for one in (call, waiting)] == [200, 200]
        assert await runs_of(other) == 2
        paused.send(signal.SIGCONT)
        await until(lambda: gateway_channels(gateway), lambda count: count >= 1)
        await open_channel(gateway, client, channels=2)
        # Neither has been run again: the first was stopped, the second never begun.
        assert {(await client.get("/slow?seconds=0.01")).status_code for _ in range(4)} == {200}
        total = await runs_of(paused) + await runs_of(other)
        direct, queued = await dispatched(gateway, "direct"), await dispatched(gateway, "queued")
        assert await runs_of(paused) >= begun
        # Both were sent over the channel first, and by the queue then; one began at both workers.
        assert total == direct + queued - 1


async def gateway_channels(gateway: Gateway) -> float:
    return (await metrics(gateway.admin_url))["gateway_channels"]


async def test_a_call_whose_worker_is_not_heard_any_more_is_answered_by_another_one(
    stack: Stack,
) -> None:
    port = free_port()
    gateway = stack.gateway(ATTACH__LISTEN=f"127.0.0.1:{port}", ATTACH__ADVERTISE="127.0.0.2")
    async with cut_proxy(port) as proxy:
        first = stack.agent()
        async with gateway.client() as client:
            await open_channel(gateway, client)
            call = await begin_directly(stack, gateway, client, LONG)
            proxy.is_cut = True
            # The worker gives it up: it cannot reach the process that wants the response.
            await until(lambda: gateway_channels(gateway), lambda count: count == 0)
            await running_at_inference(stack, 0)
            proxy.is_cut = False
            await running_at_inference(stack, 1)
            call.cancel()
            await running_at_inference(stack, 0)
            await open_channel(gateway, client)
            assert await runs_of(first) >= 2


async def test_without_direct_dispatch_every_call_goes_through_the_queue(stack: Stack) -> None:
    gateway = stack.gateway(QUEUE__DIRECT="false")
    stack.agent()
    async with gateway.client() as client:
        for _ in range(10):
            assert (await client.get("/slow?seconds=0.01")).status_code == 200
        found = await metrics(gateway.admin_url)
        assert found["gateway_channels"] == 0
        assert found['gateway_dispatched_total{dispatch="direct"}'] == 0
        assert found['gateway_dispatched_total{dispatch="queued"}'] == 10
