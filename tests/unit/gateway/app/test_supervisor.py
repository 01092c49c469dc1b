"""When the parent of several processes looks at them again."""

from gateway.app.supervisor import alarm_after_s


def test_the_alarm_is_for_the_first_process_that_is_due() -> None:
    assert alarm_after_s([], 90_000.0) == 0.0
    assert alarm_after_s([90_002.0, 90_000.5], 90_000.0) == 0.5
    assert alarm_after_s([89_999.0], 90_000.0) > 0.0
