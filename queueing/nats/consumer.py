"""The worker's side of one queue on JetStream: pulls for all free slots, leases, cancels.

It needs only the permissions of a worker (`docs/wire.md` §4.5): consumer info, consumer next,
acknowledgements, its inbox, the cancel subject. The consumer is bound once the broker has returned
the consumer info; it pulls only while bound, and binds again after every reconnect and whenever a
pull fails:

    unbound ──consumer info──▶ bound ──connection lost, consumer gone, silence──▶ unbound

Acknowledgements that are given while unbound are sent after the next binding if the broker's
consumer is still the same. If it is another one, the sequences of old leases may belong to other
requests, and the acknowledgements are dropped.

After a standstill of the process or its connection (`queueing.standstill`) what arrives before the
next round trip to the server is dropped. Missing heartbeats tell of a connection that was cut off.

When many requests wait and are short, a few are pulled before there are slots for them
(`queueing.held`). They are not begun: they are given back when pulling stops, and when the
connection or the queue is lost.

A broker that crashed may have kept a request on disk and forgotten that it was delivered. Its next
delivery is counted as the first one then, so the number says nothing about what was stored before
the consumer was last bound (`PulledLease.is_first_known`).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from queueing.interface import Lease, PollHandler
from queueing.lease_receiver import LeaseReceiver
from queueing.nats.acks import (
    ACK,
    IN_PROGRESS,
    TERM,
    deliveries_of,
    first_ack_subject,
    nak_after,
    pending_of,
    sequences_of,
    stored_at_ns_of,
)
from queueing.nats.connection import Denied, NatsConnection, NatsError, NotConnected, Subscription
from queueing.nats.jetstream import (
    API,
    JetStream,
    JetStreamError,
    QueueState,
    next_message_subject,
)
from queueing.nats.polls import NatsPollSubscription, listen_for_polls
from queueing.nats.protocol import (
    STATUS_BAD_REQUEST,
    STATUS_CONFLICT,
    STATUS_HEARTBEAT,
    STATUS_NO_RESPONDERS,
    STATUS_NOT_FOUND,
    STATUS_TIMEOUT,
    description_of,
    encode_publish,
    header_value,
    status_of,
)
from queueing.standstill import WATCH_S, boot_clock_s
from runtime.events import emit
from runtime.lifecycle import Ticker
from runtime.tasks import spawn
from wire.subjects import (
    LOSS_NOTICE,
    WAITING_PREFIX,
    cancel_subject,
    consumer_name,
    polling_subject,
    scoped_polling_subject,
    stream_name,
)

_RETRY_MIN_S = 0.25
_RETRY_MAX_S = 2.0
_MAX_UNSENT = 10_000
_RECENT = 512
_MAX_SILENT_HEARTBEATS = 2
_AHEAD_EXPIRES_S = 0.02
"""So long is a pull open for requests that were known to wait: other workers may have got them."""
# A 409 has no err_code: only its description differs from one reason to another.
_BATCH_LIMIT = "Exceeded MaxRequestBatch of "

_log = logging.getLogger("queueing.nats.consumer")


@dataclass(frozen=True, slots=True)
class PullOptions:
    """How a worker pulls. A pull that is not filled ends after ``expires_s`` and is renewed.

    The broker sends a heartbeat every ``heartbeat_s``; when two are missing, the pull counts as
    lost. ``max_batch`` is the largest pull. ``api`` is the prefix of JetStream's API subjects.
    ``boot_clock`` returns seconds that also pass while the machine is suspended. With
    ``has_scoped_polls``, polls come on subjects of the version only (`queueing.nats.accounts`).
    """

    expires_s: float = 300.0
    heartbeat_s: float = 5.0
    max_batch: int = 5000
    api: str = API
    boot_clock: Callable[[], float] = boot_clock_s
    has_scoped_polls: bool = False


class PulledLease:
    """A `queueing.interface.Lease`."""

    __slots__ = ("_ack_subject", "_consumer", "_epoch", "deliveries", "envelope", "request_id")

    def __init__(
        self,
        consumer: "PullConsumer",
        ack_subject: bytes,
        request_id: str,
        envelope: bytes,
        epoch: int,
    ) -> None:
        self._consumer = consumer
        self._ack_subject = ack_subject
        self._epoch = epoch
        self.deliveries = (
            1 if ack_subject.startswith(consumer.first_ack) else deliveries_of(ack_subject)
        )
        self.request_id = request_id
        self.envelope = envelope

    @property
    def ack_subject(self) -> bytes:
        """The subject of its acknowledgement; empty once the lease has ended."""
        return self._ack_subject

    def is_over(self) -> bool:
        """Whether the process has stood still since the lease was last renewed."""
        return self._consumer.is_over()

    def followers(self) -> int:
        """Return how many requests waited when this one was leased; 0 once the lease has ended."""
        return pending_of(self._ack_subject)

    def stored_at_ns(self) -> int:
        """Return when the server stored the request; 0 once the lease has ended."""
        return stored_at_ns_of(self._ack_subject)

    def is_first_known(self) -> bool:
        """Whether ``deliveries`` counts all of them: stored since the consumer was bound."""
        return stored_at_ns_of(self._ack_subject) > self._consumer.bound_at_ns

    def in_progress(self) -> None:
        """Start the time of the lease again."""
        if self._ack_subject:
            self._consumer.extend(self._ack_subject, self._epoch)

    def ack(self) -> None:
        """Remove the request from the queue."""
        # As `_end`, without the cost of its call for each request.
        ack_subject, self._ack_subject = self._ack_subject, b""
        if ack_subject:
            self._consumer.acknowledge(ack_subject, ACK, self._epoch)

    def nak(self, delay_s: float = 0.0) -> None:
        """End the lease unused, for redelivery after ``delay_s``."""
        self._end(nak_after(delay_s))

    def term(self) -> None:
        """Remove the request from the queue without redelivery."""
        self._end(TERM)

    def _end(self, ack: bytes) -> None:
        ack_subject, self._ack_subject = self._ack_subject, b""
        if ack_subject:
            self._consumer.acknowledge(ack_subject, ack, self._epoch)


class PullConsumer(LeaseReceiver):
    """A `queueing.interface.PullConsumer`.

    ``pulls`` counts the pulls sent. ``bound_at_ns`` is when the consumer was last bound, by the
    server's clock. The acknowledgement subject of a first delivery begins with ``first_ack``,
    unless the stream is another domain's.
    """

    retry_max_s = _RETRY_MAX_S

    def __init__(
        self,
        connection: NatsConnection,
        *,
        region: str,
        version_id: str,
        on_lease: Callable[[Lease], None],
        on_cancel: Callable[[str], None],
        options: PullOptions | None = None,
    ) -> None:
        self._options = options or PullOptions()
        self._version_id = version_id
        self._stream = stream_name(region, version_id)
        super().__init__(self._stream, on_lease, on_cancel, self._options.boot_clock)
        self._connection = connection
        self._jetstream = JetStream(connection, api=self._options.api)
        self.first_ack = first_ack_subject(self._stream, consumer_name(self._stream))
        self._next_subject = next_message_subject(self._stream, self._options.api)
        self._cancel_subject = cancel_subject(version_id).encode()
        self._cancel_subscription: Subscription | None = None
        self._inbox = b""
        self._inbox_subscription: Subscription | None = None
        self._binder: asyncio.Task[None] | None = None
        self._created, self._epoch = "", 0
        # The highest sequences that were leased to us: in the stream, and of deliveries.
        self._leased = (0, 0)
        self._last_ack_subject = b""
        self._delivered = self._watched_delivered = 0
        self._max_batch = self._options.max_batch
        # Whether requests wait: the last one that was leased says it, or a pull that waits does.
        self._has_received = self._has_followers = False
        self._silent_heartbeats = 0
        self._unsent: dict[bytes, bytes] = {}
        self._recent: deque[bytes] = deque(maxlen=_RECENT)
        self._ticker = Ticker(self._options.heartbeat_s, self._tick, measures_silence=True)
        self.pulls = self.bound_at_ns = 0

    # Start and end

    def start(self) -> None:
        """Subscribe to cancels and begin to bind; the connection may be up or down."""
        self._cancel_subscription = self._connection.subscribe(
            self._cancel_subject, self._on_cancelled
        )
        self._connection.add_listener(self, self._on_denied)
        self._ticker.start()
        self._standstill.start()
        self._watcher.start()
        if self._connection.is_connected():
            self._rebind()

    async def listen_for_polls(self, request_id: str, on_poll: PollHandler) -> NatsPollSubscription:
        """Call ``on_poll`` for every poll of a request. Raises `QueueUnavailable`."""
        subject = (
            scoped_polling_subject(self._version_id, request_id)
            if self._options.has_scoped_polls
            else polling_subject(request_id)
        )
        return await listen_for_polls(self._connection, subject.encode(), on_poll)

    async def drain(self) -> None:
        """End all pulls; no lease arrives after this returns."""
        self._is_draining = True
        self._is_open = False
        self._free = 0
        self._held.give_back()
        self._end_pulls()
        await self._connection.flush()

    async def close(self) -> None:
        """Drain, unsubscribe, and return when the last acknowledgements have been sent."""
        await self.drain()
        self._ticker.stop()
        self._watcher.stop()
        if self._binder is not None:
            self._binder.cancel()
        self._connection.remove_listener(self)
        if self._cancel_subscription is not None:
            self._connection.unsubscribe(self._cancel_subscription)
        await self._connection.flush()

    # Binding

    def _rebind(self) -> None:
        self._held.give_back()
        self._is_bound = False
        self._renew_inbox()
        if not self._is_draining and (self._binder is None or self._binder.done()):
            self._binder = spawn(self._bind(), f"bind-{self._stream}")

    async def _bind(self) -> None:
        delay_s = 0.0
        while True:
            if delay_s:
                await asyncio.sleep(delay_s)
            delay_s = min(max(2 * delay_s, _RETRY_MIN_S), self.retry_max_s)
            try:
                state = await self._jetstream.consumer_state(self._stream)
            except NotConnected:
                # `connected` binds again.
                return
            except Denied:
                # Pulling may be permitted all the same. Another consumer then goes unnoticed.
                self._on_bound()
                return
            except (JetStreamError, NatsError) as error:
                emit(_log, "pull.not_bound", stream=self._stream, error=str(error))
                continue
            if state is not None:
                self._compare(state)
                self.bound_at_ns = state.at_ns
                self._on_bound()
                return

    def _compare(self, state: QueueState) -> None:
        """Begin a new epoch if this is not the consumer, or not the stream, that leased to us.

        A stream in memory may come back empty with a consumer of the same time of creation, and a
        consumer on disk with another one (nats-server before 2.12.3): the sequences tell.
        """
        if self._last_ack_subject:
            self._leased = max(self._leased, sequences_of(self._last_ack_subject))
            self._last_ack_subject = b""
        sequence, deliveries = self._leased
        is_recreated = self._created and state.created != self._created
        if state.deliveries < deliveries or (is_recreated and state.delivered < sequence):
            self._epoch += 1
            self._unsent.clear()
            self._recent.clear()
            self._leased = (0, 0)
        self._created = state.created
        if state.lease_s:
            self._standstill.set_lease(state.lease_s)

    def _on_bound(self) -> None:
        self._is_bound = True
        self._silent_heartbeats = 0
        self._tell_bound()
        # The last acknowledgements on a lost connection may not have arrived; twice is harmless.
        for ack_subject in self._recent:
            self._connection.publish(ack_subject, ACK)
        unsent, self._unsent = self._unsent, {}
        for ack_subject, ack in unsent.items():
            self.acknowledge(ack_subject, ack, self._epoch)
        # None was while the broker was away.
        self._standstill.renewed()
        self._renew()
        self._ask()

    # Pulling

    def _stop_asking(self) -> None:
        self._renew_inbox()

    def _ask(self) -> None:
        self._is_scheduled = False
        held = self._held
        if held.waiting:
            self._hand_over()
        if not self._is_open or not self._is_bound or self._is_draining:
            return
        # Only what is known to wait: another worker may have a free slot for what comes.
        ahead = min(held.ahead, pending_of(self._last_ack_subject)) if held.ahead else 0
        wanted, covered = self._free + ahead, self._asked + len(held.waiting)
        # Pull when less than half of the slots is covered, not at every lease.
        if wanted <= covered or 2 * covered > wanted:
            return
        batch = min(wanted - covered, self._max_batch)
        self.pulls += 1
        if ahead:
            pull = b'{"batch":%d,"expires":%d}' % (batch, int(_AHEAD_EXPIRES_S * 1e9))
        else:
            pull = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (
                batch,
                int(self._options.expires_s * 1e9),
                int(self.heartbeat_s() * 1e9),
            )
        inbox = b"%b.%d" % (self._inbox, self.pulls)
        if self._connection.send(encode_publish(self._next_subject, inbox, pull)):
            self._asked += batch
            if not self._is_line_empty and not self._has_followers:
                self._connection.ping(partial(self._pull_waits, self._delivered))

    def _pull_waits(self, delivered: int) -> None:
        """The server has read a pull. Nothing waits if it has delivered nothing since then."""
        if delivered == self._delivered and self._asked and self._is_bound:
            self._has_followers = False
            self._set_line(is_empty=not self._held.waiting)

    def _renew_inbox(self) -> None:
        """Cancel all pulls: the broker delivers nothing to an inbox without a subscriber."""
        self._end_pulls()
        if not self._is_draining:
            self._inbox = self._connection.inbox()
            self._inbox_subscription = self._connection.subscribe(
                self._inbox + b".*", self._on_message
            )

    def _end_pulls(self) -> None:
        self._asked = 0
        self._set_line(is_empty=False)
        if self._inbox_subscription is not None:
            self._connection.unsubscribe(self._inbox_subscription, self._on_late_message)
            self._inbox_subscription = None

    def _on_message(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        self._has_received = True
        if not reply:
            self._on_status(headers)
            return
        if self._asked > 0:
            self._asked -= 1
        self._delivered += 1
        is_last = reply.endswith(b".0")
        self._has_followers = not is_last
        if is_last is not self._is_line_empty and (self._asked or not is_last):
            self._set_line(is_empty=is_last)
        self._lease(subject, reply, payload)
        held = self._held
        if 2 * (self._asked + len(held.waiting)) <= self._free + held.ahead:
            self._ask_soon()

    def _on_late_message(
        self, subject: bytes, reply: bytes, _headers: bytes, payload: bytes
    ) -> None:
        if reply:
            self._lease(subject, reply, payload)

    def _lease(self, subject: bytes, reply: bytes, payload: bytes) -> None:
        # As `Standstill.may_be_over`, without the cost of a call for each lease.
        if self._boot_clock() - self._standstill.read_at >= self._standstill.max_s:
            self._held.lapsed += 1
            return
        request_id = subject[subject.rfind(b".") + 1 :].decode()
        self._last_ack_subject = reply
        self._admit(PulledLease(self, reply, request_id, payload, self._epoch))

    def _on_status(self, headers: bytes) -> None:
        """Handle a heartbeat or the end of a pull that was not filled (nats-server consumer.go)."""
        status = status_of(headers)
        if status == STATUS_HEARTBEAT:
            return
        if status in {STATUS_NOT_FOUND, STATUS_TIMEOUT}:
            left = header_value(headers, b"Nats-Pending-Messages") or b""
            if left.isdigit():
                self._asked = max(0, self._asked - int(left))
                self._ask()
                return
        description = description_of(headers)
        if status == STATUS_CONFLICT and description.startswith(_BATCH_LIMIT):
            limit = description.removeprefix(_BATCH_LIMIT)
            if limit.isdigit() and 0 < int(limit) < self._max_batch:
                self._max_batch = int(limit)
        elif status in {STATUS_BAD_REQUEST, STATUS_CONFLICT, STATUS_NO_RESPONDERS}:
            emit(
                _log,
                "pull.refused",
                logging.WARNING,
                stream=self._stream,
                status=status,
                reason=description,
            )
        self._rebind()

    # For `Standstill`

    def is_silent_usual(self) -> bool:
        """Whether no pull is open, for which heartbeats come."""
        return not self._asked

    def read_bytes(self) -> int:
        """Return how much the connection has read."""
        return self._connection.traffic.in_bytes

    def heartbeat_s(self) -> float:
        """Return the interval between the heartbeats of a pull."""
        options = self._options
        return min(options.heartbeat_s, options.expires_s / 3, self._standstill.max_s / 3)

    async def read_all(self) -> None:
        """Return when all has been read that was sent before, or the link is lost."""
        while not await self._connection.flush():
            # The link is cut off: what it brings later is not new.
            pass

    def all_read(self) -> None:
        """Pull again."""
        super().all_read()
        self._ask()

    def _watch(self) -> None:
        self._held.measure(max(self._standstill.watch(), WATCH_S))
        if self._asked and self._delivered == self._watched_delivered:
            # Others have got what waited behind the last request.
            self._pull_waits(self._delivered)
        self._watched_delivered = self._delivered

    def _tick(self) -> None:
        if self._has_received or not self._asked or not self._is_bound:
            self._silent_heartbeats = 0
        else:
            self._silent_heartbeats += 1
            if self._silent_heartbeats >= _MAX_SILENT_HEARTBEATS:
                emit(_log, "pull.silent", logging.WARNING, stream=self._stream)
                self._rebind()
        self._has_received = False

    # Acknowledgements, called by leases

    def acknowledge(self, ack_subject: bytes, ack: bytes, epoch: int) -> None:
        """Send the acknowledgement that ends a lease, after the next binding if not possible now.

        ``epoch`` is the lease's: acknowledgements to an earlier consumer are dropped.
        """
        if epoch != self._epoch:
            return
        if self._is_bound and self._connection.publish(ack_subject, ack):
            if ack is ACK:
                self._recent.append(ack_subject)
            return
        unsent = self._unsent
        if len(unsent) >= _MAX_UNSENT:
            del unsent[next(iter(unsent))]
        unsent[ack_subject] = ack

    def extend(self, ack_subject: bytes, epoch: int) -> None:
        """Start the time of a lease again."""
        if epoch == self._epoch and self._is_bound:
            self._standstill.renewed()
            self._connection.publish(ack_subject, IN_PROGRESS)

    # Cancels

    def _on_cancelled(
        self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes
    ) -> None:
        if payload == LOSS_NOTICE:
            self._held.give_back()
            self._on_loss()
            return
        if payload.startswith(WAITING_PREFIX):
            # For the workers of other regions.
            return
        request_id = payload.decode("utf-8", "replace")
        self._cancelled(request_id)

    # Listener

    def connected(self) -> None:
        """Bind on the new connection."""
        self._rebind()

    def disconnected(self) -> None:
        """Forget all pulls; the broker may lose the queue."""
        self._is_bound = False
        self._asked = 0
        self._set_line(is_empty=False)
        self._held.give_back()
        self._on_loss()

    def _on_denied(self, subject: bytes) -> None:
        """Log the missing permission; pulling is tried again when the heartbeats are missing."""
        if subject in {self._next_subject, self._cancel_subject}:
            emit(_log, "pull.denied", logging.ERROR, subject=subject.decode())
