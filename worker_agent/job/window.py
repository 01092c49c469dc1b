"""Whether a leased request is worth starting, by what is left of its poll window.

A queue is served in order, so under overload the request at its head is always the one with the
least time left. A worker that starts it all the same works for nobody, and so does the next. The
`StartGate` refuses a request whose window has ended, or would end before its response head.

What it knows comes from this agent's own jobs, and it never refuses for ever:

* Without a measurement (`HeadTimes`) only an ended window is refused. Measurements are forgotten
  when none has come for `FORGET_S`.
* A request that nothing waits behind and that has nearly its whole window left is started: it will
  never have a better chance, and nothing else would use the slot.
* When requests were refused for `TRIAL_S` and none was started, the next one is started.

The window's end is a time of the gateway's clock, which may differ from this machine's: see
`ClockOffset`. Pure. Sources: ``docs/wire.md`` §6.2 and §8.5.
"""

from collections import deque
from collections.abc import Callable

MARGIN_S = 0.05
"""Kept for the way back: the response head must reach the gateway before the window's end."""
TRIAL_S = 1.0
"""After this time with refusals alone, one request is started whatever is known."""
FORGET_S = 300.0
"""Measurements count no more when none has been added for this time, or for twice the longest."""
_SAFETY = 1.1
_KEPT = 64
_RECENT = 8
_WHOLE = 0.8
"""The part of a window that counts as nearly all of it."""


class HeadTimes:
    """The last 64 times from sending a request to its response head, in seconds.

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
        times = self._times
        if len(times) == _KEPT and times[0] >= self._longest_s:
            times.append(seconds)
            self._set_longest(max(times))
        else:
            times.append(seconds)
            if seconds > self._longest_s:
                self._set_longest(seconds)
        self._added_at = now

    def needed_s(self, window_s: float, now: float) -> float | None:
        """Return how much time a request with a window of ``window_s`` should have left.

        `None` if the function usually takes longer than the window. If lengths are mixed, it is the
        time that lets the largest part of the work at the inference server reach its client:
        waiting for the longest would waste whole queues of short ones, and the other way round.
        """
        times = self._times
        if now - self._added_at > max(FORGET_S, 2 * self._longest_s):
            times.clear()
            self._set_longest(0.0)
        if not times:
            return MARGIN_S
        if min(list(times)[-_RECENT:]) > window_s:
            return None
        return _most_useful_s(sorted(times), window_s) * _SAFETY + MARGIN_S

    def _set_longest(self, seconds: float) -> None:
        self._longest_s = seconds
        self.ample_s = seconds * _SAFETY + MARGIN_S


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


class ClockOffset:
    """How far this machine's clock is ahead of the gateways', in seconds, as far as it shows.

    Two observations bound it. A request cannot be younger than nothing: its age on this clock is
    at least the offset. And a gateway that accepts a response head waits for it: if the window had
    ended on this clock, the clock is ahead by at least that much. ``seconds`` is 0 unless a bound
    excludes it, and then the age of the youngest request: what that one had waited is the error.
    Of bounds that contradict each other (a clock was set) the later one counts.
    """

    __slots__ = ("_at_least", "_at_most", "seconds")

    def __init__(self) -> None:
        self._at_least = float("-inf")
        self._at_most = float("inf")
        self.seconds = 0.0

    def saw_age(self, age_s: float) -> None:
        """A request was leased at the age of ``age_s``."""
        if age_s < self._at_most:
            self._at_most = age_s
            self._at_least = min(self._at_least, age_s)
            self._settle()

    def saw_accepted(self, late_s: float) -> None:
        """A gateway accepted a response head ``late_s`` after the window's end."""
        if late_s > self._at_least:
            self._at_least = late_s
            self._at_most = max(self._at_most, late_s)
            self._settle()

    def _settle(self) -> None:
        at_most = self._at_most
        self.seconds = at_most if at_most < 0.0 or self._at_least > 0.0 else 0.0


class StartGate:
    """Decides whether a request is started. ``heads`` and ``offset`` are told what jobs show."""

    __slots__ = ("_refusing_since", "heads", "offset")

    def __init__(self) -> None:
        self.heads = HeadTimes()
        self.offset = ClockOffset()
        self._refusing_since: float | None = None

    def slack_s(
        self, left_s: float, window_s: float, now: float, has_followers: Callable[[], bool]
    ) -> float | None:
        """Return for how many seconds a start may still be put off, `None`: do not start.

        ``left_s`` is what is left of the window by this machine's clock, ``now`` loop time.
        ``has_followers`` returns whether other requests waited when this one was leased.
        """
        left_s += self.offset.seconds
        heads = self.heads
        slack_s = left_s - heads.ample_s
        if slack_s < 0.0:
            needed_s = heads.needed_s(window_s, now)
            slack_s = -1.0 if needed_s is None else left_s - needed_s
            if slack_s < 0.0 and not has_followers():
                slack_s = left_s - _WHOLE * window_s
        if slack_s < 0.0:
            since = self._refusing_since
            if since is None:
                self._refusing_since = now
                return None
            if now - since < TRIAL_S:
                return None
            slack_s = TRIAL_S
        self._refusing_since = None
        return slack_s
