"""The calls that wait for one version, and whether a further one can be reached in its poll window.

A queue is served in order, for all gateway processes alike. So a new call waits for as long as the
workers take for everything before it: the calls ahead, divided by the leases per second. Both are
measured at the broker (`queueing.interface.LineState`) a few times per second while calls wait.
Between two measurements the sequences of this process's own publishes show what all processes have
added, and its own calls what is gone for certain (`queueing.interface.OwnLine`): those that were
answered or withdrawn, perhaps all at once. Nothing is measured, and nothing refused, while no call
waits.

The pace is that of the workers only while calls wait: then leases and time are summed, and
forgotten with a time constant, because instances come and go. The end of a line counts too if many
were leased then: they were quick calls behind long ones. Long calls give few leases, so
``leased`` calls that take ``mean_s`` each are counted as well: before the first lease is seen they
are all that is known, later they hardly matter. While the mean is not known they make the pace look
too high, never too low. A stale measurement, or a queue that no worker serves, gives no pace, and
every call is admitted.

Pure: time is an argument, monotonic seconds.
"""

from math import ceil, exp, inf

from queueing.interface import LineState, OwnLine
from wire.deadlines import RESPONSE_GRACE_S
from wire.head_times import HeadTimes

STALE_S = 5.0
"""A measurement counts for so long."""
MAX_RETRY_AFTER_S = 3600
_FIRST_INTERVAL_S = 0.1
_BUSY_INTERVAL_S = 0.25
_SLOW_INTERVAL_S = 0.5
"""So old is the news that the calls of other processes are gone, at most."""
_IDLE_INTERVAL_S = 1.0
_MEMORY_S = 2.0
_GENERATIONS = 6
_COUNTED = 16
_FORGET_S = 30.0
_AFTER_S = 1.0
"""For so long after the last calls waited, the slots are taken to be busy but for the leases that
ended since: a burst would be admitted as a whole if a moment without a line meant free slots."""
_TOLERANCE = 1.1
_COUNTABLE = 0.75
"""So many calls must be leased on average. Fewer are only those that wait for the head of a stream,
and too few to be counted now and then."""
_UNKNOWN_PART = 0.25
"""Calls wait for this part of a window before one is refused while nothing is known of any call."""
_TELLING = 7
"""So many calls of other processes are judged by each of this one, at most."""
_MAX_PUBLISHED = 1_000_000
"""A larger difference of two sequences is no count: they belong to two lives of the queue."""
_LATE_S = 0.25
"""How much longer than expected a call may wait and still be started."""


def retry_after_s(excess_s: float) -> int:
    """Return when a line will be short enough, in whole seconds from 1 to 3600."""
    return max(ceil(min(excess_s, MAX_RETRY_AFTER_S)), 1)


class Line:
    """What is known of the line of one version.

    ``called_at`` is when a call last asked, ``asked_at`` when the last measurement was begun,
    ``measuring`` whether it is still on its way, and ``delivered`` the highest sequence that was
    leased at the last one.
    """

    __slots__ = (
        "_at",
        "_credit",
        "_done",
        "_heads",
        "_leased_s",
        "_leases",
        "_long_at",
        "_mean_s",
        "_median_s",
        "_needed_s",
        "_others",
        "_own",
        "_paced_at",
        "_published",
        "_seconds",
        "_sequence",
        "_state",
        "asked_at",
        "called_at",
        "delivered",
        "measuring",
    )

    def __init__(self) -> None:
        self._state: LineState | None = None
        self._at = 0.0
        self._sequence = self._published = self._own = self._others = self._done = 0
        self._leases = 0.0
        self._leased_s = 0.0
        self._seconds = 0.0
        self._credit = 0.0
        self._paced_at = 0.0
        self._long_at = -inf
        self._heads = HeadTimes()
        self._mean_s = self._median_s = 0.0
        # By poll window, since the last measurement: it takes longer than all else of a call.
        self._needed_s: dict[float, float | None] = {}
        self.asked_at = 0.0
        self.called_at = 0.0
        self.delivered = 0
        self.measuring = False

    def is_long(self, now: float) -> bool:
        """Return whether calls waited at the last measurement, or a moment ago."""
        state = self._state
        return state is not None and (state.waiting > 0 or now - self._long_at <= _AFTER_S)

    def answered(self, lease_s: float, now: float) -> None:
        """A call got its response head ``lease_s`` after its lease."""
        self._heads.add(lease_s, now)
        self._done += 1

    def measured(self, state: LineState, own: OwnLine, now: float) -> None:
        """Take the queue's state; ``own`` is what this process knew when it asked."""
        before, passed_s = self._state, now - self._at
        if before is not None and (
            state.epoch != before.epoch or state.deliveries < before.deliveries
        ):
            # Another queue of the same name.
            before = None
            self._leases = self._leased_s = self._seconds = 0.0
        if now - self._paced_at > _FORGET_S:
            self._leases = self._leased_s = self._seconds = 0.0
        mean_s = self._mean_s = self._heads.mean_s
        self._median_s = self._heads.median_s
        self._needed_s.clear()
        if (
            before is not None
            and before.waiting
            and passed_s <= max(STALE_S, 2 * mean_s)
            and (state.waiting or self._is_faster(state.deliveries - before.deliveries, passed_s))
        ):
            kept = exp(-passed_s / self._memory_s())
            leases = self._credible(state.deliveries - before.deliveries, before, state, passed_s)
            leased = (before.leased + (state.leased if state.waiting else before.leased)) / 2
            self._leases = self._leases * kept + leases
            self._leased_s = self._leased_s * kept + passed_s * leased
            self._seconds = self._seconds * kept + passed_s
            self._paced_at = now
        self._done = 0
        if state.waiting:
            self._long_at = now
        self._state = state
        self._at = now
        self._sequence = max(own.sequence, state.delivered + state.waiting)
        self._published = own.published
        self._own = own.waiting
        self._others = max(state.waiting - own.waiting, 0)
        self.delivered = state.delivered

    def is_due(self, own: OwnLine, now: float) -> bool:
        """Return whether it is time for a measurement, if a call asks or `is_long`."""
        state = self._state
        if state is None:
            return not self.measuring and now - self.asked_at >= _BUSY_INTERVAL_S
        if not self.is_long(now) and own.sequence - self._sequence <= state.leased:
            interval_s = _IDLE_INTERVAL_S
        else:
            wait_s = self._wait_s(own, now)
            if wait_s is None:
                interval_s = _FIRST_INTERVAL_S
            else:
                interval_s = min(max(wait_s / 10, _BUSY_INTERVAL_S), _SLOW_INTERVAL_S)
            if self.asked_at > self._at:
                # The last measurement has failed.
                interval_s = max(interval_s, _BUSY_INTERVAL_S)
        return not self.measuring and now - self.asked_at >= interval_s

    def excess_s(self, poll_s: float, own: OwnLine, now: float) -> float:
        """Return how many seconds too long the line is for a poll window; 0 if it is not.

        ``own`` is what this process knows of its own calls now, after `delivered`.
        """
        wait_s = self._wait_s(own, now)
        if not wait_s:
            return 0.0
        if not self._mean_s and self._leases < 1 and self._seconds < _UNKNOWN_PART * poll_s:
            # Long calls hold all slots; those that wait may be quick.
            return 0.0
        return max(wait_s - self._room_s(poll_s, now), 0.0)

    def retry_after_s(self, poll_s: float, own: OwnLine, now: float) -> int:
        """Return when there will be room for such a call, as `retry_after_s`."""
        return retry_after_s(self.excess_s(poll_s, own, now))

    def eta_s(self, position: int, now: float) -> int | None:
        """Return in how many seconds the call at ``position`` will be leased, if that is known."""
        state = self._state
        if state is None or now - self._at > STALE_S:
            return None
        pace = self._pace(state)
        return None if not pace else ceil(min(position / pace, MAX_RETRY_AFTER_S))

    def _memory_s(self) -> float:
        """Return the time constant with which leases and time are forgotten.

        Long enough for several leases of each slot, by how long a lease lasts, and in any case for
        `_COUNTED` of them: a slot may be held for longer than its lease when responses are streams.
        """
        if self._leases < _COUNTED:
            return inf
        return max(_MEMORY_S, _GENERATIONS * max(self._mean_s, self._leased_s / self._leases))

    def _credible(self, leases: int, before: LineState, state: LineState, passed_s: float) -> float:
        """Return how many of ``leases`` can have been for work.

        A worker also leases what it then does not start, and that goes as fast as it can pull.
        Counting it would make the line look shorter just when it is too long. So leases count up to
        twice the present pace, with a burst of one for each slot; and those of this process's calls
        that were answered.
        """
        pace = self._pace(before)
        if pace is None:
            return leases
        expected = 2 * pace * passed_s
        fresh = max(state.leased - before.leased, 0)
        self._credit = min(self._credit + expected + fresh, expected + state.leased + 1)
        counted = min(float(leases), self._credit)
        self._credit -= counted
        return max(counted, float(min(leases, self._done)))

    def _is_faster(self, leases: int, passed_s: float) -> bool:
        """Return whether ``leases`` at the end of a line would raise the pace.

        For how long calls still waited is not known: there may be few only because no more calls
        were there. But quick calls behind long ones are leased all at once, at the end of the line.
        """
        return leases * self._seconds > self._leases * passed_s

    def _room_s(self, poll_s: float, now: float) -> float:
        """Return how long a call may wait for its lease.

        The rest of its window is for the function, by its median. If that takes most of the window,
        the grace after it is used too: otherwise no call could ever wait. In any case a worker must
        still start it (`worker_agent.job.window`), or the line would move on without work being
        done.
        """
        window_s = poll_s + RESPONSE_GRACE_S
        if window_s in self._needed_s:
            needed_s = self._needed_s[window_s]
        else:
            needed_s = self._needed_s[window_s] = self._heads.needed_s(window_s, now)
        if needed_s is None:
            return 0.0
        room_s = max(poll_s - self._median_s, poll_s / 2)
        return max(min(room_s, window_s - needed_s - _LATE_S), 0.0)

    def _wait_s(self, own: OwnLine, now: float) -> float | None:
        """Return how long a new call waits for its lease, `None` if it is not known."""
        state, passed_s = self._state, now - self._at
        if state is None or passed_s > STALE_S:
            return None
        if not self.is_long(now):
            # Free slots may take what has come since.
            return 0.0
        pace = self._pace(state)
        if pace is None:
            return None
        published = own.sequence - self._sequence
        if not 0 < published < _MAX_PUBLISHED:
            published = 0
        # Without calls that wait, at most so many slots are free as leases ended since some did.
        idle_s = now - self._long_at if not state.waiting else passed_s
        ahead = state.waiting + published - pace * idle_s
        # Calls that were answered or withdrawn are gone, whatever the pace was.
        added = max(own.published - self._published, 0)
        others = self._others_left(own.waiting - added, 2 * pace * passed_s + state.leased)
        ahead = min(ahead, own.waiting + others + max(published - added, 0))
        if own.answered > self._sequence:
            # Leases are in order: what came before an answered call waits no more.
            ahead = min(ahead, own.sequence - own.answered)
        return max(ahead, 0.0) / pace

    def _others_left(self, own: int, leasable: float) -> float:
        """Return how many calls of other processes wait, if ``own`` are left of this one's.

        If most of its calls are gone, and more than ``leasable``, their clients have left. Those
        of other processes perhaps have too: a proxy or an application ended. Until that is
        measured, in a moment, as large a part of them is taken to be gone: nothing is refused in
        doubt. A few calls tell nothing of many.
        """
        left = self._own - max(own, 0)
        if left <= leasable or 2 * left <= self._own or self._others > _TELLING * self._own:
            return self._others
        return self._others * (1 - left / self._own)

    def _pace(self, state: LineState) -> float | None:
        """Return how many calls are leased per second while calls wait, `None` if not known."""
        if not state.leased and self._leases < 0.5:
            return None
        seconds = self._seconds + self._mean_s
        if not seconds:
            return None
        pace = (self._leases + max(state.leased, 1)) / seconds
        if self._mean_s and self._leases < 1:
            # No lease was seen: a few long calls may be all that runs.
            pace = max(pace, state.leased / self._mean_s)
        if self._mean_s and self._leased_s > _COUNTABLE * self._seconds:
            # Little's law: no slot can do more than its calls allow.
            pace = min(pace, _TOLERANCE * self._leased_s / self._seconds / self._mean_s)
        return pace
