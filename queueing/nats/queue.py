"""The gateway's side of the queues on JetStream (`spec/invocation.md` §4).

A publish is one frame out and one short acknowledgement in, on an inbox that all requests share;
its last token is the request's id. Nothing else is asked of the broker while all goes well. The
life of a request here:

    PENDING   published; the acknowledgement, a refusal, or the loss of the link follows
    HELD      the broker holds it under a sequence, until it is settled, withdrawn or exhausted
    LOST      its stream is gone: refused after a grace, in which a worker that had leased it may
              still answer

Every request taken in `publish` ends with `settled`, `withdraw`, ``refused`` or ``exhausted``.
"""

import asyncio
from typing import Any

import orjson

from queueing.interface import QueueError, QueueFull, QueueUnavailable, Waiting
from queueing.nats.connection import Connection, NatsError, Subscription
from queueing.nats.entries import HELD, PENDING, Entry, VersionQueue
from queueing.nats.inflight import QueueLimits, RequestTable
from queueing.nats.jetstream import (
    MEMORY_EXCEEDED,
    STORAGE_EXCEEDED,
    STORE_FAILED,
    StreamSettings,
    max_deliveries_subject,
)
from queueing.nats.maintenance import Upkeep
from queueing.nats.positions import Standing
from queueing.nats.protocol import STATUS_NO_RESPONDERS, encode_publish_with_headers, status_of
from queueing.nats.publishes import PublishStatus, publish_counter
from runtime.lifecycle import Ticker
from runtime.tasks import spawn
from wire.subjects import stream_name

__all__ = ["JetStreamQueue", "QueueLimits", "StreamSettings", "refusal"]

_TICK_S = 0.5
_MAX_STALLS = 2
_MAX_PER_SUBJECT = "maximum messages per subject"


class JetStreamQueue:
    """A `queueing.interface.FunctionQueue`.

    ``process`` is the number in the request ids of this process. Counters for metrics:
    ``publishes`` (`queueing.nats.publishes`), `losses`.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        region: str,
        process: int,
        limits: QueueLimits | None = None,
        streams: StreamSettings | None = None,
    ) -> None:
        self._connection = connection
        self._region = region
        self.publishes = publish_counter()
        self._limits = limits or QueueLimits()
        self._upkeep = Upkeep(
            connection, self, region, streams or StreamSettings(), self._limits.ack_timeout_s
        )
        self._table = RequestTable(connection, self._upkeep, self._limits)
        self._requests = self._table.by_id
        self._queues: dict[str, VersionQueue] = {}
        self._standing = Standing(
            connection, (region, process), self._queues, self._requests, self._limits.peer_wait_s
        )
        self._inbox = connection.inbox() + b"."
        self._inbox_bytes = len(self._inbox)
        self._subscriptions: list[Subscription] = []
        self._ticker = Ticker(_TICK_S, self._tick)
        self._looked_at = 0.0
        self._clock = asyncio.get_running_loop().time
        self._call_soon = asyncio.get_running_loop().call_soon

    async def start(self) -> None:
        """Listen on the connection, which may be up or not."""
        subscribe = self._connection.subscribe
        self._subscriptions = [
            subscribe(self._inbox + b"*", self._acked),
            subscribe(max_deliveries_subject(), self._exhausted),
        ]
        self._standing.peers.start()
        self._connection.add_listener(self)
        self._ticker.start()
        if self._connection.is_connected():
            self._standing.peers.greet()
            await self._connection.flush()

    async def close(self) -> None:
        """Refuse whoever still waits and stop listening; the connection stays open."""
        self._ticker.stop()
        self._connection.remove_listener(self)
        for entry in tuple(self._requests.values()):
            self._table.refuse(entry, QueueUnavailable("The queue is closing"))
        self._standing.peers.close()
        for subscription in self._subscriptions:
            self._connection.unsubscribe(subscription)
        await self._connection.flush()

    @property
    def losses(self) -> int:
        """Requests refused because the queue had lost them."""
        return self._table.losses

    @property
    def requests(self) -> int:
        """Requests held now, waiting or running without an answer."""
        return len(self._requests)

    # FunctionQueue

    def is_available(self) -> bool:
        """Whether a publish can be attempted now."""
        return self._connection.is_connected()

    def publish(
        self, version_id: str, request_id: str, envelope: bytes, waiting: Waiting, trace: bytes
    ) -> None:
        """Send the envelope; what comes of it ``waiting`` is told later."""
        queue = self._queues.get(version_id) or self._open(version_id)
        if queue is None or self._table.is_full():
            full = "This process holds as many requests as it may"
            self._refuse_later(waiting, version_id, full, PublishStatus.OVERLOADED)
            return
        token = request_id.encode()
        if trace and b"\r" not in trace and b"\n" not in trace:
            headers = b"NATS/1.0\r\nNats-Msg-Id: %b\r\ntraceparent: %b\r\n\r\n" % (token, trace)
        else:
            headers = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % token
        if len(headers) + len(envelope) > self._connection.max_payload_bytes:
            # The server would end the connection, and everybody's requests with it.
            large = "The envelope is larger than the broker takes"
            self._refuse_later(waiting, version_id, large, PublishStatus.TOO_LARGE)
            return
        frame = encode_publish_with_headers(
            queue.subject + token, self._inbox + token, headers, envelope
        )
        if not self._connection.send(frame):
            away = "The broker cannot be reached"
            self._refuse_later(waiting, version_id, away, PublishStatus.UNAVAILABLE)
            return
        self._table.add(Entry(queue, request_id, waiting, frame, self._clock()))

    def withdraw(self, version_id: str, request_id: str) -> None:
        """Take it out of the queue and tell workers to stop."""
        queue = self._queues.get(version_id) or self._open(version_id)
        if queue is None:
            return
        entry = self._requests.get(request_id)
        if entry is not None:
            # While PENDING there is no sequence: the acknowledgement, nobody's by then, brings it.
            self._table.forget(entry)
        if not self._connection.publish(queue.cancel_subject, request_id.encode()):
            self._upkeep.doubt(queue, request_id)
        elif entry is not None and entry.stage is HELD:
            self._upkeep.delete(queue.stream, entry.sequence)

    def settled(self, request_id: str) -> None:
        """A worker has answered."""
        entry = self._requests.get(request_id)
        if entry is not None:
            self._table.forget(entry)

    async def position(self, version_id: str, request_id: str) -> int:
        """Return the place in line; of another process's request too, which is asked for it."""
        return await self._standing.position(version_id, request_id)

    async def depth(self, version_id: str) -> int:
        """Return how many requests wait to be leased."""
        return await self._standing.depth(version_id)

    # The broker's words

    def _acked(self, subject: bytes, _reply: bytes, headers: bytes, payload: bytes) -> None:
        entry = self._requests.get(subject[self._inbox_bytes :].decode())
        if entry is not None and entry.stage is PENDING:
            prefix = entry.queue.ack_prefix
            if payload.startswith(prefix):
                digits = payload[len(prefix) : -1]
                if digits.isdigit():
                    self._hold(entry, int(digits))
                    return
        self._acked_otherwise(entry, headers, payload)

    def _hold(self, entry: Entry, sequence: int) -> None:
        queue = entry.queue
        if sequence in queue.by_sequence:
            # Two requests never share a sequence: this is another stream of the same name.
            self._table.stream_lost(queue)
        elif sequence < queue.line.last and entry.sends == 1:
            # A stream counts upwards; only a repeated publish may be told an older number.
            self._upkeep.look(queue)
        queue.pending -= 1
        queue.add(entry, sequence)
        queue.published.value += 1
        entry.waiting.published(sequence)

    def _acked_otherwise(self, entry: Entry | None, headers: bytes, payload: bytes) -> None:
        if status_of(headers) == STATUS_NO_RESPONDERS:
            if entry is not None and entry.stage is PENDING:
                self._stall(entry)
            return
        try:
            answer: dict[str, Any] = orjson.loads(payload)
        except orjson.JSONDecodeError:
            answer = {"error": {"description": "The broker's answer is no JSON"}}
        if "error" not in answer:
            if entry is None:
                # Nobody waits for it any more, so nobody shall run it.
                self._upkeep.delete(answer["stream"], answer["seq"])
            elif entry.stage is PENDING:
                self._hold(entry, answer["seq"])
        elif entry is not None and entry.stage is PENDING:
            error = answer["error"]
            description = error.get("description", "")
            if description.startswith(_MAX_PER_SUBJECT):
                # An earlier try has arrived.
                spawn(self._find(entry), "find-sequence")
            else:
                self._table.refuse(entry, refusal(error.get("err_code", 0), description))

    def _stall(self, entry: Entry) -> None:
        """No stream listens: publish again when there is one."""
        queue = entry.queue
        entry.stalls += 1
        if entry.stalls >= _MAX_STALLS:
            self._table.refuse(entry, QueueUnavailable("No stream takes the request"))
            return
        entry.is_stalled = True
        queue.stalled.append(entry)
        self._upkeep.look(queue)

    async def _find(self, entry: Entry) -> None:
        queue = entry.queue
        try:
            sequence = await self._upkeep.sequence_of(queue, entry.request_id)
        except NatsError:
            # Its time for an acknowledgement runs on.
            return
        if sequence and self._table.is_pending(entry):
            self._hold(entry, sequence)

    def _exhausted(self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes) -> None:
        """Take out what was delivered in vain too often; tell its client if that is ours."""
        advisory = orjson.loads(payload)
        stream, sequence = advisory["stream"], advisory["stream_seq"]
        prefix = stream_name(self._region, "")
        if not stream.startswith(prefix):
            return
        self._upkeep.delete(stream, sequence)
        queue = self._queues.get(stream.removeprefix(prefix))
        entry = queue.by_sequence.get(sequence) if queue is not None else None
        if entry is not None:
            self._table.forget(entry)
            entry.waiting.exhausted()

    # Keeper

    def queue_usable(self, queue: VersionQueue, created: str) -> None:
        """Send what was stalled; if the stream is another one, count as lost what it held."""
        if queue.created and created != queue.created:
            self._table.stream_lost(queue)
        queue.created = created
        stalled, queue.stalled = queue.stalled, []
        for entry in stalled:
            entry.is_stalled = False
            if self._table.is_pending(entry) and not self._connection.send(entry.frame):
                self._table.refuse(entry, QueueUnavailable("The broker cannot be reached"))

    def queue_unusable(self, queue: VersionQueue, error: QueueError) -> None:
        """Refuse what was stalled."""
        stalled, queue.stalled = queue.stalled, []
        for entry in stalled:
            self._table.refuse(entry, error)

    # Listener

    def connected(self) -> None:
        """Look whether the queues are still the same, and clean up behind the lost link."""
        self._standing.peers.greet()
        for queue in self._queues.values():
            if not queue.by_sequence:
                # Nothing to lose: whatever stream is there now is the right one.
                queue.created = ""
            self._upkeep.look(queue)
        self._upkeep.sweep()

    def disconnected(self) -> None:
        """Refuse what was not acknowledged."""
        self._table.link_lost()

    def denied(self, subject: bytes) -> None:
        """Refuse the request that we may not publish."""
        entry = self._requests.get(subject[subject.rfind(b".") + 1 :].decode())
        if entry is not None and entry.stage is PENDING and subject.startswith(entry.queue.subject):
            refused = QueueUnavailable("The broker denies publishing")
            self._table.refuse(entry, refused, PublishStatus.DENIED)

    # The tables

    def _open(self, version_id: str) -> VersionQueue | None:
        if len(self._queues) >= self._limits.max_versions:
            idle = next((q for q in self._queues.values() if q.is_idle()), None)
            if idle is None:
                return None
            del self._queues[idle.version_id]
        queue = self._queues[version_id] = VersionQueue(self._region, version_id, self.publishes)
        if self._connection.is_connected():
            self._upkeep.look(queue)
        return queue

    def _refuse_later(
        self, waiting: Waiting, version_id: str, reason: str, status: PublishStatus
    ) -> None:
        self.publishes.child(stream_name(self._region, version_id), status).value += 1
        self._call_soon(waiting.refused, QueueUnavailable(reason))

    # Time

    def _tick(self) -> None:
        now = self._clock()
        self._table.tick(now)
        if self._connection.is_connected():
            self._upkeep.sweep()
            self._standing.peers.tick(now)
            if now - self._looked_at >= self._limits.look_interval_s:
                self._looked_at = now
                for queue in self._queues.values():
                    if queue.by_sequence:
                        self._upkeep.look(queue)


def refusal(code: int, description: str) -> QueueError:
    """Return what a failed publish means; ``code`` is JetStream's ``err_code``."""
    if code in {MEMORY_EXCEEDED, STORAGE_EXCEEDED} or (
        code == STORE_FAILED and description.startswith("maximum")
    ):
        return QueueFull(description)
    return QueueUnavailable(description or "The broker refused the request")
