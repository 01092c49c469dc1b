"""Counting room for requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_agent.slots import Slots


@given(
    limit=st.integers(1, 5),
    steps=st.lists(
        st.sampled_from(["take", "release", "finish", "open", "close", 1, 2, 3, 7]), max_size=60
    ),
)
def test_the_sum_of_running_and_wanted_never_exceeds_the_limit(
    limit: int, steps: list[str | int]
) -> None:
    slots = Slots(limit, 3)
    running = jobs = 0
    for step in steps:
        if step == "take":
            was_free = slots.is_open and running < limit
            assert slots.take() is was_free
            running, jobs = running + was_free, jobs + was_free
        elif step == "release" and running:
            slots.release()
            running -= 1
        elif step == "finish" and jobs:
            slots.finish()
            jobs -= 1
        elif step in {"open", "close"}:
            slots.is_open = step == "open"
        elif isinstance(step, int):
            limit = step
            slots.resize(limit, 3)
        assert (slots.running, slots.jobs) == (running, jobs)
        wanted = slots.free()
        assert slots.is_open or wanted == 0
        # After it was lowered more may run, but nothing is asked for until they are fewer.
        assert wanted <= 0 or (wanted + running <= limit and wanted + jobs <= limit + 3)
        if slots.is_open and jobs <= running:
            assert wanted == limit - running


def test_a_slot_that_nobody_holds_cannot_be_released() -> None:
    slots = Slots(1, 1)
    with pytest.raises(AssertionError):
        slots.release()
    with pytest.raises(AssertionError):
        slots.finish()
    with pytest.raises(AssertionError):
        slots.give_back()
