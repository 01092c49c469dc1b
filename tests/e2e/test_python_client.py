"""The Python client's transports through the whole system."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import httpx
import pytest

from invocation_client import (
    AsyncHttp2Transport,
    AsyncQueueTransport,
    Cancellation,
    Http2Transport,
    QueueTransport,
    QueueUpdate,
)
from tests.support.stack import (
    Gateway,
    Stack,
    running_at_inference,
    runs_of,
    start,
    until_waiting,
)
from tests.support.waiting import PATIENCE_S, until


class Calls(Protocol):
    """Calls of one client."""

    def begin(self, path: str) -> "Call":
        """Begin a call, without waiting for its response."""

    async def get(self, path: str) -> int:
        """Call and return the status."""


class Call(Protocol):
    """A call that waits for its response."""

    async def cancel(self) -> None:
        """Cancel it, and wait until its caller knows."""


class TaskCalls:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    def begin(self, path: str) -> "TaskCall":
        return TaskCall(start(self._client.get(path)))

    async def get(self, path: str) -> int:
        return (await self._client.get(path)).status_code


class TaskCall:
    def __init__(self, task: "asyncio.Task[httpx.Response]") -> None:
        self._task = task

    async def cancel(self) -> None:
        self._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._task


class ThreadCalls:
    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def begin(self, path: str) -> "ThreadCall":
        return ThreadCall(self._client, path)

    async def get(self, path: str) -> int:
        return (await asyncio.to_thread(self._client.get, path)).status_code


class ThreadCall:
    def __init__(self, client: httpx.Client, path: str) -> None:
        self._cancellation = Cancellation()
        self._task = start(asyncio.to_thread(self._run, client, path))

    def _run(self, client: httpx.Client, path: str) -> None:
        with self._cancellation.scope():
            client.get(path)

    async def cancel(self) -> None:
        await asyncio.to_thread(self._cancellation.cancel)
        with pytest.raises(httpx.ReadError):
            await self._task


@asynccontextmanager
async def tasks(gateway: Gateway) -> AsyncIterator[Calls]:
    async with httpx.AsyncClient(
        transport=AsyncHttp2Transport(),
        base_url=gateway.url,
        headers=gateway.headers,
        timeout=PATIENCE_S,
    ) as client:
        yield TaskCalls(client)


@asynccontextmanager
async def threads(gateway: Gateway) -> AsyncIterator[Calls]:
    with httpx.Client(
        transport=Http2Transport(),
        base_url=gateway.url,
        headers=gateway.headers,
        timeout=PATIENCE_S,
    ) as client:
        yield ThreadCalls(client)


@pytest.mark.parametrize("kind", [tasks, threads])
async def test_a_cancelled_call_leaves_the_line_or_ends_its_run(
    stack: Stack, kind: Callable[[Gateway], AbstractAsyncContextManager[Calls]]
) -> None:
    gateway = stack.gateway()
    agent = stack.agent(INFERENCE__MAX_CONCURRENCY="1")
    async with kind(gateway) as calls:
        running = calls.begin("/slow?seconds=60")
        await running_at_inference(stack, 1)
        waiting = calls.begin("/slow?seconds=60")
        await until_waiting(gateway, 1)
        await waiting.cancel()
        await until_waiting(gateway, 0)
        await running_at_inference(stack, 1)
        await running.cancel()
        await running_at_inference(stack, 0)
        assert await calls.get("/slow?seconds=0") == 200
    assert await runs_of(agent) == 2


class Updates:
    """What was told of the calls of one client, by request id."""

    def __init__(self) -> None:
        self.told: dict[str, list[QueueUpdate]] = {}

    def add(self, update: QueueUpdate) -> None:
        self.told.setdefault(update.request_id, []).append(update)

    def positions(self) -> list[list[int]]:
        """Return the positions of each call, in the order in which the calls began."""
        return [
            [update.position for update in updates if update.position is not None]
            for updates in self.told.values()
        ]


@asynccontextmanager
async def watching_tasks(gateway: Gateway, updates: Updates) -> AsyncIterator[Calls]:
    async with httpx.AsyncClient(
        transport=AsyncQueueTransport(AsyncHttp2Transport(), updates.add),
        base_url=gateway.url,
        headers=gateway.headers,
        timeout=PATIENCE_S,
    ) as client:
        yield TaskCalls(client)


@asynccontextmanager
async def watching_threads(gateway: Gateway, updates: Updates) -> AsyncIterator[Calls]:
    with httpx.Client(
        transport=QueueTransport(Http2Transport(), updates.add),
        base_url=gateway.url,
        headers=gateway.headers,
        timeout=PATIENCE_S,
    ) as client:
        yield ThreadCalls(client)


@pytest.mark.parametrize("kind", [watching_tasks, watching_threads])
async def test_a_call_that_waits_knows_its_position_as_it_changes(
    stack: Stack, kind: Callable[[Gateway, Updates], AbstractAsyncContextManager[Calls]]
) -> None:
    gateway, updates = stack.gateway(), Updates()
    agent = stack.agent(INFERENCE__MAX_CONCURRENCY="1")
    async with kind(gateway, updates) as calls:
        running = calls.begin("/slow?seconds=60")
        await running_at_inference(stack, 1)
        second = calls.begin("/slow?seconds=60")
        await until(updates.positions, lambda found: found[1:] == [[1]])
        third = start(calls.get("/slow?seconds=0"))
        await until(updates.positions, lambda found: found[2:] == [[2]])
        await second.cancel()
        await until(updates.positions, lambda found: found[2:] == [[2, 1]])
        await running.cancel()
        assert await third == 200
    assert await runs_of(agent) == 2
