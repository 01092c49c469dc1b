"""The longest turn of the loop, of the last one to two minutes."""

import time

from runtime.loop_turns import TICK_S, WINDOW_S, LongestRecently, LoopTurns
from tests.support.waiting import until


def test_the_largest_value_is_forgotten_after_one_to_two_windows() -> None:
    longest = LongestRecently(0.0)
    longest.add(0.5, 1.0)
    longest.add(0.2, 2.0)
    assert longest.largest(3.0) == 0.5
    longest.add(0.1, WINDOW_S + 1)
    assert longest.largest(WINDOW_S + 1) == 0.5
    assert longest.largest(2 * WINDOW_S + 2) == 0.1
    longest.add(0.3, 2 * WINDOW_S + 3)
    assert longest.largest(9 * WINDOW_S) == 0.0


async def test_a_turn_that_is_longer_than_a_tick_is_noticed() -> None:
    turns = LoopTurns()
    turns.start()
    time.sleep(10 * TICK_S)  # noqa: ASYNC251 - it blocks the loop
    await until(turns.longest_s, lambda longest: longest >= 8 * TICK_S, what="the long turn")
    turns.stop()
