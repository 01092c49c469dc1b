"""What the header Cancel-After may say."""

import pytest

from gateway.errors import BadRequest
from gateway.routing.cancel_after import CallBounds, cancel_after


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (b"90", CallBounds(whole_s=90)),
        (b" 90s ", CallBounds(whole_s=90)),
        (b"5m", CallBounds(whole_s=300)),
        (b"1h", CallBounds(whole_s=3600)),
        (b"30m15s", CallBounds(whole_s=1815)),
        (b"3605", CallBounds(whole_s=3605)),
        (b"queue=30s, run=5m", CallBounds(queue_s=30, run_s=300)),
        (b"run=1,\tqueue=2", CallBounds(queue_s=2, run_s=1)),
        (b"queue=10", CallBounds(queue_s=10)),
    ],
)
def test_durations_and_bounds_are_read(value: bytes, bounds: CallBounds) -> None:
    assert cancel_after(value) == bounds


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b" ", b"soon", b"-1", b"1.5", b"0", b"0s", b"3606", b"2h", b"5M", b"s", b"1s2m"),
        *(b"queue", b"queue=", b"queue=30s,", b"queue=1, queue=2", b"wait=1", b"queue=1;a, run=2"),
        *(b"\xb2", b"9" * 65, b"run = 5", b"1d"),
    ],
)
def test_anything_else_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="Cancel-After"):
        cancel_after(value)


def test_the_wait_for_a_worker_is_the_least_of_window_and_bounds() -> None:
    assert CallBounds(run_s=1).wait_s(60) == 60
    assert CallBounds(queue_s=5, run_s=1).wait_s(60) == 5
    assert CallBounds(whole_s=90).wait_s(60) == 60
