"""Administration of queues on JetStream, in all regions of an installation."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
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
from runtime.events import emit
from wire.subjects import consumer_name, queue_subjects, stream_name

_MAX_PAGES = 1000

_log = logging.getLogger("queueing.nats.admin")


class JetStreamAdmin:
    """A `queueing.interface.QueueAdmin`."""

    def __init__(
        self, connection: NatsConnection, regions: Sequence[str], streams: StreamSettings
    ) -> None:
        """``regions`` are all of the installation, the own one first."""
        self._jetstream = JetStream(connection)
        self._regions = tuple(regions)
        self._streams = streams

    async def ensure(self, version_id: str) -> None:
        """Create streams and consumers unless they exist; those of regions that are away later."""
        own, *others = self._regions
        with _translate_errors():
            await self._jetstream.ensure(own, version_id, self._streams)
        # At the same time: a worker waits, and regions that are away take their time each.
        await asyncio.gather(*(self._ensure_elsewhere(region, version_id) for region in others))

    async def _ensure_elsewhere(self, region: str, version_id: str) -> None:
        try:
            await self._jetstream.ensure(region, version_id, self._streams)
        except (NatsError, JetStreamError) as error:
            # Its own gateways make it when it is back, at the latest with its first call.
            emit(_log, "queue.not_made", logging.WARNING, region=region, error=str(error))

    async def load(self, version_id: str) -> Load:
        """Return the load of all regions. Without a consumer, everything in a stream waits."""
        own, *others = self._regions
        loads = await asyncio.gather(
            self._load(own, version_id),
            *(self._load_elsewhere(region, version_id) for region in others),
        )
        return Load(
            sum(one.waiting for one in loads),
            sum(one.leased for one in loads),
            all(one.is_complete for one in loads),
        )

    async def _load_elsewhere(self, region: str, version_id: str) -> Load:
        try:
            return await self._load(region, version_id)
        except QueueUnavailable:
            return Load(0, 0, is_complete=False)

    async def _load(self, region: str, version_id: str) -> Load:
        stream = stream_name(region, version_id)
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
        """Remove every request, where the queue exists."""
        for region in self._regions:
            await self._call_if_exists(f"STREAM.PURGE.{stream_name(region, version_id)}")

    async def remove(self, version_id: str) -> None:
        """Delete the streams that exist."""
        for region in self._regions:
            await self._call_if_exists(f"STREAM.DELETE.{stream_name(region, version_id)}")

    async def version_ids(self) -> list[str]:
        """Return the ids of all versions that have a stream in one of the regions."""
        found = [one for region in self._regions for one in await self._versions_in(region)]
        return list(dict.fromkeys(found))

    async def _versions_in(self, region: str) -> list[str]:
        prefix = stream_name(region, "")
        found: list[str] = []
        with _translate_errors():
            for _ in range(_MAX_PAGES):
                page = await self._jetstream.call(
                    "STREAM.NAMES",
                    {"subject": queue_subjects(region, "*"), "offset": len(found)},
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
