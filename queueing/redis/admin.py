"""Administration of all queues of one region on Redis."""

from queueing.interface import Load, QueueUnavailable
from queueing.redis.commands import encode
from queueing.redis.connection import RedisConnection
from queueing.redis.errors import RedisError
from queueing.redis.keys import QueueKeys, version_of
from queueing.redis.link import Link, Reply
from runtime.ids import new_uuid

_CALL_S = 2.0
_SCANNED_AT_ONCE = b"1000"


class RedisAdmin:
    """A `queueing.interface.QueueAdmin`; ``lease_s`` is the duration of leases of new queues."""

    def __init__(self, connection: RedisConnection, region: str, lease_s: float) -> None:
        self._connection = connection
        self._region = region
        self._lease_ms = b"%d" % int(lease_s * 1000)

    async def ensure(self, version_id: str) -> None:
        """Create the queue unless it exists."""
        keys = QueueKeys.of(self._region, version_id)
        epoch = new_uuid().encode()

        def frame(link: Link) -> bytes:
            return keys.frame(link, "ensure", epoch, link.run, self._lease_ms)

        try:
            await self._connection.call(keys.slot, frame, _CALL_S)
        except RedisError as error:
            raise QueueUnavailable(str(error)) from error

    async def load(self, version_id: str) -> Load:
        """Return the load of the queue, 0 and 0 when it does not exist."""
        state = await self._call(version_id, "state")
        return Load(state[4], state[5])

    async def purge(self, version_id: str) -> None:
        """Remove every request."""
        await self._call(version_id, "purge")

    async def remove(self, version_id: str) -> None:
        """Remove the queue."""
        await self._call(version_id, "remove")

    async def version_ids(self) -> list[str]:
        """Return the ids of all versions that have a queue."""
        pattern = b"rq:{%b.*}" % self._region.encode()
        if not self._connection.is_complete():
            raise QueueUnavailable(f"not connected: {self._connection.last_error}")
        found: dict[str, None] = {}
        try:
            for link in self._connection.links:
                cursor = b"0"
                while True:
                    frame = encode(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCANNED_AT_ONCE)
                    cursor, keys = await link.call_frame(frame, _CALL_S)
                    for key in keys:
                        if version_id := version_of(key, self._region):
                            found[version_id] = None
                    if cursor == b"0":
                        break
        except RedisError as error:
            raise QueueUnavailable(str(error)) from error
        return list(found)

    async def _call(self, version_id: str, name: str) -> Reply:
        keys = QueueKeys.of(self._region, version_id)
        try:
            return await self._connection.call(
                keys.slot, lambda link: keys.frame(link, name), _CALL_S
            )
        except RedisError as error:
            raise QueueUnavailable(str(error)) from error
