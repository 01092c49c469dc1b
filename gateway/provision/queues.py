"""The queues of versions, as the reconciler needs them: how full, ended, removed.

Ending a queue takes two steps, because the requests are in two places. Every gateway process is
told on ``nvcf.ended.<versionId>`` (`gateway.provision.undeploy_notices`) and answers the clients
whose requests are not with a worker; then the queue is purged. A process that cannot hear it at
that moment answers its clients at their own deadline.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from gateway.provision.actions import Load
from gateway.provision.undeploy_notices import Endings
from queueing.interface import QueueUnavailable
from queueing.nats.connection import Connection, NatsError
from queueing.nats.jetstream import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, ApiError, JetStream
from wire.subjects import consumer_name, queue_subjects, stream_name

_PAGE_LIMIT = 1000

Removed = Callable[[str], Awaitable[None]]
"""Told the version's id when its queue is gone, and again if it raises `QueueUnavailable`."""


class Queues:
    """All queues of one region. Every call may raise `QueueUnavailable`."""

    def __init__(self, connection: Connection, region: str) -> None:
        self._removed: Removed = _ignored
        self._connection = connection
        self._jetstream = JetStream(connection)
        self._region = region

    def on_removed(self, removed: Removed) -> None:
        """Have ``removed`` called after every removal of a queue from now on."""
        self._removed = removed

    async def load(self, version_id: str) -> Load:
        """Return how many requests wait and how many are leased; none without a queue.

        An answer that does not come is an error, never an empty queue.
        """
        stream = stream_name(self._region, version_id)
        with _translated():
            try:
                info = await self._jetstream.call(
                    f"CONSUMER.INFO.{stream}.{consumer_name(stream)}", {}
                )
            except ApiError as error:
                if error.code == STREAM_NOT_FOUND:
                    return Load(0, 0)
                if error.code != CONSUMER_NOT_FOUND:
                    raise
            else:
                return Load(info["num_pending"], info["num_ack_pending"])
            info = await self._jetstream.call(f"STREAM.INFO.{stream}", {})
        return Load(info["state"]["messages"], 0)

    async def end(self, version_id: str) -> None:
        """End every request that waits with an error, now."""
        if not self._connection.publish(Endings.subject(version_id), b""):
            raise QueueUnavailable("not connected")
        with _translated():
            await self._unless_missing(f"STREAM.PURGE.{stream_name(self._region, version_id)}")

    async def remove(self, version_id: str) -> None:
        """Remove the queue, if there is one, and whatever else the version's workers needed."""
        with _translated():
            await self._unless_missing(f"STREAM.DELETE.{stream_name(self._region, version_id)}")
        await self._removed(version_id)

    async def version_ids(self) -> list[str]:
        """Return the versions that have a queue."""
        prefix = stream_name(self._region, "")
        found: list[str] = []
        with _translated():
            for _ in range(_PAGE_LIMIT):
                page = await self._jetstream.call(
                    "STREAM.NAMES",
                    {"subject": queue_subjects(self._region, "*"), "offset": len(found)},
                )
                names = page.get("streams") or []
                found += names
                if not names or len(found) >= page.get("total", 0):
                    break
        return [name.removeprefix(prefix) for name in found if name.startswith(prefix)]

    async def _unless_missing(self, operation: str) -> None:
        try:
            await self._jetstream.call(operation, {})
        except ApiError as error:
            if error.code != STREAM_NOT_FOUND:
                raise


async def _ignored(version_id: str) -> None:
    """Do nothing."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (NatsError, ApiError) as error:
        raise QueueUnavailable(str(error)) from error
