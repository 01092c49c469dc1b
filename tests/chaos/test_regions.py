"""A region serves its own calls first and helps others; cut off, it goes on."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from runtime.tasks import spawn
from tests.chaos.checks import (
    max_concurrency_is_kept,
    no_clean_end_of_a_cut_response,
    nothing_hangs,
    nothing_has_another_calls_data,
    nothing_is_left,
    nothing_runs_after_its_client_was_told,
    nothing_runs_after_its_first_byte,
    violations_of,
)
from tests.chaos.history import Call, End, Fault, FaultKind, History, Kind
from tests.chaos.machines import why_no_machines
from tests.chaos.payloads import CALL, target
from tests.chaos.regions import FUNCTION, REGIONS, RegionsWorld, gateway_of, region_of
from tests.chaos.run import load, read_runs
from tests.chaos.world import MAX_CONCURRENCY, settled
from tests.support.waiting import PATIENCE_S, until

LIMIT_S = 240.0
SLOTS = 2 * MAX_CONCURRENCY
"""Of the workers of one region."""
AWAY = REGIONS[2]
CUT_S = 18.0
SETTLE_S = 70.0
EFFECT_S = 4.0
"""So long after a cut ends what was under way between regions: a lease, and a run elsewhere."""


@pytest.fixture
async def caller(world: RegionsWorld) -> AsyncIterator["Caller"]:
    found = Caller(world)
    async with found.client:
        yield found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[RegionsWorld]:
    if reason := why_no_machines():
        pytest.skip(reason)
    found = RegionsWorld(tmp_path)
    try:
        await found.start()
        yield found
    finally:
        await found.stop()


class Caller:
    """Calls the function at the gateway of a region."""

    def __init__(self, world: RegionsWorld) -> None:
        self._target = world.targets[FUNCTION]
        headers = {
            "authorization": f"Bearer {self._target.api_key}",
            "function-id": self._target.function_id,
        }
        limits = httpx.Limits(max_connections=None)
        self.client = httpx.AsyncClient(timeout=PATIENCE_S, headers=headers, limits=limits)

    def url(self, region: str) -> str:
        host, port = self._target.gateways[gateway_of(region)]
        return f"http://{host}:{port}"

    async def call(self, region: str, number: int, ms: int, **headers: str) -> httpx.Response:
        path = target(number, "slow", {"ms": ms})
        own = {CALL: str(number), **headers}
        return await self.client.get(f"{self.url(region)}{path}", headers=own)

    async def poll(self, region: str, request_id: str) -> httpx.Response:
        return await self.client.get(f"{self.url(region)}/v2/requests/{request_id}")

    async def many(self, region: str, numbers: range, ms: int) -> None:
        """Make calls at the same time; all succeed."""
        calls = [self.call(region, number, ms) for number in numbers]
        found = await asyncio.gather(*calls)
        assert [one.status_code for one in found] == [200] * len(numbers)


def regions_of(world: RegionsWorld, numbers: range) -> Counter[str]:
    """Return where calls ran, each of which ran once."""
    runs = [run for run in read_runs(world) if run.number in numbers]
    assert len(runs) == len(numbers)
    return Counter(region_of(run.server) for run in runs)


@pytest.mark.timeout(LIMIT_S)
async def test_calls_run_in_their_region_and_elsewhere_when_it_is_full(
    world: RegionsWorld, caller: "Caller"
) -> None:
    own, *_ = REGIONS
    first, full, again = range(1, SLOTS + 1), range(101, 101 + SLOTS + 6), range(201, 201 + SLOTS)
    await caller.many(own, first, 1000)
    assert regions_of(world, first) == {own: SLOTS}
    await caller.many(own, full, 4000)
    found = regions_of(world, full)
    assert found[own] == SLOTS, found
    runs = [run for run in read_runs(world) if run.number in full]
    # All ran at the same time.
    assert max(run.started_at for run in runs) < min(run.ended_at for run in runs)
    # The workers elsewhere have not become workers of this region.
    await caller.many(own, again, 1000)
    assert regions_of(world, again) == {own: SLOTS}


@pytest.mark.timeout(LIMIT_S)
async def test_a_region_that_is_cut_off_goes_on_and_is_found_again(
    world: RegionsWorld, caller: "Caller"
) -> None:
    # A call of the region that will be away, which another region knows.
    accepted = await caller.call(AWAY, 900_001, 45_000, prefer="respond-async")
    assert accepted.status_code == 202, accepted.text
    request_id = accepted.headers["nvcf-reqid"]
    here = REGIONS[0]
    assert (await caller.poll(here, request_id)).status_code == 200
    world.take_baseline()
    loading = spawn(load(world, 1, 36.0), "load")
    await asyncio.sleep(6)
    began_at = time.monotonic()
    world.cut_off(AWAY)
    asked = [spawn(caller.poll(region, request_id), "poll") for region in REGIONS]
    away, there, own = [await one for one in asked]
    answers = [(one.status_code, one.json().get("reason")) for one in (away, there)]
    assert answers == [(503, "holder_silent")] * 2, answers
    assert own.status_code == 200
    await asyncio.sleep(max(0.0, began_at + CUT_S - time.monotonic()))
    world.restore(AWAY)
    ended_at = time.monotonic()

    async def answer() -> int:
        return (await caller.poll(here, request_id)).status_code

    await until(answer, lambda status: status == 200, what="the call to be found again")
    calls = await loading
    assert failures(calls, began_at, ended_at) == []
    cut = [call for call in calls if began_at < call.started_at < ended_at]
    assert {call.gateway for call in cut} == set(map(gateway_of, REGIONS))
    gauges = await settled(world, SETTLE_S)
    faults = [
        Fault(FaultKind.CUT, part, began_at, ended_at)
        for part in world.parts
        if region_of(part) == AWAY
    ]
    starts = {agent: world.parts[agent].starts for agent in world.layout.servers}
    history = History(world.layout, calls, read_runs(world), faults, gauges, starts)
    assert violations_of(history, CHECKS) == []


CHECKS = (
    nothing_runs_after_its_first_byte,
    nothing_runs_after_its_client_was_told,
    nothing_hangs,
    nothing_has_another_calls_data,
    no_clean_end_of_a_cut_response,
    max_concurrency_is_kept,
    nothing_is_left,
)


def failures(calls: list[Call], began_at: float, ended_at: float) -> list[str]:
    """Return the calls that failed, apart from those under way when a link was cut or restored."""
    return [
        f"{call.number} ({call.kind}, {call.gateway}, window {call.window_s:g} s) {call.outcome} "
        f"{call.started_at - began_at:.2f} s after the cut"
        for call in calls
        if call.end is not End.LEFT
        and not (call.is_served and call.status == (422 if call.kind is Kind.ERROR else 200))
        and not any(
            at - call.window_s < call.started_at < at + EFFECT_S for at in (began_at, ended_at)
        )
    ]
