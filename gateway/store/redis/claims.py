"""Claims in Redis: a key of its own for each, which expires (`gateway.store.redis.scripts`)."""

from math import ceil

from gateway.errors import Conflict, TooManyKeys
from gateway.store.redis.connection import RedisStoreConnection
from gateway.store.redis.scripts import CLAIM, CONFLICT, FULL, RELEASE, ClaimKeys, split


class RedisClaims:
    """Implements `gateway.store.interface.ClaimStore`."""

    def __init__(
        self,
        connection: RedisStoreConnection,
        prefix: str,
        max_age_s: float,
        account_limit: int,
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._max_age_s = ceil(max_age_s)
        self._account_limit = account_limit

    async def make(self, account: str, name: str, document: bytes) -> int:
        made = await self._connection.run(
            CLAIM,
            ClaimKeys.of(self._prefix, account, name),
            document,
            self._max_age_s,
            self._account_limit,
        )
        if made == CONFLICT:
            raise Conflict(cause="the claim exists")
        if made == FULL:
            raise TooManyKeys
        return made

    async def read(self, account: str, name: str) -> tuple[bytes, int] | None:
        key = ClaimKeys.of(self._prefix, account, name).claim
        stored = await self._connection.call("GET", key)
        return None if stored is None else split(stored)

    async def release(self, account: str, name: str, revision: int) -> None:
        keys = ClaimKeys.of(self._prefix, account, name)
        await self._connection.run(RELEASE, keys, str(revision))
