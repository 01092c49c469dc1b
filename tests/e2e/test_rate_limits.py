"""A rate limit counts the calls of all gateway processes together."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice

import httpx
import pytest

from gateway.domain.model import FunctionVersion, VersionKey
from gateway.domain.rate_limit import RateLimitPolicy
from runtime.tasks import spawn
from tests.support.followed_store import opened
from tests.support.stack import Gateway, Stack
from tests.support.waiting import until

AT_A_TIME = 6


class Load:
    """Clients that call several gateways until they are stopped; ``statuses`` counts responses."""

    def __init__(self, gateways: Sequence[Gateway]) -> None:
        self.statuses: Counter[int] = Counter()
        self._is_stopped = False
        self._clients = [gateway.client() for gateway in gateways]
        self._tasks = [
            spawn(self._call(client), "load")
            for client in islice(cycle(self._clients), AT_A_TIME * len(self._clients))
        ]

    async def _call(self, client: httpx.AsyncClient) -> None:
        while not self._is_stopped:
            try:
                self.statuses[(await client.post("/echo", content=b"x")).status_code] += 1
            except httpx.TransportError:
                # Its gateway was killed.
                return

    async def stop(self) -> None:
        """Stop calling, and wait for the calls under way."""
        self._is_stopped = True
        await asyncio.gather(*self._tasks)
        for client in self._clients:
            await client.aclose()


async def limit(stack: Stack, **policy: str) -> None:
    """Set the limit of the function; call it before the gateways start."""
    async with opened(stack.nats.url) as store:
        found = await store.get(VersionKey(stack.demo.function_id, stack.demo.version_id))
        assert found is not None
        version, revision = found
        assert isinstance(version, FunctionVersion)
        await store.put(replace(version, rate_limit=RateLimitPolicy(**policy)), revision)


async def started(stack: Stack, count: int) -> list[Gateway]:
    return await asyncio.gather(*(asyncio.to_thread(stack.gateway) for _ in range(count)))


async def statuses(gateway: Gateway, count: int) -> Counter[int]:
    """Return the statuses of ``count`` calls at the same time."""
    async with gateway.client() as client:
        calls = [client.post("/echo", content=b"x") for _ in range(count)]
        return Counter(response.status_code for response in await asyncio.gather(*calls))


@pytest.mark.timeout(120)
async def test_four_processes_share_a_limit_also_while_one_dies_and_another_starts(
    stack: Stack,
) -> None:
    await limit(stack, rate="600-M")
    gateways = await started(stack, 4)
    await asyncio.to_thread(stack.agent)
    began_at = time.monotonic()
    load = Load(gateways)
    await until(lambda: load.statuses[200], lambda count: count > 150)
    gateways[1].program.process.kill()
    late = Load(await started(stack, 1))
    await until(lambda: (late.statuses[429], load.statuses[429]), lambda both: min(both) > 20)
    await asyncio.gather(load.stop(), late.stop())
    expected = 600 + 10 * (time.monotonic() - began_at)
    accepted = load.statuses[200] + late.statuses[200]
    assert abs(accepted - expected) <= 0.05 * expected, (load.statuses, late.statuses)
    assert set(load.statuses) | set(late.statuses) == {200, 429}


async def test_one_process_is_exact_and_its_successor_goes_on_counting(stack: Stack) -> None:
    await limit(stack, rate="40-H")
    (gateway,) = await started(stack, 1)
    await asyncio.to_thread(stack.agent)
    assert await statuses(gateway, 30) == {200: 30}
    assert await asyncio.to_thread(gateway.program.stop) == 0
    (gateway,) = await started(stack, 1)
    assert await statuses(gateway, 30) == {200: 10, 429: 20}
    async with gateway.client() as client:
        refused = await client.post("/echo", content=b"x")
    assert refused.json()["reason"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 90
    assert refused.headers["x-ratelimit-limit"] == "40"
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert int(refused.headers["x-ratelimit-reset"]) - time.time() <= 91


async def test_calls_are_limited_again_when_nats_is_back(stack: Stack) -> None:
    await limit(stack, rate="10-H")
    (gateway,) = await started(stack, 1)
    await asyncio.to_thread(stack.agent)
    assert await statuses(gateway, 4) == {200: 4}
    await stack.nats.stop()
    # What may be called cannot be queued; the process counts it alone.
    assert await statuses(gateway, 9) == {503: 6, 429: 3}
    await stack.nats.start()
    gateway.program.wait_event("store.reconnected")
    assert (await statuses(gateway, 3))[429] == 3
