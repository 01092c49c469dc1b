"""The life of a queued request on JetStream, in one gateway process (`docs/wire.md` §4).

A publish is one frame out and one short acknowledgement in, on a reply subject that all requests
share; its last token is the request id. Nothing else is asked of the broker in the normal case.

A request has one of five states; `JetStreamQueue` makes all transitions:

    PENDING  published, not acknowledged
             ──acknowledged──▶ HELD   ──no stream──▶ STALLED
    STALLED  published, and no stream took it; waits until the stream is created
             ──stream created──▶ PENDING   ──an earlier copy acknowledged──▶ HELD
    HELD     in the queue or leased; the broker knows it by ``sequence``
             ──stream gone or replaced──▶ LOST
    LOST     its stream is gone; a worker that leased it before may still respond
             ──found in the new stream──▶ HELD
    ENDED    the publisher gets no further callback

Every state leads to ENDED: without a callback when it is forgotten or withdrawn, with
``undeliverable`` after the last delivery (HELD), else with ``publish_failed``: refused, not
acknowledged in time or before the connection was lost (PENDING, STALLED), no response within a
grace period (LOST), or the queue is closed.

The module is longer than others so that the whole life is in one place.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson

from queueing.interface import LineState, PublishCallbacks, QueueError, QueueFull, QueueUnavailable
from queueing.nats.connection import NatsConnection, NatsError, Subscription
from queueing.nats.jetstream import StreamSettings, max_deliveries_subject
from queueing.nats.maintenance import Maintenance, QueueNames
from queueing.nats.peers import Peers, ProcessRef
from queueing.nats.positions import Positions
from queueing.nats.protocol import STATUS_NO_RESPONDERS, encode_publish_with_headers, status_of
from queueing.nats.publishes import PublishStatus, is_duplicate, publish_counter, publish_error
from queueing.position import Sequences
from runtime.lifecycle import Ticker
from runtime.metrics import Counter
from runtime.tasks import spawn
from wire.subjects import stream_name

_TICK_S = 0.5
_REPEAT_S = 1.0
_MAX_STALLS = 2
_MAX_MISSING = 100


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of one process's queues.

    At most ``max_requests`` waiting or running at once and ``max_versions`` with queues; further
    publishes fail. ``ack_timeout_s`` is the longest wait for the acknowledgement of a publish, not
    above the streams' ``duplicate_window_s``. ``lost_grace_s`` is how long a worker may take to
    respond to a request that the queue has lost, ``look_interval_s`` the time between two checks of
    a queue in use, ``peer_wait_s`` how long a position waits for processes that do not respond.
    """

    max_requests: int = 200_000
    max_versions: int = 10_000
    ack_timeout_s: float = 5.0
    lost_grace_s: float = 10.0
    look_interval_s: float = 10.0
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

    ``frame`` is kept only while it may have to be sent again. ``at`` is loop time: of the publish,
    or of the loss. ``sends`` counts publishes, ``stalls`` those that found no stream.
    """

    __slots__ = (
        "at",
        "callbacks",
        "frame",
        "queue",
        "request_id",
        "sends",
        "sequence",
        "stalls",
        "state",
    )

    def __init__(
        self,
        queue: "VersionQueue",
        request_id: str,
        callbacks: PublishCallbacks,
        frame: bytes,
        at: float,
    ) -> None:
        self.queue = queue
        self.request_id = request_id
        self.callbacks = callbacks
        self.frame = frame
        self.at = at
        self.sends = 1
        self.stalls = 0
        self.sequence = 0
        self.state = PENDING

    def __repr__(self) -> str:
        return f"PublishedRequest({self.request_id} {self.state.name} sequence={self.sequence})"


class VersionQueue:
    """The requests of this process in the queue of one version.

    ``created`` identifies the stream, empty until known. ``by_sequence`` has the requests that are
    HELD, ``stalled`` those that were STALLED; ``unacknowledged`` counts PENDING and STALLED.
    ``stored`` is the metric of successful publishes; it belongs to the name of the stream and
    continues when the queue is forgotten and opened again. ``answered_at`` is when the request was
    published that was answered last.
    """

    __slots__ = (
        "ack_prefix",
        "answered_at",
        "by_sequence",
        "created",
        "names",
        "sequences",
        "stalled",
        "stored",
        "subject",
        "unacknowledged",
    )

    def __init__(self, names: QueueNames, publishes: Counter) -> None:
        """``publishes`` is as from `queueing.nats.publishes.publish_counter`."""
        self.names = names
        self.subject = names.subject
        self.ack_prefix = b'{"stream":"%b","seq":' % names.stream.encode()
        self.stored = publishes.child(names.stream, PublishStatus.OK)
        self.answered_at = 0.0
        self.created = ""
        self.sequences = Sequences()
        self.by_sequence: dict[int, PublishedRequest] = {}
        self.stalled: list[PublishedRequest] = []
        self.unacknowledged = 0


class JetStreamQueue:
    """A `queueing.interface.FunctionQueue`.

    ``process`` is the number in the request ids of this process. Metrics: ``publishes``
    (`queueing.nats.publishes`) and ``losses``, requests that failed because their queue lost them.
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
        self._maintenance = Maintenance(
            connection, self, region, streams or StreamSettings(), self._limits.ack_timeout_s
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
        self._inbox = connection.inbox() + b"."
        self._inbox_bytes = len(self._inbox)
        self._subscriptions: list[Subscription] = []
        self._ticker = Ticker(_TICK_S, self.tick)
        self._checked_at = 0.0
        self._clock = clock or asyncio.get_running_loop().time
        self._call_soon = asyncio.get_running_loop().call_soon
        self.publishes = publish_counter()
        self.losses = 0

    async def start(self) -> None:
        """Subscribe to acknowledgements and the broker's events."""
        subscribe = self._connection.subscribe
        self._subscriptions = [
            subscribe(self._inbox + b"*", self._on_acknowledgement),
            subscribe(max_deliveries_subject(), self._on_max_deliveries),
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
    ) -> None:
        """Send the envelope. A failure is reported later."""
        queue = self._queues.get(version_id) or self._open(version_id)
        if queue is None or len(self._requests) >= self._limits.max_requests:
            full = "The process has reached its limit of queued requests"
            self._fail_later(callbacks, version_id, full, PublishStatus.OVERLOADED)
            return
        token = request_id.encode()
        if trace and b"\r" not in trace and b"\n" not in trace:
            headers = b"NATS/1.0\r\nNats-Msg-Id: %b\r\ntraceparent: %b\r\n\r\n" % (token, trace)
        else:
            headers = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % token
        if len(headers) + len(envelope) > self._connection.max_payload_bytes:
            # The server would close the connection, and with it fail every other request.
            large = "The envelope is larger than the broker takes"
            self._fail_later(callbacks, version_id, large, PublishStatus.TOO_LARGE)
            return
        frame = encode_publish_with_headers(
            queue.subject + token, self._inbox + token, headers, envelope
        )
        if not self._connection.send(frame):
            away = "The broker cannot be reached"
            self._fail_later(callbacks, version_id, away, PublishStatus.UNAVAILABLE)
            return
        request = PublishedRequest(queue, request_id, callbacks, frame, self._clock())
        self._requests[request_id] = request
        self._unacknowledged.append(request)
        queue.unacknowledged += 1

    def withdraw(self, version_id: str, request_id: str) -> None:
        """Delete the request, and send a cancel to the workers of the version."""
        queue = self._queues.get(version_id) or self._open(version_id)
        if queue is None:
            return
        request = self._requests.get(request_id)
        is_held = request is not None and request.state is HELD
        if request is not None:
            # A PENDING request has no sequence: `_on_other_acknowledgement` deletes it.
            self._end(request)
        if not self._connection.publish(queue.names.cancel_subject, request_id.encode()):
            self._maintenance.mark_uncertain(queue.names, request_id)
        elif request is not None and is_held:
            self._maintenance.delete(queue.names.stream, request.sequence)

    async def withdraw_expired(self, version_id: str, request_id: str) -> int:
        """Withdraw a request and return the position that it had. Raises `QueueUnavailable`."""
        sequence = self.sequence_of(request_id)
        self.withdraw(version_id, request_id)
        return await self._positions.withdrawn(version_id, sequence) if sequence else 0

    def has_waited(self, version_id: str, seconds: float) -> bool:
        """Return whether a request of this process may have waited for a lease for ``seconds``."""
        queue = self._queues.get(version_id)
        if queue is None or not queue.by_sequence:
            return False
        latest = self._clock() - seconds
        # The second look is slower: a dictionary finds its first entry behind all removed ones.
        return queue.answered_at < latest and next(iter(queue.by_sequence.values())).at <= latest

    def last_sequence(self, version_id: str) -> int:
        """Return the sequence of this process's last publish, 0 if it is not known."""
        queue = self._queues.get(version_id)
        return queue.sequences.last if queue is not None else 0

    async def line(self, version_id: str) -> LineState:
        """Return what the broker knows of the queue. Raises `QueueUnavailable`."""
        return await self._positions.line(stream_name(self._region, version_id))

    def forget(self, request_id: str) -> None:
        """Keep no more of the request."""
        request = self._requests.get(request_id)
        if request is not None:
            request.queue.answered_at = request.at
            self._end(request)

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
        if sequence in queue.by_sequence:
            # Two requests never share a sequence: this is another stream of the same name.
            self._lose_all(queue)
        elif sequence < queue.sequences.last and request.sends == 1:
            # Sequences ascend; only a repeated publish may be acknowledged with a lower one.
            self._maintenance.ensure(queue.names)
        queue.unacknowledged -= 1
        self._store(request, sequence)
        queue.stored.value += 1

    def _store(self, request: PublishedRequest, sequence: int) -> None:
        queue = request.queue
        request.sequence = sequence
        request.state = HELD
        request.frame = b""
        queue.by_sequence[sequence] = request
        queue.sequences.add(sequence)

    def _stall(self, request: PublishedRequest) -> None:
        """PENDING to STALLED: no stream exists. The second time, the request fails."""
        queue = request.queue
        request.stalls += 1
        if request.stalls >= _MAX_STALLS:
            self._fail(request, QueueUnavailable("The queue does not exist or rejects the request"))
            return
        request.state = STALLED
        queue.stalled.append(request)
        self._maintenance.ensure(queue.names)

    def _resend_stalled(self, queue: VersionQueue) -> None:
        """STALLED to PENDING: the stream exists now."""
        stalled, queue.stalled = queue.stalled, []
        for request in stalled:
            if request.state is STALLED:
                request.state = PENDING
                if not self._connection.send(request.frame):
                    self._fail(request, QueueUnavailable("The broker cannot be reached"))

    def _lose_all(self, queue: VersionQueue) -> None:
        """HELD to LOST, for all of a queue: its stream is gone, or another has its name.

        They do not fail at once: a worker that had leased one may still respond, and the new stream
        may have those that were published after the change.
        """
        lost = list(queue.by_sequence.values())
        queue.by_sequence.clear()
        queue.sequences.clear()
        now = self._clock()
        for request in lost:
            request.state = LOST
            request.at = now
        if lost:
            self._lost.extend(lost)
            spawn(self._rescue(queue, lost), "queue-rescue")

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
            sequence = request.sequence
            if queue.by_sequence.pop(sequence, None) is not None:
                queue.sequences.remove(sequence)
        elif request.state is not LOST:
            queue.unacknowledged -= 1
            request.frame = b""
        request.state = ENDED

    def _fail(
        self,
        request: PublishedRequest,
        error: QueueError,
        status: PublishStatus = PublishStatus.UNAVAILABLE,
    ) -> None:
        """Any state to ENDED, with ``publish_failed``; ``status`` counts if not acknowledged."""
        if request.state is ENDED:
            return
        if _is_unacknowledged(request):
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
                digits = payload[len(prefix) : -1]
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
        prefix = stream_name(self._region, "")
        if not stream.startswith(prefix):
            return
        self._maintenance.delete(stream, sequence)
        queue = self._queues.get(stream.removeprefix(prefix))
        request = queue.by_sequence.get(sequence) if queue is not None else None
        if request is not None:
            self._end(request)
            request.callbacks.undeliverable()

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
        for queue in self._queues.values():
            if not queue.by_sequence:
                # Nothing can be lost: whichever stream exists now is the right one.
                queue.created = ""
            self._maintenance.ensure(queue.names)
        self._maintenance.clean_up()

    def disconnected(self) -> None:
        """Fail what is not acknowledged. The stream may have it: `Maintenance` cleans up."""
        unacknowledged, self._unacknowledged = self._unacknowledged, deque()
        for request in unacknowledged:
            if _is_unacknowledged(request):
                self._maintenance.mark_uncertain(request.queue.names, request.request_id)
                self._fail(request, QueueUnavailable("The link to the broker was lost"))

    # Results of `Maintenance.ensure`

    def stream_usable(self, version_id: str, created: str) -> None:
        """Publish what was stalled; a new stream has lost what the old one held."""
        queue = self._queues.get(version_id)
        if queue is None:
            return
        if queue.created and created != queue.created:
            self._lose_all(queue)
        queue.created = created
        self._resend_stalled(queue)

    def stream_unusable(self, version_id: str, error: QueueError) -> None:
        """Fail what was stalled."""
        queue = self._queues.get(version_id)
        if queue is None:
            return
        stalled, queue.stalled = queue.stalled, []
        for request in stalled:
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
        queue = self._queues[version_id] = VersionQueue(names, self.publishes)
        if self._connection.is_connected():
            self._maintenance.ensure(names)
        return queue

    # Time

    def tick(self) -> None:
        """Repeat or fail what is due. Called every half second between `start` and `close`."""
        now = self._clock()
        self._repeat_or_fail(now)
        self._fail_lost(now)
        if self._connection.is_connected():
            self._maintenance.clean_up()
            self._peers.tick(now)
            if now - self._checked_at >= self._limits.look_interval_s:
                self._checked_at = now
                for queue in self._queues.values():
                    if queue.by_sequence:
                        self._maintenance.ensure(queue.names)

    def _fail_lost(self, now: float) -> None:
        """Fail requests that were lost longer ago than the grace period."""
        lost = self._lost
        while lost and now - lost[0].at >= self._limits.lost_grace_s:
            request = lost.popleft()
            if request.state is LOST:
                self.losses += 1
                self._fail(request, QueueUnavailable("The queue has lost the request"))

    def _repeat_or_fail(self, now: float) -> None:
        """Send again what the broker may have dropped, or fail it after the timeout.

        A broker drops publishes during a change of leaders, for example. The message id makes the
        repetition safe within the stream's duplicate window.
        """
        unacknowledged = self._unacknowledged
        kept: list[PublishedRequest] = []
        while unacknowledged and now - unacknowledged[0].at >= _REPEAT_S:
            request = unacknowledged.popleft()
            if not _is_unacknowledged(request):
                continue
            age_s = now - request.at
            if age_s >= self._limits.ack_timeout_s:
                self._maintenance.mark_uncertain(request.queue.names, request.request_id)
                late = QueueUnavailable("The broker did not acknowledge in time")
                self._fail(request, late, PublishStatus.TIMEOUT)
                continue
            # After 1 s, 3 s, 7 s.
            if age_s >= _REPEAT_S * ((1 << request.sends) - 1) and request.state is PENDING:
                request.sends += 1
                self._connection.send(request.frame)
            kept.append(request)
        unacknowledged.extendleft(reversed(kept))


def _is_unacknowledged(request: PublishedRequest) -> bool:
    return request.state is PENDING or request.state is STALLED
