"""Slow work on queues in the broker: create what is missing, remove what was withdrawn.

Publishing and acknowledging never wait for anything here.
"""

import asyncio
import logging
import time
from collections import deque
from typing import NamedTuple, Protocol

from queueing.interface import QueueError, QueueUnavailable
from queueing.nats.connection import Denied, NatsConnection, NatsError, NotConnected
from queueing.nats.jetstream import (
    EPOCH_GAP,
    JetStream,
    JetStreamError,
    QueueState,
    StreamSettings,
    StreamState,
    delete_message,
    delete_message_subject,
    next_first_sequence,
    purge_request,
    purge_subject,
)
from runtime.events import emit
from runtime.tasks import spawn
from wire.subjects import cancel_subject, queue_subjects, stream_name

_RETRY_MIN_S = 0.1
_RETRY_MAX_S = 1.0
_MAX_UNCERTAIN = 10_000
_MAX_CONCURRENT = 32
_MAX_WARNED = 10_000

_log = logging.getLogger("queueing.nats.maintenance")


class BrokerSilent(QueueUnavailable):
    """The broker has not responded, so nothing is known of the queue."""


class QueueNames(NamedTuple):
    """The names of one version's queue in the broker."""

    version_id: str
    stream: str
    subject: bytes
    """The prefix of the subjects of requests; the request id follows."""
    cancel_subject: bytes

    @classmethod
    def of(cls, region: str, version_id: str) -> "QueueNames":
        """Return the names of the queue of ``version_id`` in ``region``."""
        return cls(
            version_id,
            stream_name(region, version_id),
            queue_subjects(region, version_id).removesuffix(">").encode(),
            cancel_subject(version_id).encode(),
        )


class FoundQueue(NamedTuple):
    """What `Maintenance.ensure` found."""

    stream: StreamState
    consumer: QueueState


class Results(Protocol):
    """What `Maintenance.ensure` reads, and what is called with its result."""

    def highest_sequence(self, version_id: str) -> int:
        """Return the highest sequence that the queue is known to have used, 0 if none is."""

    def stream_emptied(self, version_id: str) -> None:
        """The stream has lost what it held, but not its name; `stream_usable` follows."""

    def stream_usable(self, version_id: str, found: FoundQueue) -> None:
        """Stream and consumer exist."""

    def stream_unusable(self, version_id: str, error: QueueError) -> None:
        """Stream or consumer is missing and could not be created in time."""


class Maintenance:
    """Runs the conversations with the broker, at most one at a time for each queue."""

    def __init__(
        self,
        connection: NatsConnection,
        results: Results,
        region: str,
        settings: StreamSettings,
        timeout_s: float,
    ) -> None:
        """``timeout_s`` bounds the attempts of one `ensure`."""
        self._connection = connection
        self._jetstream = JetStream(connection)
        self._results = results
        self._region = region
        self._settings = settings
        self._timeout_s = timeout_s
        self._uncertain: deque[tuple[QueueNames, str]] = deque(maxlen=_MAX_UNCERTAIN)
        self._is_cleaning = False
        self._turns = asyncio.Semaphore(_MAX_CONCURRENT)
        self._warned: set[str] = set()
        self.ensuring: set[str] = set()
        """The versions whose queues are being ensured."""

    def ensure(self, queue: QueueNames) -> None:
        """Check that stream and consumer exist, and create them if not.

        The result goes to ``results``. Does nothing while the same queue is being ensured.
        """
        if queue.version_id not in self.ensuring:
            self.ensuring.add(queue.version_id)
            spawn(self._ensure(queue), f"ensure-{queue.stream}")

    async def _ensure(self, queue: QueueNames) -> None:
        version_id = queue.version_id
        try:
            async with self._turns:
                found = await self._ensure_in_time(queue)
        except NotConnected:
            # The next connection ensures it again.
            self.ensuring.discard(version_id)
        except QueueUnavailable as error:
            self.ensuring.discard(version_id)
            self._results.stream_unusable(version_id, error)
        else:
            self.ensuring.discard(version_id)
            self._results.stream_usable(version_id, found)

    async def _ensure_in_time(self, queue: QueueNames) -> FoundQueue:
        """Return what is there. Raises `QueueUnavailable` and `NotConnected`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        delay_s = _RETRY_MIN_S
        while True:
            try:
                return await self._ensure_once(queue)
            except NotConnected:
                raise
            except (JetStreamError, NatsError) as error:
                if loop.time() + delay_s > deadline:
                    emit(
                        _log,
                        "queue.unusable",
                        logging.WARNING,
                        stream=queue.stream,
                        error=str(error),
                    )
                    is_response = isinstance(error, JetStreamError | Denied)
                    kind = QueueUnavailable if is_response else BrokerSilent
                    raise kind(str(error)) from error
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _RETRY_MAX_S)

    async def _ensure_once(self, queue: QueueNames) -> FoundQueue:
        jetstream, name = self._jetstream, queue.stream
        highest = self._results.highest_sequence(queue.version_id)
        stream = await jetstream.stream_state(name)
        if stream is None:
            replicas = await jetstream.ensure(
                self._region, queue.version_id, self._settings, highest
            )
            emit(_log, "queue.created", stream=name, replicas=replicas)
            stream = await jetstream.stream_state(name)
        elif _is_emptied(stream, highest):
            if stream.last_sequence < highest and not stream.messages:
                # What was leased or is withdrawn must not meet what comes now.
                sequence = next_first_sequence(time.time(), highest)
                emit(_log, "queue.lost", logging.WARNING, stream=name, first_sequence=sequence)
                await jetstream.raise_sequences(name, sequence)
                stream = await jetstream.stream_state(name)
            # Said before the consumer is there, which takes seconds longer in some clusters.
            self._results.stream_emptied(queue.version_id)
        consumer = await jetstream.consumer_state(name)
        if consumer is None:
            await jetstream.ensure_consumer(name, self._settings)
            consumer = await jetstream.consumer_state(name)
        if stream is None or consumer is None:
            raise JetStreamError(0, "the queue was removed at the same time")
        self._warn_of_single_copy(name, stream)
        return FoundQueue(stream, consumer)

    def _warn_of_single_copy(self, name: str, stream: StreamState) -> None:
        """Say once that the restart of one server of a cluster loses the queue."""
        if stream.replicas == 1 and self._connection.is_clustered() and name not in self._warned:
            if len(self._warned) < _MAX_WARNED:
                self._warned.add(name)
            emit(_log, "queue.single_copy", logging.WARNING, stream=name)

    def delete(self, stream: str, sequence: int) -> None:
        """Delete one message, without waiting for the response.

        ``sequence`` must be from this moment: a stream that was lost may use it again.
        """
        self._connection.publish(delete_message_subject(stream), delete_message(sequence))

    def remove(self, queue: QueueNames, request_id: str) -> None:
        """Remove a request by its id, without waiting for the response."""
        subject = queue.subject + request_id.encode()
        self._connection.publish(purge_subject(queue.stream), purge_request(subject))

    async def sequence_of(self, queue: QueueNames, request_id: str) -> int:
        """Return a request's sequence, 0 when it is not in the stream. Raises `NatsError`."""
        return await self._jetstream.sequence_of(queue.stream, queue.subject + request_id.encode())

    def mark_uncertain(self, queue: QueueNames, request_id: str) -> None:
        """Have the next `clean_up` cancel and delete a request that may be in the stream.

        For requests that the gateway has given up. The number is bounded and the oldest are
        dropped: a worker that gets one of those is refused when it attaches.
        """
        self._uncertain.append((queue, request_id))

    def clean_up(self) -> None:
        """Cancel and delete what was marked as uncertain. Needs a connection."""
        if self._uncertain and not self._is_cleaning:
            self._is_cleaning = True
            spawn(self._clean_up(), "queue-clean-up")

    async def _clean_up(self) -> None:
        uncertain = self._uncertain
        try:
            while uncertain:
                queue, request_id = uncertain[0]
                self._connection.publish(queue.cancel_subject, request_id.encode())
                if await self.sequence_of(queue, request_id):
                    self.remove(queue, request_id)
                if uncertain and uncertain[0] == (queue, request_id):
                    uncertain.popleft()
        except NotConnected:
            # The rest is done on the next connection.
            return
        except NatsError as error:
            # There is no such stream, or it does not respond: `ensure` deals with both.
            emit(_log, "queue.sweep_stopped", error=str(error))
            uncertain.clear()
        finally:
            self._is_cleaning = False


def _is_emptied(stream: StreamState, highest: int) -> bool:
    """Whether a stream that had used the sequence ``highest`` has lost what it held.

    Its sequences then went back, or another process has noticed it and raised them.
    """
    return stream.last_sequence < highest or 0 < highest < stream.first_sequence - EPOCH_GAP
