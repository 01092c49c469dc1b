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
from collections.abc import Callable
from typing import Any

import orjson

from queueing.interface import (
    LineState,
    PublishCallbacks,
    QueueError,
    QueueFull,
    QueueUnavailable,
    RunDecision,
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
from queueing.own_requests import (
    HELD,
    LOST,
    PENDING,
    STALLED,
    OwnRequest,
    OwnRequests,
    QueueLimits,
    VersionLine,
)
from queueing.publishes import PublishStatus
from runtime.metrics import CounterChild
from runtime.tasks import spawn
from wire.subjects import LOSS_NOTICE, stream_name, waiting_notice

TELL_WAITING_S = 0.25
"""So long does a request wait for the workers of its region before others are told."""
_REPEAT_S = 1.0
_RESPONSE_S = 0.25
"""So long takes what a worker has written, at most, before it counts as lost."""
_TRACE_HEADER = b"NATS/1.0\r\ntraceparent: %b\r\n\r\n"
_MAX_STALLS = 2
_MAX_MISSING = 100
_PROBE_LIMIT = b'{"batch":1,"no_wait":true,"max_bytes":1}'
_PROBE_LEASES = b'{"batch":1,"no_wait":true}'


class PublishedRequest(OwnRequest):
    """One request of this process.

    ``trace`` is a header of the message, empty if there is none. ``sends`` counts publishes,
    ``stalls`` those that found no stream, ``runs`` has the numbers of the deliveries that were run,
    as far as is known; it is `None` until the first one is in doubt. ``is_doubtful``: its runs are
    used up, unless the news of one given back is on its way. ``is_repeating``: it is about to be
    published again.
    """

    __slots__ = ("is_doubtful", "is_repeating", "runs", "sends", "stalls", "trace")

    queue: "VersionQueue"

    def __init__(
        self,
        queue: "VersionQueue",
        request_id: str,
        callbacks: PublishCallbacks,
        envelope: bytes,
        trace: bytes,
        at: float,
    ) -> None:
        super().__init__(queue, request_id, callbacks, envelope, at)
        self.trace = trace
        self.sends = 1
        self.stalls = 0
        self.runs: set[int] | None = None
        self.is_doubtful = self.is_repeating = False
        self.state = PENDING


class VersionQueue(VersionLine[PublishedRequest]):
    """The requests of this process in the queue of one version.

    ``created`` identifies the stream, empty until known, ``room`` is how many more requests may
    wait. ``last_runs`` has the time at which a request got its last permitted run, by request id;
    ``probed_at`` is when its end was last looked for.
    """

    __slots__ = ("ack_prefix", "created", "last_runs", "names", "probed_at", "room", "subject")

    def __init__(self, names: QueueNames, stored: CounterChild, room: int) -> None:
        super().__init__(names.version_id, names.stream, stored)
        self.names = names
        self.subject = names.subject
        self.ack_prefix = b'{"stream":"%b","seq":' % names.stream.encode()
        self.created = ""
        self.room = room
        self.last_runs: dict[str, float] = {}
        self.probed_at = 0.0


class JetStreamQueue(OwnRequests[PublishedRequest, VersionQueue]):
    """A `queueing.interface.FunctionQueue`.

    ``process`` is the number in the request ids of this process. ``looks`` counts the looks at
    queues.
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
        super().__init__(region, limits or QueueLimits(), clock)
        self._connection = connection
        streams = streams or StreamSettings()
        self._lease_s = streams.ack_wait_s
        self._tells_other_regions = False
        self._maintenance = Maintenance(
            connection, self, region, streams, self._limits.ack_timeout_s
        )
        self._peers = Peers(
            connection, ProcessRef(region, process), self.count_between, self._limits.peer_wait_s
        )
        self._positions = Positions(connection, region, self, self._peers)
        self._stream_prefix = stream_name(region, "")
        self._inbox = connection.inbox() + b"."
        self._inbox_bytes = len(self._inbox)
        self._probe_inbox = connection.inbox()
        self._subscriptions: list[Subscription] = []
        self.looks = 0

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

    def tell_other_regions(self) -> None:
        """Tell their workers from now on what waits here."""
        self._tells_other_regions = True

    async def close(self) -> None:
        """Fail all requests that are left and unsubscribe; the connection stays open."""
        self._ticker.stop()
        self._connection.remove_listener(self)
        self._fail_all()
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
        if b"\r" in trace or b"\n" in trace:
            trace = b""
        # A larger one would end the connection, and with it fail every other request.
        size = len(envelope) + len(_TRACE_HEADER) + len(trace)
        queue = self._begin(version_id, size, self._connection.max_payload_bytes, callbacks)
        if queue is None:
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
        self._add(request)
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
            request.is_unsure or not request.is_unacknowledged()
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

    async def line(self, version_id: str) -> LineState:
        """Return what the broker knows of the queue. Raises `QueueUnavailable`."""
        return await self._positions.line(stream_name(self._region, version_id))

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

    def _is_idle(self, queue: VersionQueue) -> bool:
        return super()._is_idle(queue) and queue.version_id not in self._maintenance.ensuring

    def _is_connected(self) -> bool:
        return self._connection.is_connected()

    def _new_queue(self, version_id: str, _stream: str, stored: CounterChild) -> VersionQueue:
        names = QueueNames.of(self._region, version_id)
        if self._connection.is_connected():
            self._maintenance.ensure(names)
        return VersionQueue(names, stored, self._limits.max_waiting)

    # What `Positions` and `Peers` read

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
                queue.stored.value += not request.sequence
                request.envelope = b""
                self._lose_again(request)
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

    def _send_again(self, request: PublishedRequest) -> None:
        request.sends, request.stalls = 1, 0
        self._wait_for_stream(request)

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

    def _ended(self, request: PublishedRequest) -> None:
        if request.queue.last_runs:
            request.queue.last_runs.pop(request.request_id, None)

    def _give_up(self, request: PublishedRequest) -> None:
        """HELD to ENDED: every permitted run has ended without a response."""
        self._maintenance.remove(request.queue.names, request.request_id)
        self._end(request)
        request.callbacks.undeliverable()

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
            if request is not None and request.is_unacknowledged():
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
            elif request.is_unacknowledged():
                self._hold(request, response["seq"])
        elif request is not None and request.is_unacknowledged():
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
        if sequence and request.is_unacknowledged():
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
            and request.is_unacknowledged()
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
            if not request.is_unacknowledged():
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
            if self._tells_other_regions:
                self._tell_waiting(now)

    def _tell_waiting(self, now: float) -> None:
        """Tell the workers of other regions of requests that wait here in spite of ours."""
        for queue in self._queues.values():
            waiting = queue.waiting()
            if waiting and now - queue.oldest_waiting_at(now) >= TELL_WAITING_S:
                notice = waiting_notice(self._region, waiting)
                self._connection.publish(queue.names.cancel_subject, notice)

    def _look_at(self, queue: VersionQueue) -> None:
        self._maintenance.ensure(queue.names)

    def _ask_workers(self, queue: VersionQueue) -> None:
        self._connection.publish(queue.names.cancel_subject, LOSS_NOTICE)

    def _withdraw_later(self, request: PublishedRequest) -> None:
        self._maintenance.mark_uncertain(request.queue.names, request.request_id)

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

    def _repeat_or_fail(self, now: float) -> None:
        """Send again what the broker may have dropped, or fail it after the timeout.

        A broker drops publishes during a change of leaders, for example.
        """
        unacknowledged = self._unacknowledged
        kept: list[PublishedRequest] = []
        while unacknowledged and now - unacknowledged[0].at >= _REPEAT_S:
            request = unacknowledged.popleft()
            if not request.is_unacknowledged():
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
