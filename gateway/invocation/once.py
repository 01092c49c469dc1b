"""An invocation that is run at most once, whatever happens to its worker, its queue or its holder.

Any other one that a worker does not complete may be run by another (`docs/wire.md` §8.6), and a
queue that has lost its requests gets them again. Here a worker asks before the first run too, and
one of all is told to run it. So it does not matter how often the queue delivers it: what may have
been run is failed in place of a second run.
"""

from gateway.errors import WorkerLost
from gateway.invocation.context import WorkerPost
from gateway.invocation.headers import RUN_ONCE
from gateway.invocation.machine import Invocation
from gateway.invocation.polled import PolledInvocation
from gateway.invocation.states import QUEUED, SENT, Outcome
from http1.stream import Headers, Request
from queueing.interface import QueueError, QueueFull, RunDecision
from wire.headers import NVCF_ALLOW_RERUN

_NEVER = (NVCF_ALLOW_RERUN, b"never")
_LOST = "The worker that had the call is lost; a call with an Idempotency-Key is run once only"


class OnceInvocation(Invocation):
    """One client's request that is run at most once.

    Its events and states are those of `gateway.invocation.states`, but that in SENT `handed_back`
    leads to DONE if the worker may have run the call, and in QUEUED `run_requested` if a worker was
    told to run it before.
    """

    # No `__slots__`: a class with attributes of its own cannot be a base of a polled call as well.

    _is_granted = False
    """A worker was told to run the call."""
    _was_offered = False
    """The queue has, or had, the call: a worker that asks nothing may have run it."""

    @property
    def may_have_run(self) -> bool:
        """Whether a worker may have run the call.

        Once the invocation is over, False means that nothing ran, and nothing will: no worker got
        it, or it waited in line until it was withdrawn.
        """
        return self._is_granted or self._was_offered

    def _envelope_headers(self, request: Request) -> Headers:
        return [*super()._envelope_headers(request), _NEVER]

    # The queue

    def _enqueue(self, head: bytes, first_part: bytes, *, has_rest: bool) -> None:
        """Publish the call; its worker asks before it runs it."""
        self._was_offered = True
        super()._enqueue(head + RUN_ONCE, first_part, has_rest=has_rest)

    def publish_failed(self, error: QueueError) -> None:
        """The queue did not take the request, or lost it, or is gone."""
        if isinstance(error, QueueFull):
            self._was_offered = False
        super().publish_failed(error)

    def position_known(self, position: int | None, retry_after_s: int) -> None:
        """The request, now withdrawn, had this position: above 0 it waited until then."""
        if position:
            self._was_offered = False
        super().position_known(position, retry_after_s)

    def run_requested(self, deliveries: int, *, is_running: bool) -> RunDecision:
        """A worker asks whether to run the request, or to go on with it.

        It is told to run it if no worker was before. If one was, that one is lost, or has given the
        request back.
        """
        if is_running or self.state is not QUEUED:
            decision = super().run_requested(deliveries, is_running=is_running)
            self._is_granted |= decision is RunDecision.RUN
            return decision
        if self._is_granted:
            self._lose()
            return RunDecision.NEVER
        if self._upload.is_lost():
            self._fail_without_rest()
            return RunDecision.NEVER
        self._is_granted = True
        self._count_deliveries(deliveries)
        # Else it would be published again if the queue loses it.
        self._context.queue.started(self.request_id)
        return RunDecision.RUN

    def gave_back(self, deliveries: int) -> None:
        """The worker that was told to run this delivery has not begun: another one may."""
        if self.state is QUEUED and deliveries == self._deliveries:
            self._is_granted = False

    # A channel

    def _send(self, head: bytes, first_part: bytes, *, has_rest: bool) -> bool:
        """Send the call to a worker with a free slot, which runs it without a question."""
        self._is_granted = super()._send(head, first_part, has_rest=has_rest)
        return self._is_granted

    def handed_back(self, *, was_run: bool, was_sent: bool) -> None:
        """The worker that had the call over a channel does not complete it.

        It goes to the queue only if no inference server can have got it.
        """
        if self.state is not SENT:
            super().handed_back(was_run=was_run, was_sent=was_sent)
        elif was_run or was_sent:
            self._channel = self._sent = None
            self._lose()
        else:
            self._is_granted = False
            super().handed_back(was_run=False, was_sent=False)

    # The worker's POST

    def attached(
        self, post: WorkerPost, now: float, worker_s: float, instance: bytes = b""
    ) -> None:
        """A worker opened its POST; one that knows no question did not ask before."""
        self._is_granted = True
        super().attached(post, now, worker_s, instance)

    def _lose(self) -> None:
        """Fail in place of a second run."""
        self._withdraw()
        self._fail(WorkerLost(_LOST), Outcome.WORKER_LOST)


class PolledOnceInvocation(OnceInvocation, PolledInvocation):
    """One call over the polling routes that is run at most once.

    To ask a worker for the response that has sent a 202 is no further run.
    """
