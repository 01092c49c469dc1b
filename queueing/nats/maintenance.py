"""Keeps queues in the broker as they must be: there, and clean of what nobody waits for."""

import asyncio
import logging
from collections import deque
from typing import Protocol

from queueing.interface import QueueError, QueueUnavailable
from queueing.nats.connection import Connection, NatsError, NotConnected
from queueing.nats.entries import VersionQueue
from queueing.nats.jetstream import (
    ApiError,
    JetStream,
    StreamSettings,
    delete_message,
    delete_message_subject,
)
from runtime.tasks import spawn

_RETRY_MIN_S = 0.1
_RETRY_MAX_S = 1.0
_MAX_UNSURE = 10_000
_MAX_LOOKS = 32

_log = logging.getLogger("queueing.nats.maintenance")


class Keeper(Protocol):
    """Who is told what was found."""

    def queue_usable(self, queue: VersionQueue, created: str) -> None:
        """Stream and consumer are there; ``created`` tells whether they are the old ones."""

    def queue_unusable(self, queue: VersionQueue, error: QueueError) -> None:
        """They are not, and could not be made in time."""


class Upkeep:
    """Runs the slow conversations with the broker, one at a time per queue."""

    def __init__(
        self,
        connection: Connection,
        keeper: Keeper,
        region: str,
        settings: StreamSettings,
        patience_s: float,
    ) -> None:
        self._connection = connection
        self._stream = JetStream(connection)
        self._keeper = keeper
        self._region = region
        self._settings = settings
        self._patience_s = patience_s
        self._unsure: deque[tuple[VersionQueue, str]] = deque(maxlen=_MAX_UNSURE)
        self._is_sweeping = False
        self._turns = asyncio.Semaphore(_MAX_LOOKS)

    def look(self, queue: VersionQueue) -> None:
        """Make sure that ``queue`` exists; the keeper hears the result."""
        if not queue.is_ensuring:
            queue.is_ensuring = True
            spawn(self._look(queue), f"look-{queue.stream}")

    async def _look(self, queue: VersionQueue) -> None:
        try:
            async with self._turns:
                created = await self._present(queue)
        except QueueUnavailable as error:
            queue.is_ensuring = False
            self._keeper.queue_unusable(queue, error)
        else:
            queue.is_ensuring = False
            self._keeper.queue_usable(queue, created)

    async def _present(self, queue: VersionQueue) -> str:
        """Return the stream's birth, made now if need be. Raises `QueueUnavailable`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience_s
        delay_s = _RETRY_MIN_S
        while True:
            try:
                return await self._ensure(queue)
            except NotConnected as error:
                raise QueueUnavailable(str(error)) from error
            except (ApiError, NatsError) as error:
                if loop.time() + delay_s > until:
                    _log.warning(
                        "queue.unusable",
                        extra={"fields": {"stream": queue.stream, "error": str(error)}},
                    )
                    raise QueueUnavailable(str(error)) from error
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _RETRY_MAX_S)

    async def _ensure(self, queue: VersionQueue) -> str:
        stream = self._stream
        created = await stream.created(queue.stream)
        if created is None:
            created = await stream.ensure(self._region, queue.version_id, self._settings)
            _log.info("queue.created", extra={"fields": {"stream": queue.stream}})
        elif await stream.consumer_state(queue.stream) is None:
            await stream.ensure_consumer(queue.stream, self._settings)
        return created

    def delete(self, stream: str, sequence: int) -> None:
        """Take one message out; the answer is not waited for."""
        self._connection.publish(delete_message_subject(stream), delete_message(sequence))

    async def sequence_of(self, queue: VersionQueue, request_id: str) -> int:
        """Return a request's sequence, 0 when it is not in the queue. Raises `NatsError`."""
        return await self._stream.sequence_of(queue.stream, queue.subject + request_id.encode())

    def doubt(self, queue: VersionQueue, request_id: str) -> None:
        """Take it out at the next `sweep`: it may be in the queue, and nobody waits for it.

        Bounded: the oldest doubts are forgotten, their requests find no client at their worker's
        attach.
        """
        self._unsure.append((queue, request_id))

    def sweep(self) -> None:
        """Take out what was doubted. Needs a link."""
        if self._unsure and not self._is_sweeping:
            self._is_sweeping = True
            spawn(self._sweep(), "queue-sweep")

    async def _sweep(self) -> None:
        unsure = self._unsure
        try:
            while unsure:
                queue, request_id = unsure[0]
                self._connection.publish(queue.cancel_subject, request_id.encode())
                if sequence := await self.sequence_of(queue, request_id):
                    self.delete(queue.stream, sequence)
                if unsure and unsure[0] == (queue, request_id):
                    unsure.popleft()
        except NotConnected:
            # The rest waits for the next link.
            return
        except NatsError as error:
            # No stream, or no answer: the queue is looked after elsewhere.
            _log.info("queue.sweep_stopped", extra={"fields": {"error": str(error)}})
            unsure.clear()
        finally:
            self._is_sweeping = False
