"""The parent of several processes sleeps while nothing is due."""

from gateway.app.supervisor import wait_until_due


def test_the_parent_waits_for_the_next_start_or_long_when_none_is_due() -> None:
    assert wait_until_due([], 90_000.0) == 30.0
    assert wait_until_due([90_002.0, 90_000.5], 90_000.0) == 0.5
    assert wait_until_due([89_999.0], 90_000.0) == 0.0
    assert wait_until_due([91_000.0], 90_000.0) == 30.0
