"""When the phases of a call end whose client has bounded them with ``Cancel-After``.

A call waits, or a worker has it. It waits from when it is offered to workers, and anew from when a
worker that had it does not complete it. A run begins at the lease: at the send of a call that goes
over a channel, otherwise as far as the worker says it. While a call is queued nobody says whether
it is leased, so at the end of its wait the queue is asked; the worker itself ends a run that takes
too long before its response head.
"""

from math import inf

from gateway.errors import QueueTimeout, RunTimeout
from gateway.routing.cancel_after import CallBounds
from runtime.timers import IDLE

ASK_AGAIN_S = 1.0
"""Delay of the next question whether a call is leased, if the queue does not answer this one."""


class PhaseBounds:
    """The bounds of one call, and when the next one ends. A `runtime.timers.TimerOwner`.

    Times are of the monotonic clock, in seconds. ``ends_at`` is when
    `gateway.invocation.machine.Invocation.bound_passed` has to be called, infinite if never.
    ``is_running``: a worker is known to have the call. ``has_ended``: one of them has ended the
    call's wait.
    """

    __slots__ = (
        "_bounds",
        "_whole_at",
        "due_at",
        "ends_at",
        "has_ended",
        "is_running",
        "request_id",
        "slot",
    )

    def __init__(self, bounds: CallBounds, request_id: str) -> None:
        self._bounds = bounds
        self._whole_at = self.ends_at = inf
        self.is_running = self.has_ended = False
        self.request_id = request_id
        self.due_at: float | None = None
        self.slot = IDLE

    @property
    def run_s(self) -> int | None:
        """How long a worker may have the call, in seconds."""
        return self._bounds.run_s

    def offered(self, at: float) -> None:
        """The call is offered to workers from ``at`` on."""
        whole_s = self._bounds.whole_s
        self._whole_at = inf if whole_s is None else at + whole_s
        self.waits(at)

    def waits(self, since: float) -> None:
        """No worker is known to have the call, ``since`` then."""
        self.is_running = False
        self._end(since, self._bounds.queue_s)

    def runs(self, since: float) -> None:
        """A worker has had the call ``since`` then."""
        self.is_running = True
        self._end(since, self._bounds.run_s)

    def is_unknown(self, now: float) -> None:
        """The queue does not say whether the call is leased."""
        self.ends_at = min(now + ASK_AGAIN_S, self._whole_at)

    def is_whole_over(self, now: float) -> bool:
        """Return whether the call has taken as long as it may as a whole."""
        return now >= self._whole_at

    def queue_error(self, retry_after_s: int) -> QueueTimeout:
        """Return the error of a call that has waited for as long as it may."""
        bound_s = self._bounds.whole_s if self._bounds.queue_s is None else self._bounds.queue_s
        return QueueTimeout(
            retry_after_s,
            f"No worker has begun with the call in the {bound_s} s that it allows",
        )

    def run_error(self, now: float) -> RunTimeout:
        """Return the error of a call that has run for as long as it may, before its response."""
        if self.is_whole_over(now):
            return RunTimeout(
                f"The call ran, without a response yet, when its {self._bounds.whole_s} s were over"
            )
        return RunTimeout(f"The call has run for the {self._bounds.run_s} s that it allows")

    def _end(self, since: float, phase_s: int | None) -> None:
        self.ends_at = self._whole_at if phase_s is None else min(since + phase_s, self._whole_at)
