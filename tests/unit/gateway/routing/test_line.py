"""Which calls are admitted, from measurements of the line."""

import pytest

from gateway.routing.line import MAX_RETRY_AFTER_S, STALE_S, Line
from queueing.interface import LineState, OwnLine

POLL_S = 3.0


def busy(
    pace: int = 40, waiting: int = 200, leased: int = 4, seconds: int = 4, lease_s: float = 0.1
) -> Line:
    """Return a line that was measured once per second until ``seconds``."""
    line = Line()
    if lease_s:
        line.answered(lease_s, 0.0)
    for at in range(seconds + 1):
        line.measured(LineState("one", waiting, leased, pace * at), OwnLine(1000), float(at))
    return line


def test_without_a_measurement_every_call_is_admitted() -> None:
    assert Line().excess_s(1.0, OwnLine(1_000_000), 0.0) == 0.0


def test_nothing_is_refused_while_no_call_waits() -> None:
    line = busy(waiting=0)
    assert not line.is_long(4.0)
    assert line.excess_s(1.0, OwnLine(1_000), 4.0) == line.excess_s(1.0, OwnLine(1_900), 4.0) == 0.0


def test_a_burst_just_after_a_line_meets_busy_slots() -> None:
    line = busy(waiting=200)
    line.measured(LineState("one", 0, 4, 200), OwnLine(1000), 4.25)
    assert line.excess_s(3, OwnLine(1010), 4.3) == 0.0
    assert line.excess_s(3, OwnLine(1200), 4.3) > 0.0
    assert line.is_long(4.9)
    assert not line.is_long(5.1)
    assert line.excess_s(3, OwnLine(1200), 5.1) == 0.0


def test_a_call_is_refused_when_those_ahead_take_longer_than_its_window() -> None:
    line = busy(waiting=200)  # 5 s at 40 per second
    assert line.excess_s(3, OwnLine(1000), 4.0) == pytest.approx(2.1, abs=0.2)
    assert line.retry_after_s(3, OwnLine(1000), 4.0) == 3
    assert line.excess_s(6, OwnLine(1000), 4.0) == 0.0


def test_what_was_published_since_is_ahead_and_what_was_leased_since_is_not() -> None:
    line = busy(waiting=100)
    assert line.excess_s(POLL_S, OwnLine(1000), 4.0) == 0.0
    assert line.excess_s(POLL_S, OwnLine(1040), 4.0) > 0.0
    assert line.excess_s(POLL_S, OwnLine(1040), 5.0) == 0.0


def test_the_time_of_the_function_itself_belongs_to_the_window() -> None:
    line = busy(pace=2, waiting=4, lease_s=2.0)
    assert line.excess_s(3, OwnLine(1000), 4.0) > 0.0
    assert line.excess_s(6, OwnLine(1000), 4.0) == 0.0


def test_the_grace_is_used_for_a_function_that_takes_most_of_the_window() -> None:
    line = busy(pace=2, waiting=2, lease_s=2.0)
    assert line.excess_s(3, OwnLine(1000), 4.0) == 0.0


def test_a_function_that_takes_longer_than_the_window_lets_no_call_wait() -> None:
    line = busy(pace=1, waiting=1, lease_s=9.0)
    assert line.excess_s(3, OwnLine(1000), 4.0) > 0.0


def test_a_stale_measurement_refuses_nothing() -> None:
    line = busy(waiting=10_000)
    assert line.excess_s(POLL_S, OwnLine(1000), 4.0 + STALE_S - 0.1) > 0.0
    assert line.excess_s(POLL_S, OwnLine(1000), 4.0 + STALE_S + 0.1) == 0.0


def test_a_queue_that_no_worker_serves_refuses_nothing() -> None:
    """Scale from zero: instances may come at any moment."""
    line = busy(pace=0, leased=0, waiting=1000, lease_s=0.0)
    assert line.excess_s(1, OwnLine(5000), 4.0) == 0.0


def test_long_calls_are_judged_before_the_first_of_them_ends() -> None:
    """Two slots, 60 s each: the third to wait would be reached after a minute and a half."""
    line = busy(pace=0, leased=2, waiting=3, lease_s=60.0)
    assert line.excess_s(60, OwnLine(1000), 4.0) > 0.0
    assert line.excess_s(200, OwnLine(1000), 4.0) == 0.0


def test_unknown_lengths_make_the_pace_look_high_never_low() -> None:
    line = busy(pace=0, leased=2, waiting=3, lease_s=0.0)
    assert line.excess_s(60, OwnLine(1000), 4.0) == 0.0


def test_the_pace_is_not_too_low_when_the_length_of_calls_is_not_known() -> None:
    line = busy(waiting=100, seconds=1, lease_s=0.0)
    assert line.excess_s(3, OwnLine(1000), 1.0) == 0.0


def test_leases_that_are_not_started_do_not_shorten_the_line() -> None:
    line = busy(waiting=200)
    before = line.excess_s(POLL_S, OwnLine(1000), 4.0)
    line.measured(LineState("one", 200, 4, 160 + 1000), OwnLine(1000), 5.0)
    assert line.excess_s(POLL_S, OwnLine(1000), 5.0) > before / 2


def test_further_instances_are_believed_within_seconds() -> None:
    line, deliveries = busy(waiting=400), 160
    for quarter in range(1, 17):
        deliveries += 100  # 400 per second
        state = LineState("one", 400, 40, deliveries)
        line.measured(state, OwnLine(1000), 4.0 + quarter / 4)
    assert line.excess_s(POLL_S, OwnLine(1000), 8.0) == 0.0


def test_another_queue_of_the_same_name_begins_anew() -> None:
    line = busy(waiting=400)
    line.measured(LineState("two", 400, 0, 0), OwnLine(1000), 5.0)
    assert line.excess_s(POLL_S, OwnLine(1000), 5.0) == 0.0


def test_the_time_to_come_back_is_bounded() -> None:
    line = busy(waiting=10_000_000)
    assert line.retry_after_s(1, OwnLine(1000), 4.0) == MAX_RETRY_AFTER_S
    assert Line().retry_after_s(1, OwnLine(1000), 4.0) == 1


def test_a_line_is_measured_more_often_the_sooner_it_is_over() -> None:
    short, long, idle = busy(waiting=40), busy(waiting=4000), busy(waiting=0)
    for line in (short, long, idle):
        line.asked_at = 4.0
    assert not short.is_due(OwnLine(1000), 4.2)
    assert short.is_due(OwnLine(1000), 4.3)
    assert not long.is_due(OwnLine(1000), 4.45)
    assert long.is_due(OwnLine(1000), 4.55)
    assert not idle.is_due(OwnLine(1000), 4.9)
    assert idle.is_due(OwnLine(1000), 5.1)
    # A burst: more has been published than there are slots.
    assert idle.is_due(OwnLine(1010), 4.3)
    short.measuring = True
    assert not short.is_due(OwnLine(1000), 9.0)


def test_a_measurement_that_failed_is_not_repeated_at_once() -> None:
    line = busy(pace=0, leased=0, waiting=1000, lease_s=0.0)
    assert line.is_due(OwnLine(1000), 4.15)
    for failed_at in (4.15, 4.4, 60.0):
        line.asked_at = failed_at
        assert not line.is_due(OwnLine(1000), failed_at + 0.2)
        assert line.is_due(OwnLine(1000), failed_at + 0.3)


def test_the_time_that_a_call_needs_is_that_of_the_last_measurement_for_each_window() -> None:
    line = busy(waiting=100, lease_s=0.0)
    assert line.excess_s(60, OwnLine(1000), 4.0) == line.excess_s(3, OwnLine(1000), 4.0) == 0.0
    for _ in range(8):
        line.answered(9.0, 4.0)
    assert line.excess_s(3, OwnLine(1000), 4.0) == 0.0
    line.measured(LineState("one", 100, 4, 160), OwnLine(1000), 4.0)
    assert line.excess_s(3, OwnLine(1000), 4.0) > 0.0
    assert line.excess_s(600, OwnLine(1000), 4.0) == 0.0


def test_after_a_line_only_calls_after_an_answered_one_are_ahead() -> None:
    line = busy(waiting=200)
    line.measured(LineState("one", 0, 4, 200), OwnLine(1000), 4.25)
    assert line.excess_s(3, OwnLine(1200), 4.3) > 0.0
    assert line.excess_s(3, OwnLine(1200, 1000), 4.3) > 0.0
    assert line.excess_s(3, OwnLine(1200, 1200), 4.3) == 0.0
    assert line.excess_s(3, OwnLine(1200, 1190), 4.3) == 0.0
    assert line.excess_s(3, OwnLine(1400, 1200), 4.3) > 0.0


def waiting_own(own: int, waiting: int = 200) -> Line:
    """Return a line in which ``own`` of those that wait are this process's."""
    line = busy(waiting=waiting)
    state = LineState("one", waiting, 4, 160, 1000 - waiting)
    line.measured(state, OwnLine(1000, published=own, waiting=own), 4.0)
    return line


def test_own_calls_that_have_left_are_ahead_no_more() -> None:
    line = waiting_own(200)
    before = line.excess_s(3, OwnLine(1000, published=200, waiting=200), 4.0)
    assert 0.0 < line.excess_s(3, OwnLine(1000, published=200, waiting=170), 4.0) < before
    assert line.excess_s(3, OwnLine(1000, published=200, waiting=80), 4.0) == 0.0
    assert line.retry_after_s(3, OwnLine(1000, published=200), 4.0) == 1
    # Others have come since.
    assert line.excess_s(3, OwnLine(1200, published=400, waiting=200), 4.0) > 0.0
    assert line.excess_s(3, OwnLine(1200, published=400), 4.0) == 0.0


def test_own_calls_say_nothing_of_those_of_other_processes() -> None:
    line = waiting_own(20)
    assert line.excess_s(3, OwnLine(1000, published=20), 4.0) > 0.0
    # 200 more from others, and as many from this one, which have left.
    line = waiting_own(200)
    assert line.excess_s(3, OwnLine(1200, published=200), 4.0) > 0.0
    assert line.excess_s(3, OwnLine(1200, published=400), 4.0) == 0.0


def test_when_own_clients_leave_in_a_crowd_those_of_others_perhaps_do_too() -> None:
    line = waiting_own(200, waiting=800)
    assert line.excess_s(3, OwnLine(1000, published=200, waiting=150), 4.1) > 0.0
    # They may all have been leased.
    assert line.excess_s(3, OwnLine(1000, published=200), 7.0) > 0.0
    assert line.excess_s(3, OwnLine(1000, published=200), 4.1) == 0.0
    assert line.excess_s(9, OwnLine(1000, published=200, waiting=80), 4.1) == 0.0
    # Those that have come since have not left.
    assert line.excess_s(3, OwnLine(1200, published=400, waiting=200), 4.1) > 0.0


def test_a_line_that_own_calls_have_left_is_measured_soon() -> None:
    line = waiting_own(2000, waiting=2000)
    line.asked_at = 4.0
    assert not line.is_due(OwnLine(1000, published=2000, waiting=2000), 4.3)
    assert line.is_due(OwnLine(1000, published=2000), 4.3)


def test_while_calls_wait_those_before_an_answered_one_wait_no_more() -> None:
    line = waiting_own(20)
    assert line.excess_s(3, OwnLine(1050, 1000, 50, 30), 4.1) > 0.0
    assert line.excess_s(3, OwnLine(1050, 1010, 50, 30), 4.1) == 0.0


def test_a_measurement_knows_the_sequences_that_its_process_does_not() -> None:
    """After its calls have left, or while only others publish, a process knows no late sequence."""
    line = busy(waiting=200)
    line.measured(LineState("one", 0, 4, 200, 5000), OwnLine(), 4.25)
    assert line.excess_s(3, OwnLine(5001, published=1, waiting=1), 4.3) == 0.0
    assert line.excess_s(3, OwnLine(5201, published=1, waiting=1), 4.3) > 0.0


def test_quick_calls_at_the_end_of_a_line_raise_the_pace() -> None:
    """Four long calls hold all slots for 8 s; the 40 behind them need half a second."""
    waits = []
    for leased_at_the_end in (40, 0):
        line = Line()
        for second in range(8):
            line.measured(LineState("one", 40, 4, 4), OwnLine(44), float(second))
        for _ in range(40):
            line.answered(0.05, 8.0)
        line.measured(LineState("one", 0, 0, 4 + leased_at_the_end), OwnLine(44), 8.0)
        line.measured(LineState("one", 40, 4, 8 + leased_at_the_end), OwnLine(88), 20.0)
        line.measured(LineState("one", 40, 4, 9 + leased_at_the_end), OwnLine(88), 21.0)
        waits.append(line.excess_s(1, OwnLine(88), 21.0))
    assert waits[0] < waits[1] / 3


def test_the_slow_end_of_a_line_does_not_lower_the_pace() -> None:
    line = busy(waiting=40)
    before = line.excess_s(1, OwnLine(1060), 4.0)
    for quarter in range(1, 5):
        line.measured(LineState("one", 0, 4, 161), OwnLine(1000), 4.0 + quarter / 4)
    line.measured(LineState("one", 40, 4, 165), OwnLine(1040), 5.25)
    assert line.excess_s(1, OwnLine(1100), 5.25) == pytest.approx(before)


def test_before_a_time_is_known_a_quarter_of_the_window_is_waited() -> None:
    line = Line()
    for second in range(6):
        line.measured(LineState("one", 100, 4, 4), OwnLine(100), float(second))
    assert line.excess_s(16, OwnLine(100), 5.0) > 0.0
    assert line.excess_s(24, OwnLine(100), 5.0) == 0.0


def test_a_few_long_calls_on_all_slots_say_nothing_of_those_behind_them() -> None:
    line = Line()
    for _ in range(20):
        line.answered(0.02, 0.0)
    for second in range(7):
        line.measured(LineState("one", 100, 4, 4), OwnLine(1000), second / 1.0)
    assert line.excess_s(20, OwnLine(1000), 6.0) == 0.0
