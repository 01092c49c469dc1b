"""When lines are measured, with a queue whose state the test decides."""

import asyncio

import pytest

from gateway.dispatch.lines import SUSPECT_S, Lines
from gateway.errors import Overloaded
from queueing.interface import LineState, OwnLine, QueueUnavailable
from tests.support.recorder import RecordedQueue, Script
from tests.support.waiting import until


class KnownQueue(RecordedQueue):
    """A queue in the state that the test gives it."""

    def __init__(self) -> None:
        super().__init__(Script())
        self.wait_s = 0.0
        self.state: LineState | None = LineState("one", 0, 0, 0)
        self.own = OwnLine()
        self.published_meanwhile = 0
        self.measured = 0

    def has_waited(self, version_id: str, seconds: float) -> bool:
        return self.wait_s >= seconds

    def own_line(self, version_id: str, delivered: int) -> OwnLine:
        return self.own

    async def line(self, version_id: str) -> LineState:
        self.measured += 1
        new = self.published_meanwhile
        self.own = self.own._replace(
            published=self.own.published + new, waiting=self.own.waiting + new
        )
        await asyncio.sleep(0)
        if self.state is None:
            raise QueueUnavailable("away")
        return self.state


class Bench:
    def __init__(self) -> None:
        self.now = 100.0
        self.queue = KnownQueue()
        self.lines = Lines(self.queue, lambda: self.now)  # type: ignore[arg-type]

    async def measure(self, count: int) -> None:
        """Wait until ``count`` measurements have been taken in."""
        await until(lambda: self.queue.measured, lambda measured: measured == count)
        for _ in range(3):
            await asyncio.sleep(0)

    def state(self, waiting: int, deliveries: int) -> None:
        self.queue.state = LineState("one", waiting, 4, deliveries)


async def overloaded(bench: Bench | None = None) -> Bench:
    """Return a bench whose function leases 40 calls per second, with 10 s of them ahead."""
    bench = bench or Bench()
    bench.queue.wait_s = SUSPECT_S
    for second in range(3):
        bench.state(400, 40 * second)
        bench.lines.admit("v", 3) if second == 0 else bench.lines.tick()
        await bench.measure(second + 1)
        bench.now += 1.0
    return bench


async def test_a_version_that_answers_at_once_is_never_measured() -> None:
    bench = Bench()
    bench.queue.wait_s = SUSPECT_S * 0.9
    for _ in range(100):
        bench.lines.admit("v", 1)
    bench.lines.tick()
    assert bench.queue.measured == len(bench.lines) == 0


async def test_a_call_that_comes_too_late_is_refused_and_told_when_to_come_back() -> None:
    bench = await overloaded()
    with pytest.raises(Overloaded) as refused:
        bench.lines.admit("v", 3)
    assert dict(refused.value.headers)[b"retry-after"] in {b"6", b"7"}
    bench.lines.admit("v", 20)
    bench.lines.admit("another", 1)
    assert bench.lines.retry_after_s("v", 3) in {6, 7}
    assert bench.lines.retry_after_s("another", 3) == bench.lines.retry_after_s("third", 1) == 1


async def test_own_calls_that_are_all_refused_do_not_hide_the_line() -> None:
    bench = await overloaded()
    bench.queue.wait_s = 0.0
    with pytest.raises(Overloaded):
        bench.lines.admit("v", 3)


async def test_a_line_that_is_gone_is_measured_no_more() -> None:
    bench = await overloaded()
    bench.state(0, 500)
    bench.lines.tick()
    await bench.measure(4)
    bench.lines.admit("v", 1)
    bench.queue.wait_s = 0.0
    bench.now += 10
    bench.lines.tick()
    bench.lines.admit("v", 1)
    assert bench.queue.measured == 4


async def test_a_broker_that_is_away_refuses_nothing() -> None:
    bench = await overloaded()
    bench.queue.state = None
    for measured in range(4, 12):
        bench.now += 1.0
        bench.lines.tick()
        await bench.measure(measured)
    bench.lines.admit("v", 1)


async def test_one_measurement_is_on_its_way_at_a_time() -> None:
    bench = Bench()
    bench.queue.wait_s = 1.0
    for _ in range(50):
        bench.lines.admit("v", 1)
    await bench.measure(1)
    bench.lines.admit("v", 1)
    assert bench.queue.measured == 1


async def test_a_version_that_is_not_called_is_forgotten() -> None:
    bench = await overloaded()
    bench.queue.state = LineState("one", 0, 0, 500)
    bench.lines.tick()
    await bench.measure(4)
    bench.now += 400
    bench.lines.tick()
    assert len(bench.lines) == 0


async def test_own_calls_that_have_left_are_forgotten_without_a_measurement() -> None:
    bench = Bench()
    bench.queue.own = OwnLine(400, published=400, waiting=400)
    await overloaded(bench)
    with pytest.raises(Overloaded):
        bench.lines.admit("v", 3)
    assert bench.lines.retry_after_s("v", 3) in {6, 7}
    bench.queue.own = OwnLine(400, published=400)
    bench.lines.admit("v", 3)
    assert bench.lines.retry_after_s("v", 3) == 1


async def test_own_calls_that_come_during_a_measurement_are_not_in_it() -> None:
    """400 wait, none of this process: 400 that come meanwhile and leave again change nothing."""
    bench = Bench()
    await overloaded(bench)
    bench.queue.published_meanwhile = 400
    bench.now += 1.0
    bench.lines.tick()
    await bench.measure(4)
    bench.queue.own = OwnLine(400, published=400)
    with pytest.raises(Overloaded):
        bench.lines.admit("v", 3)


@pytest.mark.parametrize(("direct", "is_refused"), [(0, True), (3, False)])
async def test_calls_that_came_over_channels_hold_slots_of_the_line(
    direct: int, is_refused: bool
) -> None:
    bench = Bench()
    bench.queue.wait_s = SUSPECT_S
    bench.lines.count_direct(lambda _: direct)
    for count in (1, 2):
        bench.queue.state = LineState("one", 6, 1, 1)
        bench.lines.admit("v", 60)
        await bench.measure(count)
        for _ in range(20):
            bench.lines.answered("v", 20.0)
        bench.now += 1.0
    if is_refused:
        with pytest.raises(Overloaded):
            bench.lines.admit("v", 60)
    else:
        bench.lines.admit("v", 60)
