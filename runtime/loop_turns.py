"""The longest turn of this process's event loop, for its metrics.

A timer that is due every `TICK_S` measures by how much it comes late: that is the rest of the turn
that it met, or of a standstill of the process. So turns much shorter than `TICK_S` are met by
chance, and a longer one is always met. Nothing is added to a turn itself.
"""

import asyncio
from collections.abc import Callable
from time import monotonic

TICK_S = 0.025
WINDOW_S = 60.0


class LongestRecently:
    """The largest of the values of the last one to two windows. Pure: time is an argument."""

    __slots__ = ("_before", "_ends_at", "_largest")

    def __init__(self, now: float) -> None:
        self._ends_at = now + WINDOW_S
        self._largest = self._before = 0.0

    def add(self, value: float, now: float) -> None:
        """Take ``value``, measured at ``now``."""
        self._move_on(now)
        if value > self._largest:
            self._largest = value

    def largest(self, now: float) -> float:
        """Return the largest value; 0 if there is none."""
        self._move_on(now)
        return max(self._before, self._largest)

    def _move_on(self, now: float) -> None:
        if now >= self._ends_at:
            is_next = now < self._ends_at + WINDOW_S
            self._before = self._largest if is_next else 0.0
            self._largest = 0.0
            self._ends_at = now + WINDOW_S


class LoopTurns:
    """Measures the running loop between `start` and `stop`."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """``clock`` is the monotonic clock; the loop's own stands still during a turn."""
        self._clock = clock
        self._longest = LongestRecently(clock())
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        """End."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def longest_s(self) -> float:
        """Return the longest turn of the last one to two minutes, in seconds."""
        return self._longest.largest(self._clock())

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next = loop.call_later(TICK_S, self._tick, loop, self._clock() + TICK_S)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = self._clock()
        self._longest.add(now - due, now)
        self._arm(loop)
