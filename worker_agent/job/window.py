"""Whether a leased request is worth starting, by what is left of its poll window.

A queue is served in order, so under overload the request at its head is always the one with the
least time left. A worker that starts it all the same works for nobody, and so does the next. The
`StartGate` refuses a request whose window has ended, or would end before its response head.

What it knows comes from this agent's own jobs, and it never refuses for ever:

* It refuses what would be late even if it were as fast as the fastest of the last eight
  (`wire.head_times`). While fewer are known only an ended window is refused. Measurements are
  forgotten when none has come for a while.
* It refuses what would be late if it were one of the slow ones only while more requests wait than
  could be started in time: those behind it have more time left.
* A request that has nearly its whole window left is started if nothing waits behind it, or if the
  function seems to need more than the window: no request will ever have a better chance.
* When requests were refused for `TRIAL_S` and none was started, the next one is started.

The window's end is a time of the gateway's clock, which may differ from this machine's: see
`ClockOffset`. Pure. Sources: ``docs/wire.md`` §6.2 and §8.5.
"""

from collections.abc import Callable

from wire.head_times import HeadTimes

TRIAL_S = 1.0
"""After this time with refusals alone, one request is started whatever is known."""
_CROWDED = 0.5
"""More requests wait than could be started when their starts take so large a part of the time."""
_WHOLE = 0.8
"""The part of a window that counts as nearly all of it."""


class ClockOffset:
    """How far this machine's clock is ahead of the gateways', in seconds, as far as it shows.

    Two observations bound it. A request cannot be younger than nothing: its age on this clock is
    at least the offset. And a gateway that accepts a response head waits for it: if the window had
    ended on this clock, the clock is ahead by at least that much. ``seconds`` is 0 unless a bound
    excludes it, and then the age of the youngest request: what that one had waited is the error.
    Of bounds that contradict each other (a clock was set) the later one counts. ``youngest_s`` is
    the age of the youngest request; that of an older one changes nothing.
    """

    __slots__ = ("_at_least", "seconds", "youngest_s")

    def __init__(self) -> None:
        self._at_least = float("-inf")
        self.youngest_s = float("inf")
        self.seconds = 0.0

    def saw_age(self, age_s: float) -> None:
        """A request was leased at the age of ``age_s``."""
        if age_s < self.youngest_s:
            self.youngest_s = age_s
            self._at_least = min(self._at_least, age_s)
            self._settle()

    def saw_accepted(self, late_s: float) -> None:
        """A gateway accepted a response head ``late_s`` after the window's end."""
        if late_s > self._at_least:
            self._at_least = late_s
            self.youngest_s = max(self.youngest_s, late_s)
            self._settle()

    def _settle(self) -> None:
        at_most = self.youngest_s
        self.seconds = at_most if at_most < 0.0 or self._at_least > 0.0 else 0.0


class StartGate:
    """Decides whether a request is started. ``heads`` and ``offset`` are told what jobs show."""

    __slots__ = ("_refusing_since", "heads", "offset")

    def __init__(self) -> None:
        self.heads = HeadTimes()
        self.offset = ClockOffset()
        self._refusing_since: float | None = None

    def slack_s(
        self, left_s: float, window_s: float, now: float, followers: Callable[[], int]
    ) -> float | None:
        """Return for how many seconds a start may still be put off, `None`: do not start.

        ``left_s`` is what is left of the window by this machine's clock, ``now`` loop time.
        ``followers`` returns how many requests waited when this one was leased.
        """
        left_s += self.offset.seconds
        heads = self.heads
        slack_s = left_s - heads.ample_s
        if slack_s < 0.0:
            needed_s, whole_s = heads.least_s(now), _WHOLE * window_s
            slack_s = left_s - (needed_s if needed_s <= window_s else whole_s)
            if slack_s < 0.0:
                if left_s >= whole_s and not followers():
                    slack_s = left_s - whole_s
            elif followers() * heads.median_s > _CROWDED * left_s:
                needed_s = heads.needed_s(window_s, now) or 0.0
                slack_s = min(slack_s, left_s - needed_s)
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
