"""The clock that leaves out standstills."""

from runtime.awake import AwakeClock


def test_it_follows_the_time_while_its_checks_come_regularly() -> None:
    clock = AwakeClock(100.0, 1.0)
    assert [clock.advance(at) for at in (101.0, 102.5, 103.0)] == [True] * 3
    assert clock.now == 103.0


def test_a_check_after_a_standstill_does_not_count_and_the_next_one_does() -> None:
    clock = AwakeClock(100.0, 1.0)
    assert clock.advance(101.0)
    assert not clock.advance(113.0)
    assert clock.now == 101.0
    assert clock.advance(114.0)
    assert clock.now == 102.0


def test_a_loop_that_is_always_slow_applies_every_other_check() -> None:
    clock = AwakeClock(0.0, 1.0)
    assert [clock.advance(at) for at in (5.0, 10.0, 15.0, 20.0)] == [False, True, False, True]
    assert clock.now == 10.0


def test_frequent_checks_may_be_late_by_half_a_second() -> None:
    clock = AwakeClock(0.0, 0.1)
    assert clock.advance(0.6)
    assert not clock.advance(1.3)
