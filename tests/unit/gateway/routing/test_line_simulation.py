"""Goodput under overload, simulated: the rules of gateway and worker together."""

from collections.abc import Callable
from random import Random

import pytest

from tests.support.overload import Overload

FACTORS = (1.25, 2.0, 10.0)
GOODPUT = 0.95

Draw = Callable[[Random], float]


def always(seconds: float) -> Draw:
    return lambda random: seconds


def mixed(short_s: float, long_s: float, part: float) -> Draw:
    return lambda random: long_s if random.random() < part else short_s


def overload(
    factor: float, service_s: Draw, mean_s: float, window_s: Draw, slots: int = 4, **more: object
) -> Overload:
    return Overload(
        slots=slots,
        rate=factor * slots / mean_s,
        service_s=service_s,
        window_s=window_s,
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("service_s", "mean_s", "window_s", "duration_s"),
    [
        (always(0.1), 0.1, always(3), 20),
        (always(0.1), 0.1, always(1), 20),
        (always(2), 2, always(3), 200),
        (always(2), 2, always(10), 200),
        (always(60), 60, always(300), 4000),
        (mixed(0.1, 2, 0.1), 0.29, always(3), 40),
        (lambda random: random.expovariate(2), 0.5, always(5), 60),
        (always(0.1), 0.1, lambda random: random.choice([1, 3, 10, 60]), 40),
    ],
)
def test_goodput_is_the_capacity_at_any_offered_load(
    factor: float, service_s: Draw, mean_s: float, window_s: Draw, duration_s: float
) -> None:
    run = overload(factor, service_s, mean_s, window_s).run(duration_s)
    assert run.goodput(duration_s / 4, duration_s) >= GOODPUT
    assert run.refused


@pytest.mark.parametrize("is_acked_at_head", [True, False])
@pytest.mark.parametrize("factor", FACTORS)
def test_streams_hold_their_slots_for_longer_than_their_heads_take(
    factor: float, is_acked_at_head: bool
) -> None:
    """A lease may end with the response head or with the response: the pace is right for both."""
    run = overload(
        factor,
        always(10),
        10,
        always(60),
        slots=16,
        head_s=0.2,
        is_acked_at_head=is_acked_at_head,
    ).run(400)
    assert run.goodput(100, 400) >= GOODPUT
    late = [at for at in run.timed_out if at > 200]
    assert len(late) <= 0.35 * sum(at > 200 for at, _ in run.answered)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("window_s", [1, 3])
def test_several_processes_with_uneven_load_see_one_line(factor: float, window_s: float) -> None:
    shares = (10, 3, 1, 0.1)
    run = overload(factor, always(0.1), 0.1, always(window_s), shares=shares).run(20)
    assert run.goodput(5, 20) >= GOODPUT
    assert not run.timed_out


def test_instances_come_and_go() -> None:
    run = overload(10, always(0.1), 0.1, always(3)).run(10)
    run.slots = 20
    run.run(20)
    assert run.goodput(11, 20) >= GOODPUT
    run.slots = 4
    run.run(35)
    # The line is too long for a moment: those at its end are not started.
    assert run.goodput(21, 35) >= GOODPUT
    assert not [at for at in run.timed_out if at > 30]


def test_nothing_is_refused_below_the_capacity() -> None:
    run = overload(0.7, always(0.1), 0.1, always(3)).run(60)
    assert not run.refused
    assert not run.timed_out


def test_nearly_all_that_is_admitted_is_answered() -> None:
    run = overload(10, always(0.1), 0.1, always(3)).run(20)
    assert len(run.timed_out) <= 0.01 * len(run.answered)


def test_after_the_load_calls_are_admitted_within_a_second() -> None:
    run = overload(10, always(0.1), 0.1, always(3)).run(10, load_ends_s=10)
    run.run(11, load_ends_s=10)
    assert run.call(0, 3, 0.1) is None
    run.run(15, load_ends_s=10)
    assert not run.timed_out
    assert run.call(0, 1, 0.1) is None


def test_who_comes_back_when_told_is_admitted_once_the_load_is_over() -> None:
    run = overload(10, always(0.1), 0.1, lambda random: 60).run(30)
    retry_after_s = run.call(0, 3, 0.1)
    assert retry_after_s is not None
    assert retry_after_s > 10
    run.run(30 + retry_after_s, load_ends_s=30)
    assert run.call(0, 3, 0.1) is None


def quiet_at_first(*, shares: tuple[float, ...] = (1.0,)) -> Overload:
    """Return four slots that only the test calls."""
    run = Overload(slots=4, rate=1.0, service_s=always(1), window_s=always(1), shares=shares)
    return run.run(0.5, load_ends_s=0.0)


def quiet(*, shares: tuple[float, ...] = (1.0,)) -> Overload:
    """Return four slots on which a few calls of 50 ms have run, and only the test calls now."""
    run = quiet_at_first(shares=shares)
    for _ in range(12):
        for gateway in range(len(shares)):
            assert run.call(gateway, 20, 0.05) is None
    run.run(5, load_ends_s=0.0)
    return run


def refusals(run: Overload, seconds: float, gateway: int = 0) -> list[float]:
    """Make a short call every 50 ms; return after how long they were refused."""
    began_at, refused = run.now, []
    while run.now < began_at + seconds:
        if run.call(gateway, 20, 0.05) is not None:
            refused.append(run.now - began_at)
        run.run(run.now + 0.05, load_ends_s=0.0)
    return refused


def crowd(run: Overload, service_s: float, gateways: tuple[int, ...] = (0,)) -> None:
    """Let 400 calls with a long window come within 4 s, and 4 s pass."""
    for number in range(400):
        run.call(gateways[number % len(gateways)], 3600, service_s)
        run.run(run.now + 0.01, load_ends_s=0.0)
    run.run(run.now + 4, load_ends_s=0.0)
    assert refusals(run, 0.1)


@pytest.mark.parametrize("service_s", [0.3, 1.0])
def test_when_all_clients_leave_the_next_call_is_admitted(service_s: float) -> None:
    run = quiet()
    crowd(run, service_s)
    run.leave(0)
    assert not refusals(run, 4)


def test_when_the_clients_of_other_processes_leave_it_is_known_within_a_moment() -> None:
    run = quiet(shares=(1.0, 1.0))
    crowd(run, 1.0, gateways=(0, *19 * (1,)))
    run.leave(1)
    assert max(refusals(run, 4), default=0.0) <= 0.5


def test_when_the_clients_of_all_processes_leave_the_next_call_is_admitted() -> None:
    run = quiet(shares=(1.0, 1.0))
    crowd(run, 1.0, gateways=(0, 1))
    run.leave(0)
    run.leave(1)
    assert not refusals(run, 4)


def test_quick_calls_behind_long_ones_are_admitted() -> None:
    """All four slots stand for 8 s, then the quick calls need 5 ms each: nobody waits for long."""
    run = quiet_at_first()
    refused = 0
    for _ in range(3):
        began_at = run.now
        for _ in range(4):
            assert run.call(0, 60, 8.0) is None
        run.run(began_at + 1, load_ends_s=0.0)
        for _ in range(50):
            refused += run.call(0, 20, 0.02) is not None
            run.run(run.now + 0.05, load_ends_s=0.0)
        run.run(began_at + 9.5, load_ends_s=0.0)
    assert not refused
    assert not run.timed_out


def test_once_the_load_has_ended_nothing_is_refused() -> None:
    """Quick calls waited behind long ones, so the pace was low, and the line seemed long."""
    run = quiet()
    for _ in range(4):
        run.call(0, 60, 8.0)
    run.run(6, load_ends_s=0.0)
    for _ in range(50):
        run.call(0, 20, 0.02)
        run.run(run.now + 0.05, load_ends_s=0.0)
    run.run(5 + 8 + 0.4, load_ends_s=0.0)
    assert len(run.answered) == 12 + 54
    assert not refusals(run, 4)
