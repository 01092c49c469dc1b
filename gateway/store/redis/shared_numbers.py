"""The shared numbers in Redis."""

from gateway.errors import Conflict
from gateway.store.redis.connection import RedisStoreConnection
from gateway.store.redis.scripts import CONFLICT, REPLACE, NumberKeys, split


class RedisSharedNumbers:
    """Implements `gateway.store.interface.SharedNumbers`."""

    def __init__(self, connection: RedisStoreConnection, prefix: str, max_age_s: float) -> None:
        self._connection = connection
        self._keys = NumberKeys.of(prefix)
        self._max_age_s = max_age_s

    async def read(self, name: str) -> tuple[bytes, int] | None:
        stored = await self._connection.call("HGET", self._keys.documents, name)
        return None if stored is None else split(stored)

    async def replace(self, name: str, document: bytes, revision: int) -> int:
        written = await self._connection.run(
            REPLACE, self._keys, name, revision, document, self._max_age_s
        )
        if written == CONFLICT:
            raise Conflict(cause="another process was faster")
        return written
