"""Time without the standstills of this process. Pure: time is an argument, in seconds.

While a process stands still (SIGSTOP, a paused machine, a turn of the loop that takes seconds), its
peers may go on, and what they send waits in its sockets. When it runs again its timers are due
before the sockets are read. So a limit on a peer's silence must not be applied by the first timer
after a standstill: the peer may not have been silent at all.
"""

STANDSTILL_S = 0.5
"""A timer that is later than this has met a standstill."""


class AwakeClock:
    """A clock for limits on silence that are checked regularly. ``now`` is its time.

    It does not count standstills. Of two checks in a row that both seem to follow one, the second
    counts: a loop that is always slow applies its limits too, and has read the sockets between.
    """

    __slots__ = ("_advanced_at", "_has_stood_still", "_max_step_s", "now")

    def __init__(self, now: float, interval_s: float) -> None:
        """Begin at ``now``; `advance` is to be called every ``interval_s``."""
        self.now = now
        self._advanced_at = now
        self._max_step_s = interval_s + max(interval_s, STANDSTILL_S)
        self._has_stood_still = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.now:.3f} at {self._advanced_at:.3f}>"

    def advance(self, at: float) -> bool:
        """Advance to the time ``at``; return False if the process has stood still.

        Then no limit is to be applied before the next call.
        """
        step_s, self._advanced_at = at - self._advanced_at, at
        self._has_stood_still = step_s > self._max_step_s and not self._has_stood_still
        if self._has_stood_still:
            return False
        self.now += step_s
        return True
