"""Administration of queues on JetStream."""

from collections.abc import Iterator
from contextlib import contextmanager

from queueing.interface import Load, QueueUnavailable
from queueing.nats.connection import NatsConnection, NatsError
from queueing.nats.jetstream import (
    CONSUMER_NOT_FOUND,
    STREAM_NOT_FOUND,
    JetStream,
    JetStreamError,
    StreamSettings,
)
from wire.subjects import consumer_name, queue_subjects, stream_name

_MAX_PAGES = 1000


class JetStreamAdmin:
    """A `queueing.interface.QueueAdmin`."""

    def __init__(self, connection: NatsConnection, region: str, streams: StreamSettings) -> None:
        self._jetstream = JetStream(connection)
        self._region = region
        self._streams = streams

    async def ensure(self, version_id: str) -> None:
        """Create stream and consumer unless they exist."""
        with _translate_errors():
            await self._jetstream.ensure(self._region, version_id, self._streams)

    async def load(self, version_id: str) -> Load:
        """Return the load of the queue. Without a consumer, everything in the stream waits."""
        stream = stream_name(self._region, version_id)
        with _translate_errors():
            try:
                info = await self._jetstream.call(
                    f"CONSUMER.INFO.{stream}.{consumer_name(stream)}", {}
                )
            except JetStreamError as error:
                if error.code == STREAM_NOT_FOUND:
                    return Load(0, 0)
                if error.code != CONSUMER_NOT_FOUND:
                    raise
            else:
                return Load(info["num_pending"], info["num_ack_pending"])
            info = await self._jetstream.call(f"STREAM.INFO.{stream}", {})
        return Load(info["state"]["messages"], 0)

    async def purge(self, version_id: str) -> None:
        """Remove every request, if the queue exists."""
        await self._call_if_exists(f"STREAM.PURGE.{stream_name(self._region, version_id)}")

    async def remove(self, version_id: str) -> None:
        """Delete the stream, if it exists."""
        await self._call_if_exists(f"STREAM.DELETE.{stream_name(self._region, version_id)}")

    async def version_ids(self) -> list[str]:
        """Return the ids of all versions that have a stream in the region."""
        prefix = stream_name(self._region, "")
        found: list[str] = []
        with _translate_errors():
            for _ in range(_MAX_PAGES):
                page = await self._jetstream.call(
                    "STREAM.NAMES",
                    {"subject": queue_subjects(self._region, "*"), "offset": len(found)},
                )
                names = page.get("streams") or []
                found += names
                if not names or len(found) >= page.get("total", 0):
                    break
        return [name.removeprefix(prefix) for name in found if name.startswith(prefix)]

    async def _call_if_exists(self, operation: str) -> None:
        with _translate_errors():
            try:
                await self._jetstream.call(operation, {})
            except JetStreamError as error:
                if error.code != STREAM_NOT_FOUND:
                    raise


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except (NatsError, JetStreamError) as error:
        raise QueueUnavailable(str(error)) from error
