"""How long a function usually takes from its lease to its response head.

The gateway admits by what the slow requests need, the worker starts by what the fast ones need: so
what the gateway admits, the worker starts. Pure.
"""

from collections import deque

MARGIN_S = 0.05
"""Kept for the way back: the response head must reach the gateway before the window's end."""
FORGET_S = 300.0
"""Measurements count no more when none has been added for this time, or for twice the longest."""
_SAFETY = 0.1
_MAX_SAFETY_S = 0.25
_KEPT = 64
_RECENT = 8
"""So many measurements make something known."""


class HeadTimes:
    """The last 64 times from lease or sending to the response head, in seconds.

    ``ample_s`` is at least the longest of them: with so much time left, a request is started
    without a closer look.
    """

    __slots__ = ("_added_at", "_longest_s", "_times", "ample_s")

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_KEPT)
        self._added_at = 0.0
        self._longest_s = 0.0
        self.ample_s = MARGIN_S

    def add(self, seconds: float, now: float) -> None:
        """Add a measurement made at ``now``, loop time."""
        times, longest_s = self._times, self._longest_s
        if seconds > longest_s:
            times.append(seconds)
            self._set_longest(seconds)
        elif seconds < longest_s and len(times) == _KEPT and times[0] == longest_s:
            times.append(seconds)
            self._set_longest(max(times))
        else:
            times.append(seconds)
        self._added_at = now

    @property
    def mean_s(self) -> float:
        """The mean, 0 without a measurement."""
        times = self._times
        return sum(times) / len(times) if times else 0.0

    @property
    def median_s(self) -> float:
        """The median, 0 without a measurement."""
        times = sorted(self._times)
        return times[len(times) // 2] if times else 0.0

    def needed_s(self, window_s: float, now: float) -> float | None:
        """Return how much time a request with a window of ``window_s`` should have left.

        `None` if the function usually takes longer than the window. If lengths are mixed, it is the
        time that lets the largest part of the work at the inference server reach its client:
        waiting for the longest would waste whole queues of short ones, and the other way round.
        """
        times = self._times
        self._forget(now)
        if not times:
            return MARGIN_S
        if min(list(times)[-_RECENT:]) > window_s:
            return None
        return _with_margin(_most_useful_s(sorted(times), window_s))

    def least_s(self, now: float) -> float:
        """Return how much time a request should have left to be worth starting.

        What even the fastest of the last eight needed: a request that is not started may be a fast
        one. `MARGIN_S` while fewer are known.
        """
        times = self._times
        self._forget(now)
        if len(times) < _RECENT:
            return MARGIN_S
        return _with_margin(min(list(times)[-_RECENT:]))

    def _forget(self, now: float) -> None:
        if now - self._added_at > max(FORGET_S, 2 * self._longest_s):
            self._times.clear()
            self._set_longest(0.0)

    def _set_longest(self, seconds: float) -> None:
        self._longest_s = seconds
        self.ample_s = _with_margin(seconds)


def _with_margin(seconds: float) -> float:
    return seconds + min(seconds * _SAFETY, _MAX_SAFETY_S) + MARGIN_S


def _most_useful_s(times: list[float], window_s: float) -> float:
    """Return the time with the largest useful share of work, of the ascending ``times``.

    Requests that need longer than the time are broken off at its end.
    """
    best_s, best_share, useful_s = times[0], 0.0, 0.0
    for index, seconds in enumerate(times):
        if seconds > window_s:
            break
        useful_s += seconds
        wasted_s = (len(times) - 1 - index) * seconds
        share = useful_s / (useful_s + wasted_s) if useful_s else 1.0
        if share >= best_share:
            best_s, best_share = seconds, share
    return best_s
