"""What is worth starting, from the times of earlier requests."""

import pytest

from wire.head_times import FORGET_S, MARGIN_S, HeadTimes
from worker_agent.job.window import TRIAL_S, ClockOffset, StartGate

WINDOW_S = 5.0


def measured(*times: float) -> HeadTimes:
    heads = HeadTimes()
    for seconds in times:
        heads.add(seconds, 0.0)
    return heads


def gate(*times: float) -> StartGate:
    made = StartGate()
    for seconds in times:
        made.heads.add(seconds, 0.0)
    return made


def starts(
    made: StartGate,
    left_s: float,
    now: float = 0.0,
    *,
    window_s: float = WINDOW_S,
    followers: int = 1000,
) -> bool:
    return made.slack_s(left_s, window_s, now, lambda: followers) is not None


def test_without_a_measurement_only_an_ended_window_is_refused() -> None:
    assert starts(gate(), 0.1)
    assert not starts(gate(), 0.0)
    assert not starts(gate(), -3.0)


def test_a_request_needs_as_long_as_the_function_usually_takes() -> None:
    heads = measured(*[0.1] * 63, 0.103)
    assert heads.needed_s(WINDOW_S, 0.0) == pytest.approx(0.103 * 1.1 + MARGIN_S)
    made = gate(*[0.1] * 64)
    assert not starts(made, 0.15)
    assert starts(made, 0.17)


def test_rare_long_responses_do_not_keep_short_ones_away() -> None:
    heads = measured(*([0.1] * 9 + [10.0]) * 6)
    assert heads.needed_s(WINDOW_S, 0.0) == pytest.approx(0.1 * 1.1 + MARGIN_S)
    # Who can wait for the long ones gets them.
    assert heads.needed_s(60.0, 0.0) == pytest.approx(10.0 + 0.25 + MARGIN_S)


def test_what_takes_longer_than_the_window_is_not_started_while_others_wait() -> None:
    made = gate(*[10.0, 11.0, 12.0, 13.0] * 2)
    assert made.heads.needed_s(WINDOW_S, 0.0) is None
    assert not starts(made, 3.0)
    assert starts(made, 40.0, window_s=60.0)
    assert starts(made, 0.9 * WINDOW_S)
    assert not starts(made, 2.0, followers=0)


def test_something_is_tried_now_and_then_whatever_is_known() -> None:
    made = gate(*[10.0] * 8)
    started = [at / 10 for at in range(100) if starts(made, 3.0, at / 10)]
    assert 8 <= len(started) <= 10
    assert started[0] >= TRIAL_S


def test_one_short_response_is_enough_to_try_the_next() -> None:
    made = gate(*[10.0] * 64)
    assert not starts(made, 3.0)
    made.heads.add(0.1, 0.0)
    assert starts(made, 3.0)


@pytest.mark.parametrize("times", [[10.0] * 7, [0.005] * 50 + [40.0], [0.1] * 7 + [12.0] * 4])
def test_what_may_be_fast_is_started_although_slow_ones_are_known(times: list[float]) -> None:
    assert starts(gate(*times), 2.0)
    assert not starts(gate(*times), 0.01)


def test_what_may_be_slow_waits_for_nothing_unless_more_requests_wait_than_can_be_started() -> None:
    made = gate(*[0.005] * 50, 40.0, *[0.005] * 10)
    assert starts(made, 20.0, window_s=60.0, followers=20)
    assert not starts(made, 20.0, window_s=60.0, followers=10_000)
    assert starts(made, 50.0, window_s=60.0, followers=10_000)


def test_measurements_are_forgotten_when_none_comes() -> None:
    made = gate(*[10.0] * 8)
    assert not starts(made, 3.0, FORGET_S)
    assert starts(made, 3.0, FORGET_S + 1)
    assert made.heads.needed_s(WINDOW_S, FORGET_S + 1) == MARGIN_S


def test_a_function_that_became_slower_is_learned_from_what_was_broken_off() -> None:
    """Each request gets the time that the function is thought to need, and is then withdrawn."""
    made, truth_s = gate(*[0.1] * 64), 2.0
    for _ in range(200):
        needed_s = made.heads.needed_s(WINDOW_S, 0.0)
        assert needed_s is not None
        if needed_s >= truth_s:
            break
        made.heads.add(2 * needed_s, 0.0)
    else:
        pytest.fail("it is never given enough time")


def test_the_longest_time_is_enough_and_ages_with_the_others() -> None:
    heads = measured(3.0, *[0.1] * 63)
    assert heads.ample_s > 3.0
    heads.add(0.1, 0.0)
    assert heads.ample_s < 0.2


def test_the_slack_ends_where_the_time_begins_that_the_function_needs() -> None:
    made = gate(*[1.0] * 8)
    slack_s = made.slack_s(3.0, WINDOW_S, 0.0, lambda: 1)
    assert slack_s == pytest.approx(3.0 - 1.1 - MARGIN_S)


def test_a_clock_is_right_until_the_contrary_shows() -> None:
    offset = ClockOffset()
    offset.saw_age(0.001)
    offset.saw_age(4.0)
    offset.saw_accepted(-1.0)
    assert offset.seconds == 0.0


def test_a_request_from_the_future_shows_a_clock_that_is_behind() -> None:
    offset = ClockOffset()
    offset.saw_age(-7.0)
    offset.saw_age(-5.0)
    assert offset.seconds == -7.0


def test_a_late_response_that_is_accepted_shows_a_clock_that_is_ahead() -> None:
    offset = ClockOffset()
    offset.saw_age(30.0)
    offset.saw_accepted(25.0)
    assert offset.seconds == 30.0
    offset.saw_age(27.0)
    assert offset.seconds == 27.0
    # The clock was set right: the older bound counts no more.
    offset.saw_age(0.01)
    assert offset.seconds == 0.01
    offset.saw_accepted(40.0)
    assert offset.seconds == 40.0


@pytest.mark.parametrize("ahead_s", [-100.0, -5.0, -0.5, 0.0, 0.5, 4.95, 5.05, 6.0, 100.0])
def test_no_difference_of_clocks_stops_a_worker_for_longer_than_a_trial(ahead_s: float) -> None:
    """One call every 100 ms that takes 50 ms, none of which waits: nearly all must be started."""
    made = gate(*[0.05] * 8)
    refused_at = []
    for tick in range(200):
        now = tick / 10
        made.offset.saw_age(ahead_s)
        left_s = WINDOW_S - ahead_s
        if starts(made, left_s, now, followers=0):
            made.offset.saw_accepted(0.05 - left_s)
        else:
            refused_at.append(now)
    assert all(at <= TRIAL_S for at in refused_at)
