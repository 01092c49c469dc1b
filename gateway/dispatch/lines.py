"""Measures the lines of the versions whose calls wait, and refuses calls that come too late.

A version is measured while calls wait for it: first when a call of this process may have waited for
`SUSPECT_S`, then at the times that `gateway.routing.line.Line` wants. Calls to
functions that respond within that time never lead to a measurement.
"""

from collections.abc import Callable

from gateway.errors import Overloaded
from gateway.routing.line import Line, retry_after_s
from queueing.interface import FunctionQueue, QueueUnavailable
from runtime.tasks import spawn

SUSPECT_S = 0.25
_IDLE_S = 300.0
_MAX_LINES = 4096
"""Further versions are not measured, and their calls are all admitted."""
_MAX_MEASURING = 64
"""Measurements on their way at the same time; further ones wait for the next occasion."""


class Lines:
    """The lines of one process's versions."""

    def __init__(self, queue: FunctionQueue, clock: Callable[[], float]) -> None:
        """``clock`` is the monotonic clock."""
        self._queue = queue
        self._direct: Callable[[str], int] = lambda _: 0
        self._clock = clock
        self._lines: dict[str, Line] = {}
        self._measuring = 0
        self._swept_at = clock()

    def __len__(self) -> int:
        return len(self._lines)

    def count_direct(self, direct: Callable[[str], int]) -> None:
        """Call ``direct`` for how many calls of a version workers have over channels."""
        self._direct = direct

    def admit(self, version_id: str, poll_s: int) -> None:
        """Raise `Overloaded` if a call cannot be reached within ``poll_s``. Runs for every call."""
        line = self._lines.get(version_id)
        if line is None or not line.is_long(self._clock()):
            if not self._queue.has_waited(version_id, SUSPECT_S):
                return
            if line is None:
                if len(self._lines) >= _MAX_LINES:
                    return
                line = self._lines[version_id] = Line()
        now = line.called_at = self._clock()
        own = self._queue.own_line(version_id, line.delivered)
        if line.is_due(own, now):
            self._measure(version_id, line)
        excess_s = line.excess_s(poll_s, own, now)
        if excess_s:
            raise Overloaded(retry_after_s(excess_s))

    def answered(self, version_id: str, lease_s: float) -> None:
        """A call got its response head ``lease_s`` after its lease."""
        line = self._lines.get(version_id)
        if line is not None:
            line.answered(lease_s, self._clock())

    def retry_after_s(self, version_id: str, poll_s: int) -> int:
        """Return when a call may be tried again that was not answered in time."""
        line = self._lines.get(version_id)
        if line is None:
            return 1
        own = self._queue.own_line(version_id, line.delivered)
        return line.retry_after_s(poll_s, own, self._clock())

    def eta_s(self, version_id: str, position: int) -> int | None:
        """Return in how many seconds a waiting call will be leased, `None` if it is not known."""
        line = self._lines.get(version_id)
        return None if line is None else line.eta_s(position, self._clock())

    def tick(self) -> None:
        """Measure what is due and forget what is not called any more; a few times per second."""
        now = self._clock()
        for version_id, line in self._lines.items():
            if line.is_long(now) and line.is_due(
                self._queue.own_line(version_id, line.delivered), now
            ):
                self._measure(version_id, line)
        if now - self._swept_at >= _IDLE_S / 10:
            self._swept_at = now
            idle = [key for key, line in self._lines.items() if now - line.called_at > _IDLE_S]
            for version_id in idle:
                del self._lines[version_id]

    def _measure(self, version_id: str, line: Line) -> None:
        if self._measuring < _MAX_MEASURING:
            self._measuring += 1
            line.measuring = True
            line.asked_at = self._clock()
            spawn(self._measure_once(version_id, line), "line-measure")

    async def _measure_once(self, version_id: str, line: Line) -> None:
        asked = self._queue.own_line(version_id, line.delivered)
        try:
            state = await self._queue.line(version_id)
        except QueueUnavailable:
            # The last measurement becomes stale, and every call is admitted.
            return
        else:
            own = self._queue.own_line(version_id, state.delivered)
            # What was published meanwhile is not in the state.
            waiting = max(own.waiting - (own.published - asked.published), 0)
            # They hold slots like those that are leased.
            state = state._replace(leased=state.leased + self._direct(version_id))
            line.measured(state, asked._replace(waiting=waiting), self._clock())
        finally:
            line.measuring = False
            self._measuring -= 1
