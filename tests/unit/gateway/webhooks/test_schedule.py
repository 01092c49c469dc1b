"""When a webhook is tried again."""

import pytest

from gateway.webhooks.schedule import GIVE_UP_S, next_delay_s, retry_after_s


def test_delays_grow_and_end_after_a_day() -> None:
    delays, age_s = [], 0.0
    while (delay_s := next_delay_s(len(delays) + 1, age_s, None, 0.5)) is not None:
        delays.append(delay_s)
        age_s += delay_s
    assert delays[:8] == [5, 30, 120, 600, 1800, 3600, 7200, 7200]
    assert age_s == GIVE_UP_S
    assert len(delays) < 25


@pytest.mark.parametrize(("random", "delay_s"), [(0.0, 4.0), (1.0, 6.0)])
def test_delays_differ_by_a_fifth(random: float, delay_s: float) -> None:
    assert next_delay_s(1, 0.0, None, random) == delay_s


def test_a_receiver_may_ask_for_more_but_not_for_less_nor_for_more_than_a_day() -> None:
    assert next_delay_s(1, 0.0, 90.0, 0.5) == 90.0
    assert next_delay_s(1, 0.0, 1.0, 0.5) == 5.0
    assert next_delay_s(1, 1000.0, 1e9, 0.5) == GIVE_UP_S - 1000.0


def test_retry_after_is_a_number_of_seconds_or_a_date() -> None:
    now = 784_111_777.0
    assert retry_after_s("120", now) == 120.0
    assert retry_after_s("Sun, 06 Nov 1994 08:50:37 GMT", now) == 60.0
    assert retry_after_s("Sun, 06 Nov 1994 08:00:00 GMT", now) == 0.0
    for value in ("", "soon", "-1", "1.5", "9" * 20, "Sun, 06 Nov 1994 08:50:37 -0000"):
        assert retry_after_s(value, now) is None
