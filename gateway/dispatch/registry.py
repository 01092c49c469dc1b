"""The live invocations of one process: their tokens, their deadlines, what is written of them."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from gateway.attach.endpoint import AttachEndpoint
from gateway.invocation.machine import Invocation
from gateway.invocation.state import DONE, QUEUED
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.metrics import GatewayMetrics
from queueing.interface import FunctionQueue, QueueUnavailable
from runtime.tasks import spawn
from runtime.timers import Timers

_POSITION_WAIT_S = 0.5
"""A client that was promised an answer by now waits no longer for its place in line."""


class Desk:
    """Implements `gateway.invocation.ports.Desk`; `tick` drives the deadlines."""

    def __init__(
        self,
        attach: AttachEndpoint,
        queue: FunctionQueue,
        metrics: GatewayMetrics,
        access: AccessLog | None,
        clock: Callable[[], float],
        wanted: Callable[[str], object],
    ) -> None:
        """``access`` is None when no access log is wanted.

        ``wanted`` is told of each version that is called while none of its instances runs.
        """
        self._attach = attach
        self._queue = queue
        self._metrics = metrics
        self._access = access
        self._clock = clock
        self._wanted = wanted
        self._timers: Timers[Invocation] = Timers(now=clock())
        self.live: set[Invocation] = set()

    def open(self, invocation: Invocation) -> None:
        """An invocation begins."""
        self.live.add(invocation)
        self._attach.responses.arm(invocation.response_token, invocation)
        if invocation.request_token:
            self._attach.requests.arm(invocation.request_token, invocation)
        self._timers.schedule(invocation.deadline, invocation)
        self._metrics.record_start(invocation)
        if not invocation.version.capacity:
            self._wanted(invocation.version.version_id)

    def rearm(self, invocation: Invocation) -> None:
        """Let another worker answer the invocation."""
        self._attach.responses.arm(invocation.response_token, invocation)

    def finished(self, invocation: Invocation) -> None:
        """Forget the invocation and write down how it went."""
        self.live.discard(invocation)
        self._attach.responses.disarm(invocation.response_token)
        if invocation.request_token:
            self._attach.requests.disarm(invocation.request_token)
        self._timers.cancel(invocation)
        now = self._clock()
        self._metrics.record_end(invocation, now)
        if self._access is not None:
            self._access.write(invocation, now)

    def tick(self) -> None:
        """Tell the invocations whose deadline has come."""
        now = self._clock()
        for invocation in self._timers.advance(now):
            if invocation.state is QUEUED:
                spawn(self._time_out_queued(invocation), "poll-timeout")
            else:
                self._pass_deadline(invocation, now)

    def shut_down(self) -> None:
        """End what is still live: the drain is over."""
        for invocation in list(self.live):
            invocation.shut_down()

    async def _time_out_queued(self, invocation: Invocation) -> None:
        """Time out with the place in line, if the queue can tell it soon."""
        position = 0
        with suppress(QueueUnavailable, TimeoutError):
            async with asyncio.timeout(_POSITION_WAIT_S):
                position = await self._queue.position(
                    invocation.version.version_id, invocation.request_id
                )
        self._pass_deadline(invocation, self._clock(), position or None)

    def _pass_deadline(
        self, invocation: Invocation, now: float, position: int | None = None
    ) -> None:
        invocation.deadline_passed(now, position)
        if invocation.state is not DONE:
            self._timers.schedule(invocation.deadline, invocation)
