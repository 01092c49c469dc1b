"""Calls over channels whose worker, gateway process or network fails while they run."""

import asyncio
import signal
from typing import Any

import httpx

from tests.support.cut_proxy import cut_proxy
from tests.support.free_ports import free_port
from tests.support.stack import (
    Gateway,
    Stack,
    dispatched,
    metrics,
    running_at_inference,
    runs_of,
    start,
)
from tests.support.waiting import until

SLOW = "/slow?seconds=2"
LONG = "/slow?seconds=60"


async def free_slots(gateway: Gateway) -> float:
    found = await metrics(gateway.admin_url)
    return sum(v for name, v in found.items() if name.startswith("gateway_channel_free_slots"))


async def open_channels(gateway: Gateway, client: httpx.AsyncClient, workers: int = 1) -> None:
    """Call until so many workers have told of all their slots."""
    slots = 4 * workers

    async def free() -> float:
        found = await free_slots(gateway)
        if found < slots:
            await asyncio.gather(*[client.get("/slow?seconds=0.05") for _ in range(slots)])
        return found

    await until(free, lambda found: found == slots)


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
        await open_channels(gateway, client)
        call = await begin_directly(stack, gateway, client, SLOW)
        second = stack.agent()
        first.send(signal.SIGKILL)
        response = await call
        assert response.status_code == 200
        assert response.elapsed.total_seconds() < 10
        assert await runs_of(second) == 1
        # And the next ones are served at once.
        await open_channels(gateway, client)


async def test_the_calls_of_a_killed_gateway_are_stopped_and_the_worker_serves_the_next_one(
    stack: Stack,
) -> None:
    gateway = stack.gateway()
    stack.agent()
    async with gateway.client() as client:
        await open_channels(gateway, client)
        call = await begin_directly(stack, gateway, client, LONG)
        gateway.program.send(signal.SIGKILL)
        await running_at_inference(stack, 0)
        await asyncio.wait([call])
        assert call.exception() is not None
    following = stack.gateway()
    async with following.client() as client:
        await open_channels(following, client)
        response = await client.get("/slow?seconds=0.01")
        assert response.status_code == 200
        assert await dispatched(following, "direct") >= 1


async def test_a_call_of_a_worker_that_stands_still_is_answered_once(stack: Stack) -> None:
    gateway = stack.gateway()
    paused = stack.agent()
    async with gateway.client() as client:
        await open_channels(gateway, client)
        call = await begin_directly(stack, gateway, client, "/slow?seconds=2")
        begun, sent = await runs_of(paused), await dispatched(gateway, "direct")
        paused.send(signal.SIGSTOP)
        # It is in the worker's socket still when it has been answered by the other worker.
        waiting = start(client.get("/slow?seconds=0.1"))
        await until(lambda: dispatched(gateway, "direct"), lambda count: count == sent + 1)
        other = stack.agent()
        assert [(await one).status_code for one in (call, waiting)] == [200, 200]
        assert await runs_of(other) == 2
        paused.send(signal.SIGCONT)
        for _ in range(3):
            # It has read what waited in its sockets before it responds to a new connection.
            assert await runs_of(paused) == begun
        assert await runs_of(other) == 2
        await running_at_inference(stack, 0)
        await open_channels(gateway, client, workers=2)


async def test_a_response_that_a_dead_connection_took_is_sent_once_more(stack: Stack) -> None:
    port = free_port()
    gateway = stack.gateway(ATTACH__LISTEN=f"127.0.0.1:{port}", ATTACH__ADVERTISE="127.0.0.2")
    async with cut_proxy(port) as proxy:
        agent = stack.agent()
        async with gateway.client() as client:
            await open_channels(gateway, client)
            begun = await runs_of(agent)
            call = await begin_directly(stack, gateway, client, SLOW)
            # What the worker says arrives no more, what it is told does.
            proxy.lose_what_clients_send()
            assert (await call).status_code == 200
            assert await runs_of(agent) == begun + 1
            await until(lambda: free_slots(gateway), lambda found: found == 4)


async def test_calls_that_a_dead_connection_took_are_run_all_the_same(stack: Stack) -> None:
    port = free_port()
    gateway = stack.gateway(ATTACH__LISTEN=f"127.0.0.1:{port}", ATTACH__ADVERTISE="127.0.0.2")
    async with cut_proxy(port) as proxy:
        agent = stack.agent()
        async with gateway.client() as client:
            await open_channels(gateway, client)
            begun, sent = await runs_of(agent), await dispatched(gateway, "direct")
            # What the worker is told arrives no more, what it says does.
            proxy.lose_what_servers_send()
            calls = [start(client.get("/slow?seconds=0.1")) for _ in range(2)]
            await until(lambda: dispatched(gateway, "direct"), lambda count: count == sent + 2)
            assert [(await call).status_code for call in calls] == [200, 200]
            assert await runs_of(agent) == begun + 2
            await until(lambda: free_slots(gateway), lambda found: found == 4)


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
