"""The requests of one gateway process in the queues of one region, the same on each broker.

A request has one of five states; the queue of each broker makes its transitions and documents them:

    PENDING  published, not acknowledged
    STALLED  waits to be published
    HELD     in the queue or leased; ``sequence`` is its number there
    LOST     the queue has lost it; a worker that leased it before may still respond
    ENDED    the publisher gets no further callback

Every state leads to ENDED: without a callback when it is answered, forgotten or withdrawn, with
``undeliverable`` after the last run (HELD), else with ``publish_failed``: refused, not acknowledged
in time (PENDING, STALLED), no response within a grace period (LOST), or the queue is closed. A
LOST request waits on while a worker says again and again that it runs it, and one that nobody began
while the broker is away.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, TypeVar

from queueing.interface import (
    OwnLine,
    PublishCallbacks,
    QueueError,
    QueueFull,
    QueueUnavailable,
    WaitingRequests,
)
from queueing.own_line import RequestLine
from queueing.publishes import PublishStatus, publish_counter
from queueing.settings import QueueSettings
from runtime.lifecycle import Ticker
from runtime.metrics import CounterChild
from wire.subjects import stream_name

TICK_S = 0.5
"""The interval between two calls of `OwnRequests.tick`."""
_MAX_LOOKS = 25
_MAX_REPUBLISHES = 3
"""So many losses of its queue does a request survive that nobody leased."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of one process's queues.

    At most ``max_requests`` waiting or running at once and ``max_versions`` with queues; further
    publishes fail. ``max_waiting`` requests may wait in one queue, over all processes; further
    publishes are refused as `QueueFull`. A request is run at most ``max_runs`` times; 0: as often
    as the broker delivers it. ``max_kept_bytes`` of envelopes are kept while their requests are
    HELD or LOST, to be published again.

    ``ack_timeout_s`` is the longest wait for the acknowledgement of a publish.
    ``republish_after_s`` is the time for workers to say what they run, before a lost request is
    published again; ``lost_grace_s`` is how long a request that cannot be published again may still
    be responded to, ``lease_grace_s`` the same for one that had been leased, and ``claim_s`` for
    one that a worker runs, after that worker's last word: several times as long as workers take to
    repeat it. ``look_interval_s`` is the time between two looks at a queue in use, longer with more
    than fifty of them. ``peer_wait_s`` is how long a position waits for processes that do not
    respond, where the broker does not know positions itself.
    """

    max_requests: int = 200_000
    max_versions: int = 10_000
    max_waiting: int = 1 << 62
    max_runs: int = 0
    max_kept_bytes: int = 64 << 20
    ack_timeout_s: float = 5.0
    republish_after_s: float = 0.5
    lost_grace_s: float = 0.5
    lease_grace_s: float = 10.0
    claim_s: float = 45.0
    look_interval_s: float = 1.0
    peer_wait_s: float = 0.25


def queue_limits(queue: QueueSettings) -> QueueLimits:
    """Return the bounds that a process keeps itself."""
    return QueueLimits(max_waiting=queue.max_messages, max_runs=queue.max_deliveries)


class RequestState(IntEnum):
    """The state of a request; the module's docstring has their meaning."""

    PENDING = 1
    STALLED = 2
    HELD = 3
    LOST = 4
    ENDED = 5


PENDING = RequestState.PENDING
STALLED = RequestState.STALLED
HELD = RequestState.HELD
LOST = RequestState.LOST
ENDED = RequestState.ENDED


class OwnRequest:
    """One request of this process.

    ``envelope`` is kept only while it may have to be sent again. ``at`` is loop time: of the
    publish, or of the loss. ``sequence`` is 0 until it is HELD for the first time. ``is_unsure``:
    it was published on a connection that was lost before the acknowledgement. ``is_leased``: a
    worker has leased it before its acknowledgement came. ``was_leased``: it had been leased when it
    was lost. ``started_at`` is when a worker last said that it runs, or was to run it while it was
    not HELD; 0 if never. ``republishes`` is how often it was published again after a loss.
    """

    __slots__ = (
        "at",
        "callbacks",
        "envelope",
        "is_leased",
        "is_unsure",
        "queue",
        "republishes",
        "request_id",
        "sequence",
        "started_at",
        "state",
        "was_leased",
    )

    def __init__(
        self,
        queue: "VersionLine[Any]",
        request_id: str,
        callbacks: PublishCallbacks,
        envelope: bytes,
        at: float,
    ) -> None:
        """``queue`` is that of its version."""
        self.queue = queue
        self.request_id = request_id
        self.callbacks = callbacks
        self.envelope = envelope
        self.at = at
        self.sequence = self.republishes = 0
        self.started_at = 0.0
        self.is_unsure = self.is_leased = self.was_leased = False
        self.state = STALLED

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.request_id} {self.state.name} {self.sequence})"

    def is_begun(self) -> bool:
        """Whether a worker has, or had, a request that is LOST."""
        return self.was_leased or self.started_at > 0.0

    def is_unacknowledged(self) -> bool:
        """Whether it is PENDING or STALLED."""
        return self.state is PENDING or self.state is STALLED


R = TypeVar("R", bound=OwnRequest)


class VersionLine(RequestLine[R]):
    """The requests of this process in the queue of one version.

    Those that are PENDING or STALLED are ``unacknowledged``, those that are HELD are stored.
    ``stalled`` has the requests that were STALLED. ``stream`` is the queue's name in metrics, and
    ``stored`` counts successful publishes there; it continues when the queue is forgotten and
    opened again.
    """

    __slots__ = ("stalled", "stored", "stream", "version_id")

    def __init__(self, version_id: str, stream: str, stored: CounterChild) -> None:
        super().__init__()
        self.version_id = version_id
        self.stream = stream
        self.stored = stored
        self.stalled: list[R] = []

    def settle(self, request: R) -> None:
        """Count one request less that is PENDING or STALLED."""
        self.unacknowledged -= 1
        if request.is_leased:
            request.is_leased = False
            self.leased_early -= 1


Q = TypeVar("Q", bound=VersionLine[Any])


class OwnRequests(ABC, Generic[R, Q]):
    """All requests of this process, and their queues by version.

    Metrics: ``publishes`` (`queueing.publishes`), ``losses``, requests that failed because their
    queue lost them, and ``republished``, how often lost ones were published again.
    """

    def __init__(
        self, region: str, limits: QueueLimits, clock: Callable[[], float] | None = None
    ) -> None:
        """``clock`` returns seconds; the loop's time by default."""
        self._region = region
        self._limits = limits
        self._requests: dict[str, R] = {}
        self._queues: dict[str, Q] = {}
        # In the order of ``at``. A request that has left the state is skipped when it is reached.
        self._unacknowledged: deque[R] = deque()
        self._lost: deque[R] = deque()
        self._to_look: deque[str] = deque()
        self._kept_bytes = 0
        self._checked_at = self._asked_at = self._connected_at = 0.0
        self._ticker = Ticker(TICK_S, self.tick, measures_silence=True)
        loop = asyncio.get_running_loop()
        self._clock = clock or loop.time
        self._call_soon = loop.call_soon
        self.publishes = publish_counter()
        self.losses = self.republished = 0

    # What a broker adds

    @abstractmethod
    def tick(self) -> None:
        """Repeat or fail what is due. Called every half second between start and close."""

    @abstractmethod
    def _new_queue(self, version_id: str, stream: str, stored: CounterChild) -> Q:
        """Return the queue of a version that was not in use."""

    @abstractmethod
    def _is_connected(self) -> bool:
        """Whether the broker can be reached."""

    @abstractmethod
    def _look_at(self, queue: Q) -> None:
        """Look at a queue in use: what was leased, what is lost?"""

    @abstractmethod
    def _send_again(self, request: R) -> None:
        """PENDING or STALLED again: it was LOST, and nobody had leased it."""

    @abstractmethod
    def _ask_workers(self, queue: Q) -> None:
        """Ask the workers which requests they run."""

    @abstractmethod
    def _withdraw_later(self, request: R) -> None:
        """It is given up, and may be in the queue all the same: nobody is to run it."""

    def _may_run_again(self, request: R) -> bool:  # noqa: ARG002 - brokers differ
        """Whether a LOST request that was leased may be published as a further run, and count it.

        Asked when no worker has said for ``lease_grace_s`` that it runs it.
        """
        return False

    def _is_idle(self, queue: Q) -> bool:
        """Whether this process has no request in a queue."""
        return not (queue.by_sequence or queue.unacknowledged or queue.stalled)

    def _ended(self, request: R) -> None:
        """A request ends now."""

    # FunctionQueue

    def has_waiting(self, version_id: str) -> bool:
        """Return whether a request of this process may be waiting for a lease."""
        queue = self._queues.get(version_id)
        return queue is not None and queue.has_waiting()

    def leased(self, request_id: str) -> None:
        """Remember that a worker has leased the request, and with it those before it."""
        request = self._requests.get(request_id)
        if request is None:
            return
        queue = request.queue
        if request.state is HELD:
            queue.answered_sequence = max(queue.answered_sequence, request.sequence)
        elif request.is_unacknowledged() and not request.is_leased:
            request.is_leased = True
            queue.leased_early += 1

    def has_waited(self, version_id: str, seconds: float) -> bool:
        """Return whether a request of this process may have waited for a lease for ``seconds``."""
        queue = self._queues.get(version_id)
        return queue is not None and queue.has_waited(seconds, self._clock())

    def own_line(self, version_id: str, delivered: int) -> OwnLine:
        """Return what this process knows of its own requests."""
        queue = self._queues.get(version_id)
        if queue is None:
            return OwnLine()
        return queue.own_line(delivered, int(queue.stored.value))

    def waiting(self) -> Iterator[WaitingRequests]:
        """Yield what waits of this process's requests, for each queue that it has in use."""
        now = self._clock()
        for version_id, queue in list(self._queues.items()):
            oldest_s = now - queue.oldest_waiting_at(now)
            yield WaitingRequests(version_id, queue.waiting() + queue.unacknowledged, oldest_s)

    def answered(self, request_id: str) -> None:
        """Keep no more of a request to which a worker responds."""
        request = self._requests.get(request_id)
        if request is not None:
            request.queue.answered(request, request.sequence if request.state is HELD else 0)
            self._end(request)

    def forget(self, request_id: str) -> None:
        """Keep no more of the request."""
        request = self._requests.get(request_id)
        if request is not None:
            self._end(request)

    def started(self, request_id: str) -> None:
        """Remember that a worker runs the request, whatever becomes of its entry."""
        request = self._requests.get(request_id)
        if request is not None:
            request.started_at = self._clock()

    # State

    @property
    def open_versions(self) -> frozenset[str]:
        """The versions whose queues this process has open."""
        return frozenset(self._queues)

    def idle_versions(self) -> Iterator[str]:
        """Yield the open versions of which this process has no request."""
        for version_id, queue in self._queues.items():
            if self._is_idle(queue):
                yield version_id

    def request(self, request_id: str) -> R | None:
        """Return a request of this process, to be read only; `None` if it has ENDED."""
        return self._requests.get(request_id)

    def sequence_of(self, request_id: str) -> int:
        """Return the sequence of a request that is HELD, else 0."""
        request = self._requests.get(request_id)
        return request.sequence if request is not None and request.state is HELD else 0

    def is_stored(self, request_id: str) -> bool:
        """Return whether a request of this process is HELD."""
        return bool(self.sequence_of(request_id))

    # Transitions

    def _begin(
        self, version_id: str, envelope_bytes: int, max_bytes: int, callbacks: PublishCallbacks
    ) -> Q | None:
        """Return the queue for a new request; `None`, and a failure later, if there is no room."""
        queue = self._queues.get(version_id) or self._open(version_id)
        if queue is None or len(self._requests) >= self._limits.max_requests:
            full = "The process has reached its limit of queued requests"
            self._fail_later(callbacks, version_id, full, PublishStatus.OVERLOADED)
            return None
        if envelope_bytes > max_bytes:
            large = "The envelope is larger than the broker takes"
            self._fail_later(callbacks, version_id, large, PublishStatus.TOO_LARGE)
            return None
        return queue

    def _add(self, request: R) -> None:
        """A request is to be published, or was."""
        self._requests[request.request_id] = request
        self._unacknowledged.append(request)
        request.queue.unacknowledged += 1

    def _open(self, version_id: str) -> Q | None:
        """Return the queue of a version, or `None` when the maximum of versions is in use."""
        if len(self._queues) >= self._limits.max_versions:
            idle = next(self.idle_versions(), None)
            if idle is None:
                return None
            del self._queues[idle]
        stream = stream_name(self._region, version_id)
        stored = self.publishes.child(stream, PublishStatus.OK)
        queue = self._queues[version_id] = self._new_queue(version_id, stream, stored)
        return queue

    def _keep_envelope(self, request: R) -> None:
        """Keep what may have to be published again, within the bounds."""
        kept_bytes = self._kept_bytes + len(request.envelope)
        if request.republishes >= _MAX_REPUBLISHES or kept_bytes > self._limits.max_kept_bytes:
            request.envelope = b""
        else:
            self._kept_bytes = kept_bytes

    def _to_lost(self, request: R) -> None:
        """HELD to LOST."""
        request.state = LOST
        request.at = self._clock()
        self._lost.append(request)

    def _lose_again(self, request: R) -> None:
        """PENDING or STALLED to LOST: the broker is away, or a worker has it."""
        request.queue.settle(request)
        self._keep_envelope(request)
        self._to_lost(request)

    def _republish(self, request: R, now: float) -> None:
        """LOST to STALLED: nobody had leased it. No news to its publisher."""
        self._kept_bytes -= len(request.envelope)
        request.at = now
        request.queue.unacknowledged += 1
        self._unacknowledged.append(request)
        self._send_again(request)

    def _end(self, request: R) -> None:
        """Any state to ENDED, without a callback."""
        if request.state is ENDED:
            return
        self._requests.pop(request.request_id, None)
        queue = request.queue
        if request.state is HELD:
            queue.remove(request.sequence)
        self._ended(request)
        if request.is_unacknowledged():
            queue.settle(request)
        else:
            self._kept_bytes -= len(request.envelope)
        request.envelope = b""
        request.state = ENDED

    def _fail(
        self, request: R, error: QueueError, status: PublishStatus = PublishStatus.UNAVAILABLE
    ) -> None:
        """Any state to ENDED, with ``publish_failed``; ``status`` counts if not acknowledged."""
        if request.state is ENDED:
            return
        if request.is_unacknowledged() and not request.sequence:
            reason = PublishStatus.QUEUE_FULL if isinstance(error, QueueFull) else status
            self.publishes.child(request.queue.stream, reason).value += 1
        self._end(request)
        request.callbacks.publish_failed(error)

    def _fail_later(
        self, callbacks: PublishCallbacks, version_id: str, reason: str, status: PublishStatus
    ) -> None:
        """Report a publish for which no request was made."""
        self.publishes.child(stream_name(self._region, version_id), status).value += 1
        self._call_soon(callbacks.publish_failed, QueueUnavailable(reason))

    def _fail_all(self) -> None:
        """The queue closes."""
        for request in tuple(self._requests.values()):
            self._fail(request, QueueUnavailable("The queue is closing"))

    # Time

    def _look(self, now: float) -> None:
        """Look at the queues in use, at a few of them per tick."""
        to_look = self._to_look
        if not to_look and now - self._checked_at >= self._limits.look_interval_s:
            self._checked_at = now
            to_look.extend(
                v for v, queue in self._queues.items() if queue.by_sequence or queue.stalled
            )
        for _ in range(min(len(to_look), _MAX_LOOKS)):
            if (queue := self._queues.get(to_look.popleft())) is not None:
                self._look_at(queue)

    def _end_lost(self, now: float) -> None:
        """Publish lost requests again, or fail them after their grace period."""
        limits = self._limits
        is_back = self._is_connected() and now - self._connected_at >= limits.republish_after_s
        waiting: list[R] = []
        silent: dict[str, Q] = {}
        lost = self._lost
        while lost and now - lost[0].at >= limits.republish_after_s:
            request = lost.popleft()
            if request.state is not LOST:
                continue
            if not request.is_begun() and (request.envelope or not is_back):
                if is_back:
                    self._republish(request, now)
                else:
                    waiting.append(request)
                continue
            silent_s = now - max(request.at, request.started_at)
            if request.started_at and silent_s >= limits.claim_s / 2:
                # A worker that began after the loss does not know of it.
                silent[request.queue.version_id] = self._queues[request.queue.version_id]
            if silent_s < self._grace_s(request):
                waiting.append(request)
            elif is_back and request.envelope and self._may_run_again(request):
                self._republish(request, now)
            else:
                self._give_up_lost(request)
        lost.extendleft(reversed(waiting))
        if silent and now - self._asked_at >= limits.claim_s / 4:
            self._asked_at = now
            for queue in silent.values():
                self._ask_workers(queue)

    def _give_up_lost(self, request: R) -> None:
        """LOST to ENDED: no worker has responded in time."""
        self.losses += 1
        if not request.is_begun():
            # The new queue may have it after all.
            self._withdraw_later(request)
        self._fail(request, QueueUnavailable("The queue has lost the request"))

    def _grace_s(self, request: R) -> float:
        """Return how long a lost request may wait for its response."""
        limits = self._limits
        if request.started_at:
            return limits.claim_s
        return limits.lease_grace_s if request.was_leased else limits.lost_grace_s
