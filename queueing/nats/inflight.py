"""Every request of this process that is not over, and what time and losses do to it."""

import asyncio
from collections import deque
from dataclasses import dataclass

from queueing.interface import QueueError, QueueFull, QueueUnavailable
from queueing.nats.connection import Connection, NatsError
from queueing.nats.entries import LOST, PENDING, Entry, VersionQueue
from queueing.nats.maintenance import Upkeep
from queueing.nats.publishes import PublishStatus
from runtime.tasks import spawn

_REPEAT_S = 1.0
_MAX_MISSING = 100


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of one process's queue.

    ``max_requests`` waiting or running at once and ``max_versions`` with queues; more are refused.
    ``ack_timeout_s`` is the longest wait for the broker's word on a publish, not above the streams'
    ``duplicate_window_s``. ``lost_grace_s`` is how long a worker may take to answer a request that
    the queue has lost, ``look_interval_s`` how often a queue in use is looked at, ``peer_wait_s``
    how long a position waits for silent peers.
    """

    max_requests: int = 200_000
    max_versions: int = 10_000
    ack_timeout_s: float = 5.0
    lost_grace_s: float = 10.0
    look_interval_s: float = 10.0
    peer_wait_s: float = 0.25


class RequestTable:
    """Requests by id; each leaves it once, by `forget` or `refuse`.

    Counter for metrics: ``losses`` (refused because the queue lost them).
    """

    def __init__(self, connection: Connection, upkeep: Upkeep, limits: QueueLimits) -> None:
        self._connection = connection
        self._upkeep = upkeep
        self._limits = limits
        self._clock = asyncio.get_running_loop().time
        self._pending: deque[Entry] = deque()
        self._lost: deque[Entry] = deque()
        self.by_id: dict[str, Entry] = {}
        self.losses = 0

    def is_full(self) -> bool:
        """Whether no further request can be taken."""
        return len(self.by_id) >= self._limits.max_requests

    def add(self, entry: Entry) -> None:
        """Take a request that was just published."""
        self.by_id[entry.request_id] = entry
        self._pending.append(entry)
        entry.queue.pending += 1

    def forget(self, entry: Entry) -> None:
        """Nobody waits for it any more."""
        if self.by_id.pop(entry.request_id, None) is not None:
            if entry.stage is PENDING:
                entry.queue.pending -= 1
                entry.frame = b""
            entry.queue.remove(entry)

    def refuse(
        self,
        entry: Entry,
        error: QueueError,
        status: PublishStatus = PublishStatus.UNAVAILABLE,
    ) -> None:
        """Forget it and tell who waits; ``status`` is its publish's, if that was not decided."""
        if self.by_id.get(entry.request_id) is entry:
            if entry.stage is PENDING:
                is_full = isinstance(error, QueueFull)
                entry.queue.count_failure(PublishStatus.QUEUE_FULL if is_full else status)
            self.forget(entry)
            entry.waiting.refused(error)

    def is_pending(self, entry: Entry) -> bool:
        """Whether the broker's word on it is still awaited."""
        return entry.stage is PENDING and self.by_id.get(entry.request_id) is entry

    def _is_lost(self, entry: Entry) -> bool:
        return entry.stage is LOST and self.by_id.get(entry.request_id) is entry

    # Losses

    def link_lost(self) -> None:
        """Refuse what was not acknowledged. It may be in the queue all the same: swept later."""
        pending, self._pending = self._pending, deque()
        for entry in pending:
            if self.is_pending(entry):
                self._upkeep.doubt(entry.queue, entry.request_id)
                self.refuse(entry, QueueUnavailable("The link to the broker was lost"))

    def stream_lost(self, queue: VersionQueue) -> None:
        """Give up what was held, unless the new stream has it already.

        Not at once: a worker that had leased it may still answer.
        """
        lost = queue.lose(self._clock())
        if lost:
            self._lost.extend(lost)
            spawn(self._rescue(queue, lost), "queue-rescue")

    async def _rescue(self, queue: VersionQueue, lost: list[Entry]) -> None:
        """Find those that were published after the loss: the newest, in an unbroken row."""
        missing = 0
        for entry in reversed(lost):
            if not self._is_lost(entry):
                continue
            try:
                sequence = await self._upkeep.sequence_of(queue, entry.request_id)
            except NatsError:
                return
            missing = 0 if sequence else missing + 1
            if sequence and self._is_lost(entry):
                queue.add(entry, sequence)
            elif missing >= _MAX_MISSING:
                return

    # Time

    def tick(self, now: float) -> None:
        """Call about twice a second."""
        self._repeat_or_refuse(now)
        lost = self._lost
        while lost and now - lost[0].at >= self._limits.lost_grace_s:
            entry = lost.popleft()
            if self._is_lost(entry):
                self.losses += 1
                self.refuse(entry, QueueUnavailable("The queue has lost the request"))

    def _repeat_or_refuse(self, now: float) -> None:
        """Send again what a broker may have dropped, say in a change of leaders, or give it up.

        The message id makes the repetition safe within the stream's duplicate window.
        """
        pending = self._pending
        kept: list[Entry] = []
        while pending and now - pending[0].at >= _REPEAT_S:
            entry = pending.popleft()
            if not self.is_pending(entry):
                continue
            age_s = now - entry.at
            if age_s >= self._limits.ack_timeout_s:
                self._upkeep.doubt(entry.queue, entry.request_id)
                late = QueueUnavailable("The broker did not acknowledge in time")
                self.refuse(entry, late, PublishStatus.TIMEOUT)
                continue
            # After 1 s, 3 s, 7 s.
            if age_s >= _REPEAT_S * ((1 << entry.sends) - 1) and not entry.is_stalled:
                entry.sends += 1
                self._connection.send(entry.frame)
            kept.append(entry)
        pending.extendleft(reversed(kept))
