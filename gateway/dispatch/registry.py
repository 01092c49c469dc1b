"""The live invocations of one process: attach tokens, deadlines, metrics and the access log."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf

from gateway.attach.endpoint import AttachEndpoint
from gateway.dispatch.lines import Lines
from gateway.dispatch.randomness import Randomness
from gateway.invocation.bounds import PhaseBounds
from gateway.invocation.machine import Invocation
from gateway.invocation.states import DONE, EXPIRED
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.metrics import GatewayMetrics
from queueing.interface import FunctionQueue, NoResponder, QueueUnavailable
from runtime.tasks import spawn
from runtime.timeouts import silence_limit
from runtime.timers import Timers
from wire.ids import uuid4_text

PollWorker = Callable[[str, str, bytes], Awaitable[None]]
"""`queueing.interface.GatewayBroker.poll_worker`."""

POLL_PAUSES_S = (0.1, 0.4, 1.0, 0.0)
"""Pauses after attempts to reach the worker of a polled call."""
_POSITION_WAIT_S = 0.5
"""A 504 is sent without the queue position if the queue does not return it within this time."""


class InvocationRegistry:
    """Implements `gateway.invocation.context.LiveInvocations`; `tick` enforces the deadlines.

    ``live`` holds the live invocations by request id, ``random`` the bytes for ids and tokens,
    ``lines`` what is known of the calls that wait. ``queued`` counts calls that went to the queue.
    """

    def __init__(  # noqa: PLR0913 - one argument per part
        self,
        attach: AttachEndpoint,
        queue: FunctionQueue,
        metrics: GatewayMetrics,
        access: AccessLog | None,
        clock: Callable[[], float],
        wake: Callable[[str], object],
        poll: PollWorker | None = None,
    ) -> None:
        """Without ``access`` no access log is written. ``clock`` is the monotonic clock.

        ``wake`` is to be called with the id of each version that is invoked while no instance of it
        runs. ``poll`` is needed for polled calls.
        """
        self._response_tokens = attach.response_tokens
        self._request_tokens = attach.request_tokens
        self._queue = queue
        self._metrics = metrics
        self._access = access
        self._clock = clock
        self.wake = wake
        self._poll = poll
        self._timers: Timers[Invocation] = Timers(now=clock())
        self._bound_timers: Timers[PhaseBounds] = Timers(now=clock())
        self.live = attach.live
        self.lines = Lines(queue, clock)
        self.random = Randomness()
        self.queued = 0

    def open(self, invocation: Invocation) -> None:
        """Register a new invocation."""
        self.live[invocation.request_id] = invocation
        self._timers.schedule(invocation.deadline, invocation)
        self._metrics.record_start(invocation)

    def issue_response_token(self, request_id: str) -> str:
        """Return a new token with which a worker may deliver the response."""
        self.queued += 1
        token = uuid4_text(self.random.take())
        self._response_tokens.issue(token, self.live[request_id])
        return token

    def issue_poll_token(self, request_id: str) -> str:
        """Return a new token for the worker that is asked for a response; the last one is void."""
        invocation = self.live[request_id]
        if invocation.response_token:
            self._response_tokens.revoke(invocation.response_token)
        token = uuid4_text(self.random.take())
        self._response_tokens.issue(token, invocation)
        return token

    def poll_worker(self, request_id: str, number: int, envelope: bytes) -> None:
        """Ask the worker of a polled call for its response."""
        spawn(self._poll_worker(self.live[request_id], number, envelope), "poll-worker")

    def issue_request_token(self, request_id: str) -> str:
        """Return a new token with which workers may fetch the rest of the request body."""
        token = uuid4_text(self.random.take())
        self._request_tokens.issue(token, self.live[request_id])
        return token

    def renew_response_token(self, request_id: str) -> None:
        """Accept the response token once more: another worker may get the request."""
        invocation = self.live[request_id]
        self._response_tokens.issue(invocation.response_token, invocation)

    def moved_earlier(self, request_id: str) -> None:
        """Call `deadline_passed` at the invocation's deadline, which was later before."""
        invocation = self.live[request_id]
        self._timers.schedule(invocation.deadline, invocation)

    def bounded(self, bounds: PhaseBounds) -> None:
        """Call `bound_passed` at the end of ``bounds``, which has moved."""
        if bounds.ends_at < inf:
            self._bound_timers.schedule(bounds.ends_at, bounds)
        else:
            self._bound_timers.cancel(bounds)

    def wait_over(self, request_id: str) -> None:
        """Report `lease_known` of a queued call whose wait is over."""
        spawn(self._find_lease(self.live[request_id]), "queue-bound")

    def finished(self, request_id: str) -> None:
        """Forget the invocation and record how it ended."""
        invocation = self.live.pop(request_id)
        if invocation.response_token:
            self._response_tokens.revoke(invocation.response_token)
        if invocation.request_token is not None:
            self._request_tokens.revoke(invocation.request_token)
        self._timers.cancel(invocation)
        if invocation.bounds is not None:
            self._bound_timers.cancel(invocation.bounds)
        if (
            invocation.worker_s >= 0.0
            and invocation.head_at
            and not invocation.has_waited_for_client
        ):
            self.lines.answered(invocation.version.version_id, invocation.worker_s)
        now = self._clock()
        self._metrics.record_end(invocation, now)
        if self._access is not None:
            self._access.write(invocation, now)

    def expired(self, request_id: str) -> None:
        """Withdraw the request and report the position that it had."""
        invocation = self.live[request_id]
        if invocation.response_token:
            self._response_tokens.revoke(invocation.response_token)
        spawn(self._withdraw_expired(invocation), "poll-timeout")

    def tick(self) -> None:
        """Call `deadline_passed` of each invocation whose deadline has come; measure the lines."""
        now = self._clock()
        for invocation in self._timers.advance(now):
            invocation.deadline_passed(now, self._retry_after_s(invocation))
            if invocation.state is not DONE and invocation.state is not EXPIRED:
                self._timers.schedule(invocation.deadline, invocation)
        for bounds in self._bound_timers.advance(now):
            bounded = self.live.get(bounds.request_id)
            if bounded is not None:
                bounded.bound_passed(now)
        self.lines.tick()
        if self._access is not None:
            self._access.tick()

    def shut_down(self) -> None:
        """End what is still live: the drain is over."""
        for invocation in list(self.live.values()):
            invocation.shut_down()

    async def _withdraw_expired(self, invocation: Invocation) -> None:
        """Time out with the queue position, if the queue returns it soon."""
        position: int | None = None
        try:
            with suppress(QueueUnavailable, TimeoutError):
                async with silence_limit(_POSITION_WAIT_S):
                    position = await self._queue.withdraw_expired(
                        invocation.version.version_id, invocation.request_id
                    )
        finally:
            # After any other error too: no deadline is left that would end the invocation.
            invocation.position_known(position, self._retry_after_s(invocation))

    async def _poll_worker(self, invocation: Invocation, number: int, envelope: bytes) -> None:
        """Ask once, and again for a moment if nobody listens: news of a subscription takes time."""
        if self._poll is None:
            raise AssertionError("A polled call without a way to its worker")
        is_acknowledged = False
        version_id = invocation.version.version_id
        try:
            for pause_s in POLL_PAUSES_S:
                try:
                    await self._poll(version_id, invocation.request_id, envelope)
                except NoResponder:
                    await asyncio.sleep(pause_s)
                else:
                    is_acknowledged = True
                    break
        except (QueueUnavailable, TimeoutError):
            pass
        finally:
            # After any other error too: the invocation would wait for a response that never comes.
            if not is_acknowledged:
                invocation.poll_failed(number)

    async def _find_lease(self, invocation: Invocation) -> None:
        """Ask the queue whether a worker has the call."""
        position: int | None = None
        try:
            with suppress(QueueUnavailable, TimeoutError):
                async with silence_limit(_POSITION_WAIT_S):
                    position = await self._queue.position(
                        invocation.version.version_id, invocation.request_id
                    )
        finally:
            invocation.lease_known(position, self._clock())

    def _retry_after_s(self, invocation: Invocation) -> int:
        return self.lines.retry_after_s(invocation.version.version_id, invocation.poll_s)
