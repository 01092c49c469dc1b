"""The worker's side of one queue: a standing pull for all free slots, leases, cancels.

Needs no more permissions than a worker has (`spec/worker.md` §1.5): consumer info, consumer next,
acks, inboxes, the cancel subject. A worker is bound once the broker has told which consumer there
is; it pulls only while bound, and binds again after every reconnect and whenever a pull fails:

    unbound ──consumer info──▶ bound ──link lost, consumer gone, silence──▶ unbound

Acks given meanwhile wait, and are sent if it is still the same consumer. If it is another one, the
sequences of old leases mean other requests: they are dropped.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from queueing.nats.acks import ACK, HAND_BACK, PROGRESS, REJECT, deliveries_of
from queueing.nats.connection import Connection, Denied, NatsError, NotConnected, Subscription
from queueing.nats.jetstream import API, ApiError, JetStream, next_message_subject
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
from runtime.lifecycle import Ticker
from runtime.tasks import spawn
from wire.subjects import cancel_subject, stream_name

_RETRY_MIN_S = 0.25
_RETRY_MAX_S = 2.0
_MAX_UNSENT = 10_000
_RECENT = 512
_MAX_SILENT_BEATS = 2
_BATCH_LIMIT = "Exceeded MaxRequestBatch of "

_log = logging.getLogger("queueing.nats.consumer")


@dataclass(frozen=True, slots=True)
class PullOptions:
    """How a worker pulls. A pull without requests ends after ``expires_s`` and is renewed.

    The broker gives a sign of life every ``heartbeat_s``; after two without one the pull is taken
    as lost. ``max_batch`` is the most asked for at once, ``max_cancels`` how many ids of cancelled
    requests are remembered, the oldest forgotten first, for ``cancel_memory_s``. ``api`` is where
    JetStream answers.
    """

    expires_s: float = 300.0
    heartbeat_s: float = 5.0
    max_batch: int = 5000
    max_cancels: int = 10_000
    cancel_memory_s: float = 300.0
    api: str = API


class PulledLease:
    """A `queueing.interface.Lease`. Everything but `progress` ends it; later calls do nothing."""

    __slots__ = ("_ack_subject", "_epoch", "_worker", "deliveries", "envelope", "request_id")

    def __init__(
        self, worker: "PullWorker", ack_subject: bytes, request_id: str, envelope: bytes, epoch: int
    ) -> None:
        self._worker = worker
        self._ack_subject = ack_subject
        self._epoch = epoch
        self.deliveries = deliveries_of(ack_subject)
        self.request_id = request_id
        self.envelope = envelope

    def progress(self) -> None:
        """Still working. Lost without a link; the next one counts as well."""
        if self._ack_subject:
            self._worker.say_progress(self._ack_subject, self._epoch)

    def ack(self) -> None:
        """All is over."""
        self._end(ACK)

    def hand_back(self) -> None:
        """Not begun. Counts as a delivery."""
        self._end(HAND_BACK)

    def reject(self) -> None:
        """Nobody can serve it."""
        self._end(REJECT)

    def _end(self, word: bytes) -> None:
        ack_subject, self._ack_subject = self._ack_subject, b""
        if ack_subject:
            self._worker.say(ack_subject, word, self._epoch)


class PullWorker:
    """Pulls from the queue of one version in one region.

    ``on_lease`` gets every lease at once, at most as many as `want` asked for; ``on_cancel`` gets
    the id of every cancelled request of the version, whoever runs it. Counters for metrics:
    ``pulls``, ``leases``, ``handed_back``, ``cancels``, ``rebinds``.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        region: str,
        version_id: str,
        on_lease: Callable[[PulledLease], None],
        on_cancel: Callable[[str], None],
        options: PullOptions | None = None,
    ) -> None:
        self._connection = connection
        self._on_lease = on_lease
        self._on_cancel = on_cancel
        self._options = options or PullOptions()
        self._api = JetStream(connection, api=self._options.api)
        self._stream = stream_name(region, version_id)
        self._next_subject = next_message_subject(self._stream, self._options.api)
        self._cancel_subject = cancel_subject(version_id).encode()
        self._cancel_subscription: Subscription | None = None
        self._inbox = b""
        self._inbox_subscription: Subscription | None = None
        self._binder: asyncio.Task[None] | None = None
        self._is_bound = False
        self._is_draining = False
        self._is_scheduled = False
        self._created = ""
        self._epoch = 0
        self._free = 0
        self._asked = 0
        self._max_batch = self._options.max_batch
        self._has_heard = False
        self._silent_beats = 0
        self._unsent: dict[bytes, bytes] = {}
        self._recent: deque[bytes] = deque(maxlen=_RECENT)
        self._cancelled: dict[str, float] = {}
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._call_soon = loop.call_soon
        self._ticker = Ticker(self._options.heartbeat_s, self._tick)
        self.pulls = 0
        self.leases = 0
        self.handed_back = 0
        self.cancels = 0
        self.rebinds = 0

    # Life

    def start(self) -> None:
        """Listen for cancels and begin to bind; the connection may be up or not."""
        self._cancel_subscription = self._connection.subscribe(self._cancel_subject, self._cancel)
        self._connection.add_listener(self)
        self._ticker.start()
        if self._connection.is_connected():
            self._rebind()

    def want(self, free: int) -> None:
        """There is room for ``free`` requests more than were leased; call it when that grows.

        0 takes back what was asked for; what is on its way nevertheless is handed back.
        """
        self._free = free
        if free <= 0:
            if self._asked:
                self._renew_inbox()
        elif not self._is_scheduled and 2 * self._asked <= free:
            self._is_scheduled = True
            self._call_soon(self._refill)

    def is_bound(self) -> bool:
        """Whether requests can come."""
        return self._is_bound

    async def drain(self) -> None:
        """Ask for no more; when this returns nothing new comes. Leases and cancels go on."""
        self._is_draining = True
        self._free = 0
        self._end_pulls()
        await self._connection.flush()

    async def close(self) -> None:
        """Drain, stop listening, and see that the last acks have left."""
        await self.drain()
        self._ticker.stop()
        if self._binder is not None:
            self._binder.cancel()
        self._connection.remove_listener(self)
        if self._cancel_subscription is not None:
            self._connection.unsubscribe(self._cancel_subscription)
        await self._connection.flush()

    # Binding

    def _rebind(self) -> None:
        self._is_bound = False
        self._renew_inbox()
        self.rebinds += 1
        if not self._is_draining and (self._binder is None or self._binder.done()):
            self._binder = spawn(self._bind(), f"bind-{self._stream}")

    async def _bind(self) -> None:
        delay_s = 0.0
        while True:
            if delay_s:
                await asyncio.sleep(delay_s)
            delay_s = min(max(2 * delay_s, _RETRY_MIN_S), _RETRY_MAX_S)
            try:
                state = await self._api.consumer_state(self._stream)
            except NotConnected:
                # `connected` binds again.
                return
            except Denied:
                # It may be allowed to pull all the same; then old leases cannot be told apart.
                self._bound(self._created)
                return
            except (ApiError, NatsError) as error:
                _log.info(
                    "pull.not_bound",
                    extra={"fields": {"stream": self._stream, "error": str(error)}},
                )
                continue
            if state is not None:
                self._bound(state.created)
                return

    def _bound(self, created: str) -> None:
        if self._created and created != self._created:
            self._epoch += 1
            self._unsent.clear()
            self._recent.clear()
        self._created = created
        self._is_bound = True
        self._silent_beats = 0
        # What was said on the link that was lost may not have arrived. Saying it twice is harmless.
        for ack_subject in self._recent:
            self._connection.publish(ack_subject, ACK)
        unsent, self._unsent = self._unsent, {}
        for ack_subject, word in unsent.items():
            self.say(ack_subject, word, self._epoch)
        self._refill()

    # Pulling

    def _refill(self) -> None:
        self._is_scheduled = False
        asked, free = self._asked, self._free
        # Below half, not at every lease: one pull then covers many.
        if not self._is_bound or self._is_draining or free <= asked or 2 * asked > free:
            return
        options = self._options
        batch = min(free - asked, self._max_batch)
        self.pulls += 1
        pull = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (
            batch,
            int(options.expires_s * 1e9),
            int(min(options.heartbeat_s, options.expires_s / 3) * 1e9),
        )
        inbox = b"%b.%d" % (self._inbox, self.pulls)
        if self._connection.send(encode_publish(self._next_subject, inbox, pull)):
            self._asked = asked + batch

    def _renew_inbox(self) -> None:
        """Withdraw all pulls: the broker gives nothing to an inbox that nobody listens to."""
        self._end_pulls()
        if not self._is_draining:
            self._inbox = self._connection.inbox()
            self._inbox_subscription = self._connection.subscribe(self._inbox + b".*", self._came)

    def _end_pulls(self) -> None:
        self._asked = 0
        if self._inbox_subscription is not None:
            self._connection.unsubscribe(self._inbox_subscription, self._came_late)
            self._inbox_subscription = None

    def _came(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        self._has_heard = True
        if not reply:
            self._status(headers)
            return
        if self._asked > 0:
            self._asked -= 1
        self._lease(subject, reply, payload)
        if not self._is_scheduled and 2 * self._asked <= self._free:
            self._is_scheduled = True
            self._call_soon(self._refill)

    def _came_late(self, subject: bytes, reply: bytes, _headers: bytes, payload: bytes) -> None:
        if reply:
            self._lease(subject, reply, payload)

    def _lease(self, subject: bytes, reply: bytes, payload: bytes) -> None:
        request_id = subject[subject.rfind(b".") + 1 :].decode()
        lease = PulledLease(self, reply, request_id, payload, self._epoch)
        if self._cancelled and request_id in self._cancelled:
            # Nobody waits for it.
            lease.ack()
        elif self._free <= 0:
            self.handed_back += 1
            lease.hand_back()
        else:
            self._free -= 1
            self.leases += 1
            self._on_lease(lease)

    def _status(self, headers: bytes) -> None:
        """A pull ended without being filled (nats-server, ``consumer.go``)."""
        status = status_of(headers)
        if status == STATUS_HEARTBEAT:
            return
        if status in {STATUS_NOT_FOUND, STATUS_TIMEOUT}:
            left = header_value(headers, b"Nats-Pending-Messages") or b""
            if left.isdigit():
                self._asked = max(0, self._asked - int(left))
                self._refill()
                return
        description = description_of(headers)
        if status == STATUS_CONFLICT and description.startswith(_BATCH_LIMIT):
            limit = description.removeprefix(_BATCH_LIMIT)
            if limit.isdigit() and 0 < int(limit) < self._max_batch:
                self._max_batch = int(limit)
        elif status in {STATUS_BAD_REQUEST, STATUS_CONFLICT, STATUS_NO_RESPONDERS}:
            _log.warning(
                "pull.refused",
                extra={"fields": {"stream": self._stream, "status": status, "reason": description}},
            )
        self._rebind()

    def _tick(self) -> None:
        if self._has_heard or not self._asked or not self._is_bound:
            self._silent_beats = 0
        else:
            self._silent_beats += 1
            if self._silent_beats >= _MAX_SILENT_BEATS:
                _log.warning("pull.silent", extra={"fields": {"stream": self._stream}})
                self._rebind()
        self._has_heard = False

    # What leases say

    def say(self, ack_subject: bytes, word: bytes, epoch: int) -> None:
        """End a lease; keeps the word for the next binding if it cannot be said now."""
        if epoch != self._epoch:
            return
        if self._is_bound and self._connection.publish(ack_subject, word):
            if word is ACK:
                self._recent.append(ack_subject)
            return
        unsent = self._unsent
        if len(unsent) >= _MAX_UNSENT:
            del unsent[next(iter(unsent))]
        unsent[ack_subject] = word

    def say_progress(self, ack_subject: bytes, epoch: int) -> None:
        """Extend a lease."""
        if epoch == self._epoch and self._is_bound:
            self._connection.publish(ack_subject, PROGRESS)

    # Cancels

    def _cancel(self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes) -> None:
        request_id = payload.decode("utf-8", "replace")
        now = self._clock()
        cancelled = self._cancelled
        cancelled.pop(request_id, None)
        cancelled[request_id] = now
        oldest = next(iter(cancelled))
        while len(cancelled) > self._options.max_cancels or (
            now - cancelled[oldest] > self._options.cancel_memory_s
        ):
            del cancelled[oldest]
            oldest = next(iter(cancelled))
        self.cancels += 1
        self._on_cancel(request_id)

    # Listener

    def connected(self) -> None:
        """Bind on the new link."""
        self._rebind()

    def disconnected(self) -> None:
        """All pulls are gone."""
        self._is_bound = False
        self._asked = 0

    def denied(self, subject: bytes) -> None:
        """Say it where an operator looks; pulling is tried again when the heartbeats fail."""
        if subject in {self._next_subject, self._cancel_subject}:
            _log.error("pull.denied", extra={"fields": {"subject": subject.decode()}})
