"""Administration of all queues of one region on Redis."""

from collections.abc import Callable

from queueing.interface import Load, QueueUnavailable
from queueing.redis.commands import encode
from queueing.redis.connection import RedisConnection
from queueing.redis.errors import RedisError
from queueing.redis.keys import QueueKeys, version_of
from queueing.redis.link import Link, Reply
from runtime.ids import new_uuid

_CALL_S = 2.0
_SCANNED_AT_ONCE = b"1000"
_NO_TIME = b"+inf"
"""Of the look before: nothing has ended since."""


class RedisAdmin:
    """A `queueing.interface.QueueAdmin`.

    ``lease_s`` is the duration of leases of new queues, ``max_runs`` the most runs of a request, 0
    for no limit.
    """

    def __init__(
        self, connection: RedisConnection, region: str, lease_s: float, max_runs: int = 0
    ) -> None:
        self._connection = connection
        self._region = region
        self._lease_ms = b"%d" % int(lease_s * 1000)
        self._max_runs = b"%d" % max_runs

    async def ensure(self, version_id: str) -> None:
        """Create the queue unless it exists."""
        keys = QueueKeys.of(self._region, version_id)
        epoch = new_uuid().encode()

        def frame(link: Link) -> bytes:
            return keys.frame(link, "ensure", epoch, link.run, self._lease_ms)

        await self._call(keys, frame)

    async def load(self, version_id: str) -> Load:
        """Return the load of the queue, 0 and 0 when it does not exist.

        Leases whose time is over end: no gateway looks at a queue in which it has no requests.
        """
        keys = QueueKeys.of(self._region, version_id)

        def frame(link: Link) -> bytes:
            return keys.frame(link, "look", self._max_runs, _NO_TIME, link.run, b"", b"0")

        state = await self._call(keys, frame)
        return Load(state[4], state[5])

    async def purge(self, version_id: str) -> None:
        """Remove every request."""
        await self._run(version_id, "purge")

    async def remove(self, version_id: str) -> None:
        """Remove the queue."""
        await self._run(version_id, "remove")

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

    async def _run(self, version_id: str, name: str) -> None:
        keys = QueueKeys.of(self._region, version_id)
        await self._call(keys, lambda link: keys.frame(link, name))

    async def _call(self, keys: QueueKeys, frame: Callable[[Link], bytes]) -> Reply:
        try:
            return await self._connection.call(keys.slot, frame, _CALL_S)
        except RedisError as error:
            raise QueueUnavailable(str(error)) from error
