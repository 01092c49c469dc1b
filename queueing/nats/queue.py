"""The life of a queued request on JetStream, in one gateway process (`docs/wire.md` §4).

A publish is one frame out and one short acknowledgement in, on a reply subject that all requests
share; its last token is the request id. Nothing else is asked of the broker in the normal case.

A request has one of five states; `JetStreamQueue` makes all transitions:

    PENDING  published, not acknowledged
             ──acknowledged──▶ HELD   ──no stream, connection lost──▶ STALLED
    STALLED  waits until the stream is known to exist and to have room, to be published
             ──stream found──▶ PENDING   ──an earlier copy acknowledged──▶ HELD
    HELD     in the queue or leased; the broker knows it by ``sequence``
             ──stream gone, emptied or replaced──▶ LOST
    LOST     its stream is gone; a worker that leased it before may still respond
             ──found in the new stream──▶ HELD   ──not leased before, broker there──▶ STALLED
    ENDED    the publisher gets no further callback

Every state leads to ENDED: without a callback when it is answered, forgotten or withdrawn, with
``undeliverable`` after the last delivery (HELD), else with ``publish_failed``: refused, not
acknowledged in time (PENDING, STALLED), no response within a grace period (LOST), or the queue is
closed. A LOST request waits on while a worker says again and again that it runs it, and one that
nobody began while the broker is away. Published again but not acknowledged, it is LOST again, not
ENDED: workers get the time to say that they run it.

How often a request was run is counted here, because JetStream also counts what was given back:
`JetStreamQueue.may_run`.

The module is longer than others so that the whole life is in one place.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson

from queueing.interface import (
    LineState,
    OwnLine,
    PublishCallbacks,
    QueueError,
    QueueFull,
    QueueUnavailable,
    RunDecision,
    WaitingRequests,
)
from queueing.nats.acks import NAK, deliveries_of
from queueing.nats.connection import NatsConnection, NatsError, NoResponders, Subscription
from queueing.nats.jetstream import (
    EPOCH_GAP,
    StreamSettings,
    max_deliveries_subject,
    naks_subject,
    next_message_subject,
)
from queueing.nats.maintenance import BrokerSilent, FoundQueue, Maintenance, QueueNames
from queueing.nats.peers import Peers, ProcessRef
from queueing.nats.positions import Positions
from queueing.nats.protocol import (
    STATUS_NO_RESPONDERS,
    encode_publish,
    encode_publish_with_headers,
    status_of,
)
from queueing.nats.publishes import is_duplicate, publish_error
from queueing.own_line import RequestLine
from queueing.publishes import PublishStatus, publish_counter
from runtime.lifecycle import Ticker
from runtime.metrics import Counter
from runtime.tasks import spawn
from wire.subjects import LOSS_NOTICE, stream_name

_TICK_S = 0.5
_REPEAT_S = 1.0
_RESPONSE_S = 0.25
"""So long takes what a worker has written, at most, before it counts as lost."""
_TRACE_HEADER = b"NATS/1.0\r\ntraceparent: %b\r\n\r\n"
_MAX_STALLS = 2
_MAX_REPUBLISHES = 3
"""So many losses of its queue does a request survive that nobody leased."""
_MAX_MISSING = 100
_MAX_LOOKS = 25
_PROBE_LIMIT = b'{"batch":1,"no_wait":true,"max_bytes":1}'
_PROBE_LEASES = b'{"batch":1,"no_wait":true}'


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
    than fifty of them, ``peer_wait_s`` how long a position waits for processes that do not respond.
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


class RequestState(IntEnum):
    """The state of a request; the module's docstring has the transitions."""

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


class PublishedRequest:
    """One request of this process.

    ``envelope`` is kept only while it may have to be sent again; ``trace`` is a header of the
    message, empty if there is none. ``at`` is loop time: of the publish, or of the loss. ``sends``
    counts publishes, ``stalls`` those that found no stream, ``runs`` has the numbers of the
    deliveries that were run, as far as is known; it is `None` until
    the first one is in doubt. ``was_leased``: it had been leased when it was lost.
    ``is_leased``: a worker has leased it before its acknowledgement came.
    ``started_at`` is when a worker last said that it runs, or was told to run it while it was not
    HELD; 0 if never. ``republishes`` is how often it was published again after a loss;
    ``sequence`` is 0 until it is HELD for the first time. ``is_doubtful``: its runs are used up,
    unless the news of one given back is on its way. ``is_unsure``: it was published on a connection
    that was lost before the acknowledgement; ``is_repeating``: it is about to be published again.
    """

    __slots__ = (
        "at",
        "callbacks",
        "envelope",
        "is_doubtful",
        "is_leased",
        "is_repeating",
        "is_unsure",
        "queue",
        "republishes",
        "request_id",
        "runs",
        "sends",
        "sequence",
        "stalls",
        "started_at",
        "state",
        "trace",
        "was_leased",
    )

    def __init__(
        self,
        queue: "VersionQueue",
        request_id: str,
        callbacks: PublishCallbacks,
        envelope: bytes,
        trace: bytes,
        at: float,
    ) -> None:
        self.queue = queue
        self.request_id = request_id
        self.callbacks = callbacks
        self.envelope = envelope
        self.trace = trace
        self.at = at
        self.sends = 1
        self.stalls = 0
        self.runs: set[int] | None = None
        self.sequence = 0
        self.started_at = 0.0
        self.republishes = 0
        self.was_leased = self.is_doubtful = self.is_leased = False
        self.is_unsure = self.is_repeating = False
        self.state = PENDING

    def __repr__(self) -> str:
        return f"PublishedRequest({self.request_id} {self.state.name} sequence={self.sequence})"


class VersionQueue(RequestLine[PublishedRequest]):
    """The requests of this process in the queue of one version.

    ``created`` identifies the stream, empty until known, ``room`` is how many more requests may
    wait. ``stalled`` has the requests that were STALLED; those that are PENDING or STALLED are
    ``unacknowledged``, those that are HELD are stored.
    ``last_runs`` has the time at which a request got its last permitted run, by request id;
    ``probed_at`` is when its end was last looked for.
    ``stored`` is the metric of successful publishes; it belongs to the name of the stream and
    continues when the queue is forgotten and opened again.
    """

    __slots__ = (
        "ack_prefix",
        "created",
        "last_runs",
        "names",
        "probed_at",
        "room",
        "stalled",
        "stored",
        "subject",
    )

    def __init__(self, names: QueueNames, publishes: Counter, room: int) -> None:
        """``publishes`` is as from `queueing.publishes.publish_counter`."""
        super().__init__()
        self.names = names
        self.subject = names.subject
        self.ack_prefix = b'{"stream":"%b","seq":' % names.stream.encode()
        self.stored = publishes.child(names.stream, PublishStatus.OK)
        self.created = ""
        self.room = room
        self.last_runs: dict[str, float] = {}
        self.probed_at = 0.0
        self.stalled: list[PublishedRequest] = []

    def settle(self, request: PublishedRequest) -> None:
        """Count one request less that is PENDING or STALLED."""
        self.unacknowledged -= 1
        if request.is_leased:
            request.is_leased = False
            self.leased_early -= 1


class JetStreamQueue:
    """A `queueing.interface.FunctionQueue`.

    ``process`` is the number in the request ids of this process. Metrics: ``publishes``
    (`queueing.publishes`), ``losses``, requests that failed because their queue lost them, and
    ``republished``, how often lost ones were published again. ``looks`` counts the looks at queues.
    """

    def __init__(
        self,
        connection: NatsConnection,
        *,
        region: str,
        process: int,
        limits: QueueLimits | None = None,
        streams: StreamSettings | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """``clock`` returns seconds; the loop's time by default."""
        self._connection = connection
        self._region = region
        self._limits = limits or QueueLimits()
        streams = streams or StreamSettings()
        self._lease_s = streams.ack_wait_s
        self._maintenance = Maintenance(
            connection, self, region, streams, self._limits.ack_timeout_s
        )
        self._peers = Peers(
            connection, ProcessRef(region, process), self.count_between, self._limits.peer_wait_s
        )
        self._positions = Positions(connection, region, self, self._peers)
        self._requests: dict[str, PublishedRequest] = {}
        self._queues: dict[str, VersionQueue] = {}
        # In the order of ``at``. A request that has left the state is skipped when it is reached.
        self._unacknowledged: deque[PublishedRequest] = deque()
        self._lost: deque[PublishedRequest] = deque()
        self._stream_prefix = stream_name(region, "")
        self._inbox = connection.inbox() + b"."
        self._inbox_bytes = len(self._inbox)
        self._probe_inbox = connection.inbox()
        self._kept_bytes = 0
        self._to_look: deque[str] = deque()
        self._subscriptions: list[Subscription] = []
        self._ticker = Ticker(_TICK_S, self.tick, measures_silence=True)
        self._checked_at = self._asked_at = self._connected_at = 0.0
        self._clock = clock or asyncio.get_running_loop().time
        self._call_soon = asyncio.get_running_loop().call_soon
        self.publishes = publish_counter()
        self.losses = self.republished = self.looks = 0

    async def start(self) -> None:
        """Subscribe to acknowledgements and the broker's events."""
        subscribe = self._connection.subscribe
        self._subscriptions = [
            subscribe(self._inbox + b"*", self._on_acknowledgement),
            subscribe(max_deliveries_subject(), self._on_max_deliveries),
            subscribe(naks_subject(), self._on_handed_back),
            subscribe(self._probe_inbox, self._on_probed),
        ]
        self._peers.start()
        self._connection.add_listener(self, self._on_denied)
        self._ticker.start()
        if self._connection.is_connected():
            self._peers.greet()
            await self._connection.flush()

    async def close(self) -> None:
        """Fail all requests that are left and unsubscribe; the connection stays open."""
        self._ticker.stop()
        self._connection.remove_listener(self)
        for request in tuple(self._requests.values()):
            self._fail(request, QueueUnavailable("The queue is closing"))
        self._peers.close()
        for subscription in self._subscriptions:
            self._connection.unsubscribe(subscription)
        await self._connection.flush()

    # FunctionQueue

    def publish(
        self,
        version_id: str,
        request_id: str,
        envelope: bytes,
        callbacks: PublishCallbacks,
        trace: bytes,
        *,
        runs: int = 0,
    ) -> None:
        """Send the envelope. A failure is reported later."""
        if runs and runs >= self._limits.max_runs > 0:
            self._call_soon(callbacks.undeliverable)
            return
        queue = self._queues.get(version_id) or self._open(version_id)
        if queue is None or len(self._requests) >= self._limits.max_requests:
            full = "The process has reached its limit of queued requests"
            self._fail_later(callbacks, version_id, full, PublishStatus.OVERLOADED)
            return
        if b"\r" in trace or b"\n" in trace:
            trace = b""
        if len(envelope) + len(_TRACE_HEADER) + len(trace) > self._connection.max_payload_bytes:
            # The server would close the connection, and with it fail every other request.
            large = "The envelope is larger than the broker takes"
            self._fail_later(callbacks, version_id, large, PublishStatus.TOO_LARGE)
            return
        request = PublishedRequest(queue, request_id, callbacks, envelope, trace, self._clock())
        has_room = queue.room > 0
        if not (self._send(request) if has_room else self._connection.is_connected()):
            away = "The broker cannot be reached"
            self._fail_later(callbacks, version_id, away, PublishStatus.UNAVAILABLE)
            return
        if runs:
            # The first delivery of the queue is run without a question.
            request.runs = {1, *range(-runs, 0)}
        self._requests[request_id] = request
        self._unacknowledged.append(request)
        queue.unacknowledged += 1
        if has_room:
            queue.room -= 1
        else:
            self._wait_for_stream(request)

    def withdraw(self, version_id: str, request_id: str) -> None:
        """Remove the request, and send a cancel to the workers of the version."""
        queue = self._queues.get(version_id) or self._open(version_id)
        if queue is None:
            return
        request = self._requests.get(request_id)
        may_be_stored = request is not None and (
            request.is_unsure or not _is_unacknowledged(request)
        )
        if request is not None:
            # One that is PENDING may not be there yet: `_on_other_acknowledgement` deletes it.
            self._end(request)
        if not self._connection.publish(queue.names.cancel_subject, request_id.encode()):
            self._maintenance.mark_uncertain(queue.names, request_id)
        elif may_be_stored:
            self._maintenance.remove(queue.names, request_id)

    async def withdraw_expired(self, version_id: str, request_id: str) -> int | None:
        """Withdraw a request and return the position that it had. Raises `QueueUnavailable`."""
        request = self._requests.get(request_id)
        if request is None or request.state is not HELD:
            self.withdraw(version_id, request_id)
            return None

        def withdraw() -> None:
            # Not if its response head came meanwhile: a cancel would stop its worker.
            if self._requests.get(request_id) is request:
                self.withdraw(version_id, request_id)

        return await self._positions.withdrawn(version_id, request.sequence, withdraw)

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
        elif _is_unacknowledged(request) and not request.is_leased:
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

    async def line(self, version_id: str) -> LineState:
        """Return what the broker knows of the queue. Raises `QueueUnavailable`."""
        return await self._positions.line(stream_name(self._region, version_id))

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

    def may_run(self, request_id: str, deliveries: int) -> RunDecision:
        """Decide whether a worker may run a request about which it asks."""
        request = self._requests.get(request_id)
        if request is None:
            return RunDecision.NEVER
        max_runs = self._limits.max_runs
        runs = _runs_of(request)
        if deliveries not in runs and max_runs and len(runs) >= max_runs:
            if not request.is_doubtful:
                # The broker's report of a lease that was given back may be on its way.
                request.is_doubtful = True
                return RunDecision.LATER
            self._give_up(request)
            return RunDecision.NEVER
        request.is_doubtful = False
        runs.add(deliveries)
        if len(runs) == max_runs:
            request.queue.last_runs[request_id] = self._clock()
        if request.state is not HELD:
            # It is not published again: that would be a second run.
            request.started_at = self._clock()
        return RunDecision.RUN

    def started(self, request_id: str) -> None:
        """Remember that a worker runs the request, whatever becomes of its entry."""
        request = self._requests.get(request_id)
        if request is not None:
            request.started_at = self._clock()

    async def position(self, version_id: str, request_id: str) -> int:
        """Return the position of a request of this process. Raises `QueueUnavailable`."""
        return await self._positions.position(version_id, request_id)

    async def depth(self, version_id: str) -> int:
        """Return how many requests wait for a lease. Raises `QueueUnavailable`."""
        return await self._positions.depth(stream_name(self._region, version_id))

    # State

    @property
    def known_peers(self) -> int:
        """How many other gateway processes of the region are known."""
        return len(self._peers)

    @property
    def open_versions(self) -> frozenset[str]:
        """The versions whose queues this process has open."""
        return frozenset(self._queues)

    def idle_versions(self) -> Iterator[str]:
        """Yield the open versions of which this process has no request."""
        for version_id, queue in self._queues.items():
            if not (
                queue.by_sequence
                or queue.unacknowledged
                or queue.stalled
                or version_id in self._maintenance.ensuring
            ):
                yield version_id

    def request(self, request_id: str) -> PublishedRequest | None:
        """Return a request of this process, to be read only; `None` if it has ENDED."""
        return self._requests.get(request_id)

    # What `Positions` and `Peers` read

    def sequence_of(self, request_id: str) -> int:
        """Return the sequence of a request that is HELD, else 0."""
        request = self._requests.get(request_id)
        return request.sequence if request is not None and request.state is HELD else 0

    def count_between(self, version_id: str, delivered: int, sequence: int) -> int:
        """Return how many requests of this process lie between two sequences of a queue."""
        queue = self._queues.get(version_id)
        return queue.sequences.between(delivered, sequence) if queue is not None else 0

    # Transitions

    def _hold(self, request: PublishedRequest, sequence: int) -> None:
        """PENDING or STALLED to HELD: the stream has stored the request."""
        queue = request.queue
        if queue.highest and not 0 < sequence - queue.highest < EPOCH_GAP and request.sends == 1:
            # Sequences ascend; only a repeated publish may be acknowledged with a lower one.
            is_later = request.at > queue.highest_at or sequence > queue.highest
            if is_later or sequence in queue.by_sequence:
                # It is another stream of the same name, or the stream has lost its contents.
                self._lose_all(queue)
            self._maintenance.ensure(queue.names)
        was_leased_early = request.is_leased
        queue.settle(request)
        is_again = request.sequence > 0
        self._store(request, sequence)
        if was_leased_early and sequence > queue.answered_sequence:
            queue.answered_sequence = sequence
        if not is_again:
            queue.stored.value += 1

    def _store(self, request: PublishedRequest, sequence: int) -> None:
        queue = request.queue
        if request.state is not LOST:
            self._keep_envelope(request)
        request.sequence = sequence
        request.state = HELD
        queue.store(request, sequence, self._clock())

    def _send(self, request: PublishedRequest) -> bool:
        """Send the message of a request; return False if it cannot be sent now."""
        token = request.request_id.encode()
        subject, reply = request.queue.subject + token, self._inbox + token
        # Without a message id, which costs the broker a tenth of the request: see `_repeat`.
        if request.trace:
            headers = _TRACE_HEADER % request.trace
            frame = encode_publish_with_headers(subject, reply, headers, request.envelope)
        else:
            frame = encode_publish(subject, reply, request.envelope)
        return self._connection.send(frame)

    def _keep_envelope(self, request: PublishedRequest) -> None:
        """Keep what may have to be published again, within the bounds."""
        kept_bytes = self._kept_bytes + len(request.envelope)
        if request.republishes >= _MAX_REPUBLISHES or kept_bytes > self._limits.max_kept_bytes:
            request.envelope = b""
        else:
            self._kept_bytes = kept_bytes

    def _stall(self, request: PublishedRequest) -> None:
        """PENDING to STALLED: no stream exists. The second time, the request fails."""
        request.stalls += 1
        if request.stalls >= _MAX_STALLS:
            self._fail(request, QueueUnavailable("The queue does not exist or rejects the request"))
            return
        self._wait_for_stream(request)

    def _wait_for_stream(self, request: PublishedRequest) -> None:
        """To STALLED: it is not sent before the stream is known to exist and to have room."""
        request.state = STALLED
        request.queue.stalled.append(request)
        self._maintenance.ensure(request.queue.names)

    def _send_stalled(self, queue: VersionQueue) -> None:
        """STALLED to PENDING, in order: the stream exists now, and ``room`` is known."""
        stalled, queue.stalled = queue.stalled, []
        stalled.sort(key=lambda request: request.at)
        for request in stalled:
            if request.state is not STALLED:
                continue
            if request.started_at:
                # It was stored, and a worker has it: only its acknowledgement was lost.
                queue.settle(request)
                queue.stored.value += not request.sequence
                request.state, request.envelope = LOST, b""
                request.at = self._clock()
                self._lost.append(request)
                continue
            if request.is_unsure:
                request.state = PENDING
                self._repeat_soon(request)
            elif queue.room <= 0 and not request.sequence:
                self._fail(request, QueueFull("The queue holds as many requests as it may"))
            elif self._send(request):
                queue.room -= 1
                request.state = PENDING
                if request.sequence and not request.stalls:
                    request.republishes += 1
                    self.republished += 1
            elif request.sequence:
                # All that waited is sent at once, which may be more than the connection takes.
                queue.stalled.append(request)
            else:
                self._fail(request, QueueUnavailable("The broker cannot be reached"))

    def _lose_all(self, queue: VersionQueue) -> None:
        """HELD to LOST, for all of a queue: its stream is gone, or another has its name.

        They do not fail at once: a worker that had leased one may still respond, and the new stream
        may have those that were published after the change.
        """
        delivered = queue.delivered
        lost = queue.take_all()
        queue.last_runs.clear()
        now = self._clock()
        for request in lost:
            request.was_leased = request.sequence <= delivered
            request.runs, request.is_doubtful = None, False
            request.state = LOST
            request.at = now
        if lost:
            self._lost.extend(lost)
            self._connection.publish(queue.names.cancel_subject, LOSS_NOTICE)
            spawn(self._rescue(queue, lost), "queue-rescue")

    def _republish(self, request: PublishedRequest, now: float) -> None:
        """LOST to STALLED: nobody had leased it. No news to its publisher."""
        self._kept_bytes -= len(request.envelope)
        request.sends, request.stalls = 1, 0
        request.at = now
        request.queue.unacknowledged += 1
        self._unacknowledged.append(request)
        self._wait_for_stream(request)

    def _lose_again(self, request: PublishedRequest) -> None:
        """PENDING or STALLED to LOST: it was to be published again, and the broker is away."""
        request.queue.settle(request)
        self._keep_envelope(request)
        request.state = LOST
        request.at = self._clock()
        self._lost.append(request)

    async def _rescue(self, queue: VersionQueue, lost: list[PublishedRequest]) -> None:
        """LOST to HELD, for those in the new stream: the newest, without a gap."""
        missing = 0
        for request in reversed(lost):
            if request.state is not LOST:
                continue
            try:
                sequence = await self._maintenance.sequence_of(queue.names, request.request_id)
            except NatsError:
                return
            missing = 0 if sequence else missing + 1
            if sequence and request.state is LOST:
                self._store(request, sequence)
            elif missing >= _MAX_MISSING:
                return

    def _end(self, request: PublishedRequest) -> None:
        """Any state to ENDED, without a callback."""
        if request.state is ENDED:
            return
        self._requests.pop(request.request_id, None)
        queue = request.queue
        if request.state is HELD:
            queue.remove(request.sequence)
        if queue.last_runs:
            queue.last_runs.pop(request.request_id, None)
        if _is_unacknowledged(request):
            queue.settle(request)
        else:
            self._kept_bytes -= len(request.envelope)
        request.envelope = b""
        request.state = ENDED

    def _give_up(self, request: PublishedRequest) -> None:
        """HELD to ENDED: every permitted run has ended without a response."""
        self._maintenance.remove(request.queue.names, request.request_id)
        self._end(request)
        request.callbacks.undeliverable()

    def _fail(
        self,
        request: PublishedRequest,
        error: QueueError,
        status: PublishStatus = PublishStatus.UNAVAILABLE,
    ) -> None:
        """Any state to ENDED, with ``publish_failed``; ``status`` counts if not acknowledged."""
        if request.state is ENDED:
            return
        if _is_unacknowledged(request) and not request.sequence:
            reason = PublishStatus.QUEUE_FULL if isinstance(error, QueueFull) else status
            self.publishes.child(request.queue.names.stream, reason).value += 1
        self._end(request)
        request.callbacks.publish_failed(error)

    def _fail_later(
        self, callbacks: PublishCallbacks, version_id: str, reason: str, status: PublishStatus
    ) -> None:
        """Report a publish for which no `PublishedRequest` was made."""
        self.publishes.child(stream_name(self._region, version_id), status).value += 1
        self._call_soon(callbacks.publish_failed, QueueUnavailable(reason))

    # Events of the broker

    def _on_acknowledgement(
        self, subject: bytes, _reply: bytes, headers: bytes, payload: bytes
    ) -> None:
        request = self._requests.get(subject[self._inbox_bytes :].decode())
        if request is not None and request.state is PENDING:
            prefix = request.queue.ack_prefix
            if payload.startswith(prefix):
                # nats-server 2.11 and before writes a blank after the colon.
                digits = payload[len(prefix) : -1].lstrip()
                if digits.isdigit():
                    self._hold(request, int(digits))
                    return
        self._on_other_acknowledgement(request, headers, payload)

    def _on_other_acknowledgement(
        self, request: PublishedRequest | None, headers: bytes, payload: bytes
    ) -> None:
        if status_of(headers) == STATUS_NO_RESPONDERS:
            if request is not None and _is_unacknowledged(request):
                self._stall(request)
            return
        try:
            response: dict[str, Any] = orjson.loads(payload)
        except orjson.JSONDecodeError:
            response = {"error": {"description": "The broker's response is not JSON"}}
        if "error" not in response:
            if request is None:
                # It was withdrawn or has failed: no worker must process it.
                self._maintenance.delete(response["stream"], response["seq"])
            elif _is_unacknowledged(request):
                self._hold(request, response["seq"])
        elif request is not None and _is_unacknowledged(request):
            error = response["error"]
            description = error.get("description", "")
            if is_duplicate(description):
                spawn(self._find_sequence(request), "find-sequence")
            else:
                self._fail(request, publish_error(error.get("err_code", 0), description))

    def _repeat_soon(self, request: PublishedRequest) -> None:
        if not request.is_repeating:
            request.is_repeating = True
            spawn(self._repeat(request), "repeat-publish")

    async def _repeat(self, request: PublishedRequest) -> None:
        """Publish a PENDING request again, unless an earlier copy was stored.

        A copy that the stream has no more was run, and its worker wrote the response before it
        acknowledged: `_RESPONSE_S` after the stream's answer the response is here, and after a
        second answer it has been read, even if this process stood still meanwhile. A worker may
        have failed to deliver it, so the repetition counts as a run.
        """
        look = self._maintenance.sequence_of
        try:
            sequence = await look(request.queue.names, request.request_id)
            if not sequence:
                await asyncio.sleep(_RESPONSE_S)
                sequence = await look(request.queue.names, request.request_id)
            if request.state is not PENDING:
                return
            if sequence:
                self._hold(request, sequence)
            elif self._limits.max_runs != 1 and self._send(request):
                request.sends += 1
                request.is_unsure = False
                _runs_of(request).add(0)
        except NoResponders:
            if request.state is PENDING:
                request.is_unsure = False
                self._stall(request)
        except NatsError:
            # The time for its acknowledgement runs on.
            return
        finally:
            request.is_repeating = False

    async def _find_sequence(self, request: PublishedRequest) -> None:
        """Read the sequence of a request whose earlier copy is in the stream."""
        try:
            sequence = await self._maintenance.sequence_of(request.queue.names, request.request_id)
        except NatsError:
            # The time for its acknowledgement runs on.
            return
        if sequence and _is_unacknowledged(request):
            self._hold(request, sequence)

    def _on_max_deliveries(
        self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes
    ) -> None:
        """Delete a request whose last delivery failed; call back if this process published it."""
        advisory = orjson.loads(payload)
        stream, sequence = advisory["stream"], advisory["stream_seq"]
        if not stream.startswith(self._stream_prefix):
            return
        self._maintenance.delete(stream, sequence)
        request = self._held(stream, sequence)
        if request is not None:
            self._end(request)
            request.callbacks.undeliverable()

    def _on_handed_back(
        self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes
    ) -> None:
        """A lease was given back: the broker counts it as a delivery, but nothing ran."""
        advisory = orjson.loads(payload)
        request = self._held(advisory["stream"], advisory["stream_seq"])
        if request is not None:
            _runs_of(request).discard(advisory["deliveries"])

    def _held(self, stream: str, sequence: int) -> PublishedRequest | None:
        """Return the request of this process that is HELD with this sequence."""
        queue = self._queues.get(stream.removeprefix(self._stream_prefix))
        return queue.by_sequence.get(sequence) if queue is not None else None

    def _on_probed(self, subject: bytes, reply: bytes, _headers: bytes, _payload: bytes) -> None:
        """A pull of `_probe` got a request, so no worker has a lease of it."""
        if not reply:
            return
        request = self._requests.get(subject[subject.rfind(b".") + 1 :].decode())
        if (
            request is None
            or deliveries_of(reply) == 1
            or len(_runs_of(request)) < max(1, self._limits.max_runs)
        ):
            self._connection.publish(reply, NAK)
        else:
            self._give_up(request)

    def _on_denied(self, subject: bytes) -> None:
        """Fail the request that we have no permission to publish."""
        request = self._requests.get(subject[subject.rfind(b".") + 1 :].decode())
        if (
            request is not None
            and _is_unacknowledged(request)
            and subject.startswith(request.queue.subject)
        ):
            denied = QueueUnavailable("The broker denies publishing")
            self._fail(request, denied, PublishStatus.DENIED)

    # Listener

    def connected(self) -> None:
        """Check that the streams are the same, and clean up after the lost connection."""
        self._peers.greet()
        self._connected_at = self._clock()
        lost = {request.queue.names.cancel_subject for request in self._lost}
        for subject in lost:
            # Said already, but perhaps nobody heard it.
            self._connection.publish(subject, LOSS_NOTICE)
        for queue in self._queues.values():
            if not queue.by_sequence:
                # Nothing can be lost: whichever stream exists now is the right one.
                queue.created = ""
                queue.highest = queue.delivered = 0
            self._maintenance.ensure(queue.names)
        self._maintenance.clean_up()

    def disconnected(self) -> None:
        """PENDING to STALLED: the broker may have lost what it has not acknowledged.

        If it has not, `_repeat` keeps it from storing the request twice. To LOST if it has
        been in the queue before: then it waits for as long as the broker is away.
        """
        unacknowledged, self._unacknowledged = self._unacknowledged, deque()
        for request in unacknowledged:
            if not _is_unacknowledged(request):
                continue
            if request.sequence:
                self._lose_again(request)
                continue
            self._unacknowledged.append(request)
            if request.state is PENDING:
                request.is_unsure = True
                request.state = STALLED
                request.queue.stalled.append(request)

    # For and of `Maintenance.ensure`

    def highest_sequence(self, version_id: str) -> int:
        """Return the highest sequence that a queue is known to have used."""
        queue = self._queues.get(version_id)
        return queue.highest if queue is not None else 0

    def stream_emptied(self, version_id: str) -> None:
        """The stream has lost what it held."""
        queue = self._queues.get(version_id)
        if queue is not None:
            self._lose_all(queue)

    def stream_usable(self, version_id: str, found: FoundQueue) -> None:
        """Publish what was stalled; a new stream has lost what the old one held."""
        queue = self._queues.get(version_id)
        if queue is None:
            return
        self.looks += 1
        stream, consumer = found
        if queue.created and stream.created != queue.created:
            self._lose_all(queue)
        queue.created = stream.created
        queue.delivered = max(queue.delivered, consumer.delivered)
        if stream.last_sequence > queue.highest:
            queue.highest = stream.last_sequence
            queue.highest_at = self._clock()
        stalled = sum(1 for request in queue.stalled if request.state is STALLED)
        on_the_way = queue.unacknowledged - stalled
        waiting = max(0, stream.messages - consumer.leased)
        queue.room = self._limits.max_waiting - waiting - on_the_way
        self._send_stalled(queue)
        if not consumer.pulls and consumer.leased and queue.by_sequence:
            self._probe(queue, found)

    def stream_unusable(self, version_id: str, error: QueueError) -> None:
        """Fail what was stalled, but for what waited before, if the broker is away."""
        queue = self._queues.get(version_id)
        if queue is None:
            return
        stalled, queue.stalled = queue.stalled, []
        for request in stalled:
            if request.state is not STALLED:
                continue
            if request.sequence and isinstance(error, BrokerSilent):
                self._lose_again(request)
            else:
                self._fail(request, error)

    # Queues of versions

    def _open(self, version_id: str) -> VersionQueue | None:
        """Return the queue of a version, or `None` when the maximum of versions is in use."""
        if len(self._queues) >= self._limits.max_versions:
            idle = next(self.idle_versions(), None)
            if idle is None:
                return None
            del self._queues[idle]
        names = QueueNames.of(self._region, version_id)
        room = self._limits.max_waiting
        queue = self._queues[version_id] = VersionQueue(names, self.publishes, room)
        if self._connection.is_connected():
            self._maintenance.ensure(names)
        return queue

    # Time

    def tick(self) -> None:
        """Repeat or fail what is due. Called every half second between `start` and `close`."""
        now = self._clock()
        self._repeat_or_fail(now)
        self._end_lost(now)
        if self._connection.is_connected():
            self._maintenance.clean_up()
            self._peers.tick(now)
            self._look(now)

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
                self._maintenance.ensure(queue.names)

    def _probe(self, queue: VersionQueue, found: FoundQueue) -> None:
        """Find leases that have ended while no worker pulls: the broker notices them at a pull.

        A pull that no message fits into makes it see which requests have used up the deliveries
        that it permits. A pull that takes one shows whether the last run that we permit has ended;
        any other request that it gets is given back, so it is made once per lease only.
        """
        subject = next_message_subject(queue.names.stream)
        if found.consumer.redelivered or self._limits.max_runs == 0:
            self._connection.publish(subject, _PROBE_LIMIT, self._probe_inbox)
        now = self._clock()
        lease_s = found.consumer.lease_s or self._lease_s
        oldest = min(queue.last_runs.values(), default=now)
        if self._limits.max_runs == 1:
            oldest = min(oldest, queue.probed_at)
        if now - max(oldest, queue.probed_at) >= lease_s:
            queue.probed_at = now
            self._connection.publish(subject, _PROBE_LEASES, self._probe_inbox)

    def _end_lost(self, now: float) -> None:
        """Publish lost requests again, or fail them after their grace period."""
        limits = self._limits
        is_back = (
            self._connection.is_connected() and now - self._connected_at >= limits.republish_after_s
        )
        waiting: list[PublishedRequest] = []
        silent: set[bytes] = set()
        lost = self._lost
        while lost and now - lost[0].at >= limits.republish_after_s:
            request = lost.popleft()
            if request.state is not LOST:
                continue
            if not _is_begun(request) and (request.envelope or not is_back):
                if is_back:
                    self._republish(request, now)
                else:
                    waiting.append(request)
                continue
            silent_s = now - max(request.at, request.started_at)
            if request.started_at and silent_s >= limits.claim_s / 2:
                # A worker that began after the loss does not know of it.
                silent.add(request.queue.names.cancel_subject)
            if silent_s >= self._grace_s(request):
                self._tell_lost(request)
            else:
                waiting.append(request)
        lost.extendleft(reversed(waiting))
        if silent and now - self._asked_at >= limits.claim_s / 4:
            self._asked_at = now
            for subject in silent:
                self._connection.publish(subject, LOSS_NOTICE)

    def _tell_lost(self, request: PublishedRequest) -> None:
        self.losses += 1
        if not _is_begun(request):
            # The new stream may have it after all. Nobody is to run it now.
            self._maintenance.mark_uncertain(request.queue.names, request.request_id)
        self._fail(request, QueueUnavailable("The queue has lost the request"))

    def _grace_s(self, request: PublishedRequest) -> float:
        """Return how long a lost request may wait for its response."""
        limits = self._limits
        if request.started_at:
            return limits.claim_s
        return limits.lease_grace_s if request.was_leased else limits.lost_grace_s

    def _repeat_or_fail(self, now: float) -> None:
        """Send again what the broker may have dropped, or fail it after the timeout.

        A broker drops publishes during a change of leaders, for example.
        """
        unacknowledged = self._unacknowledged
        kept: list[PublishedRequest] = []
        while unacknowledged and now - unacknowledged[0].at >= _REPEAT_S:
            request = unacknowledged.popleft()
            if not _is_unacknowledged(request):
                continue
            age_s = now - request.at
            if age_s >= self._limits.ack_timeout_s:
                if request.sequence:
                    self._lose_again(request)
                    continue
                self._maintenance.mark_uncertain(request.queue.names, request.request_id)
                late = QueueUnavailable("The broker did not acknowledge in time")
                self._fail(request, late, PublishStatus.TIMEOUT)
                continue
            # After 1 s, 3 s, 7 s.
            if age_s >= _REPEAT_S * ((1 << request.sends) - 1) and request.state is PENDING:
                self._repeat_soon(request)
            kept.append(request)
        unacknowledged.extendleft(reversed(kept))


def _runs_of(request: PublishedRequest) -> set[int]:
    """Return the deliveries that were run. The first one is run without a question."""
    if request.runs is None:
        request.runs = {1}
    return request.runs


def _is_begun(request: PublishedRequest) -> bool:
    """Return whether a worker has, or had, a request that is LOST."""
    return request.was_leased or request.started_at > 0.0


def _is_unacknowledged(request: PublishedRequest) -> bool:
    return request.state is PENDING or request.state is STALLED
