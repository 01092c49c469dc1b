"""The timer wheel, compared with a plain list of deadlines."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.timers import IDLE, Timers


class Waiter:
    """A timer owner."""

    def __init__(self) -> None:
        self.due_at: float | None = None
        self.slot = IDLE


def test_an_owner_is_due_never_before_its_time_and_then_at_once() -> None:
    timers: Timers[Waiter] = Timers(0.1, now=1000.0)
    waiter = Waiter()
    timers.schedule(1060.05, waiter)
    assert timers.advance(1060.0) == []
    assert timers.advance(1060.04) == []
    assert waiter.due_at == 1060.05
    assert timers.advance(1060.06) == [waiter]
    assert timers.advance(2000.0) == []
    assert waiter.slot == IDLE
    assert len(timers) == 0


def test_who_was_due_has_no_deadline_any_more() -> None:
    timers: Timers[Waiter] = Timers()
    waiter = Waiter()
    timers.schedule(1.0, waiter)
    timers.advance(1.0)
    assert waiter.due_at is None


def test_a_deadline_in_the_past_is_due_at_the_next_tick() -> None:
    timers: Timers[Waiter] = Timers(0.1, now=50.0)
    waiter = Waiter()
    timers.schedule(3.0, waiter)
    assert timers.advance(50.0) == [waiter]


def test_nothing_is_kept_of_a_cancelled_owner() -> None:
    timers: Timers[Waiter] = Timers()
    waiters = [Waiter() for _ in range(1000)]
    for number, waiter in enumerate(waiters):
        timers.schedule(3600.0 + number, waiter)
    for waiter in waiters:
        waiter.due_at = None
        timers.cancel(waiter)
        timers.cancel(waiter)
    assert len(timers) == 0
    assert repr(timers) == "Timers(0 owners in 0 ticks)"


def test_an_owner_that_put_its_deadline_off_is_due_at_the_later_time() -> None:
    timers: Timers[Waiter] = Timers(0.1)
    waiter = Waiter()
    timers.schedule(1.0, waiter)
    waiter.due_at = 3605.0
    assert timers.advance(2.0) == []
    assert len(timers) == 1
    assert timers.advance(3604.9) == []
    assert timers.advance(3605.0) == [waiter]


def test_an_owner_that_cleared_its_deadline_is_forgotten_when_the_time_comes() -> None:
    timers: Timers[Waiter] = Timers(0.1)
    waiter = Waiter()
    timers.schedule(1.0, waiter)
    waiter.due_at = None
    assert timers.advance(1.5) == []
    assert (waiter.slot, len(timers)) == (IDLE, 0)


def test_scheduling_again_replaces_the_deadline_earlier_or_later() -> None:
    timers: Timers[Waiter] = Timers(0.1)
    waiter = Waiter()
    timers.schedule(50.0, waiter)
    timers.schedule(5.0, waiter)
    assert len(timers) == 1
    assert timers.advance(5.0) == [waiter]
    assert timers.advance(60.0) == []


_steps = st.lists(
    st.tuples(
        st.sampled_from(["schedule", "cancel", "put off", "advance"]),
        st.integers(0, 4),
        st.floats(0, 30, allow_nan=False),
    ),
    max_size=60,
)


@given(_steps, st.floats(0, 1e6), st.sampled_from([0.1, 0.25, 1.0]))
def test_the_wheel_does_what_a_list_of_deadlines_would(
    steps: list[tuple[str, int, float]], start: float, tick_s: float
) -> None:
    now = start
    timers: Timers[Waiter] = Timers(tick_s, now)
    waiters = [Waiter() for _ in range(5)]
    expected: dict[Waiter, float] = {}
    for what, number, seconds in steps:
        waiter = waiters[number]
        if what == "schedule":
            timers.schedule(now + seconds - 1, waiter)
            expected[waiter] = now + seconds - 1
        elif what == "cancel":
            timers.cancel(waiter)
            expected.pop(waiter, None)
        elif what == "put off":
            if waiter in expected:
                expected[waiter] += seconds
                waiter.due_at = expected[waiter]
        else:
            now += seconds
            due = timers.advance(now)
            assert sorted(map(id, due)) == sorted(
                id(other) for other, at in expected.items() if at <= now
            )
            for other in due:
                del expected[other]
        assert len(timers) == len(expected)
