"""The store in hashes and streams of Redis or Valkey (`gateway.store.redis.scripts`)."""

import logging
from collections.abc import Callable

from gateway.domain.model import VersionKey
from gateway.errors import Conflict
from gateway.store.interface import ClaimStore, Entry, SharedNumbers
from gateway.store.names import FUNCTIONS, key_at
from gateway.store.options import RedisStoreOptions
from gateway.store.records import Store
from gateway.store.redis.claims import RedisClaims
from gateway.store.redis.connection import RedisStoreConnection
from gateway.store.redis.feed import RedisFeed, scan
from gateway.store.redis.scripts import CONFLICT, DELETE, WRITE, BucketKeys, split
from gateway.store.redis.shared_numbers import RedisSharedNumbers
from runtime.events import emit

_log = logging.getLogger("gateway.store")


class RedisStore(Store):
    """Implements `gateway.store.records.Store`."""

    def __init__(self, options: RedisStoreOptions, prefix: str = "gateway") -> None:
        """``prefix`` begins the names of the buckets, which are parts of keys."""
        self.connection = RedisStoreConnection(options)
        self._prefix = prefix

    async def open(self, timeout_s: float | None = None) -> None:
        await self.connection.open(timeout_s)

    async def close(self) -> None:
        await self.connection.close()

    async def prepare(self, *buckets: str) -> None:  # noqa: ARG002
        """Warn of a server that may lose what is written; buckets need not be made."""
        info: dict[str, object] = {}
        for section in ("memory", "persistence", "replication"):
            info |= await self.connection.call("INFO", section)
        policy = info["maxmemory_policy"]
        if policy != "noeviction":
            emit(_log, "store.may_be_evicted", logging.WARNING, maxmemory_policy=policy)
        if not info["aof_enabled"]:
            emit(_log, "store.not_durable", logging.WARNING, appendonly="no")
        # This member is there only if min-replicas-to-write is set.
        if info["connected_slaves"] and "min_slaves_good_slaves" not in info:
            emit(_log, "store.not_replicated", logging.WARNING, min_replicas_to_write=0)

    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int:
        expected = "" if revision is None else str(revision)
        return _written(await self.connection.run(WRITE, self._keys(bucket), name, expected, data))

    async def get_raw(self, bucket: str, name: str) -> tuple[bytes, int] | None:
        stored = await self.connection.call("HGET", self._keys(bucket).documents, name)
        return None if stored is None else split(stored)

    async def delete_raw(self, bucket: str, name: str, revision: int | None = None) -> int:
        expected = "" if revision is None else str(revision)
        return _written(await self.connection.run(DELETE, self._keys(bucket), name, expected))

    async def entries(self, bucket: str) -> list[Entry]:
        found: dict[str, Entry] = {}
        async for entry in scan(self.connection, self._keys(bucket)):
            found[entry.name] = entry
        return sorted(found.values(), key=lambda entry: entry.revision)

    async def latest_revision(self, bucket: str, kind: str) -> int:
        return int(await self.connection.call("HGET", self._keys(bucket).revisions, kind) or 0)

    async def deleted_version(self, version_id: str) -> VersionKey | None:
        deleted, cursor = self._keys(FUNCTIONS).deleted, 0
        while True:
            cursor, found = await self.connection.call(
                "ZSCAN", deleted, cursor, "MATCH", f"version.*.{version_id}", "COUNT", 1000
            )
            for name, _ in found:
                key = key_at(FUNCTIONS, name.decode())
                if isinstance(key, VersionKey) and key.version_id == version_id:
                    return key
            if not cursor:
                return None

    def feed(
        self, bucket: str, on_entry: Callable[[Entry], None], on_loaded: Callable[[int], None]
    ) -> RedisFeed:
        return RedisFeed(self.connection, self._keys(bucket), on_entry, on_loaded)

    def shared_numbers(self, max_age_s: float) -> SharedNumbers:
        return RedisSharedNumbers(self.connection, self._prefix, max_age_s)

    def claims(self, max_age_s: float, account_limit: int) -> ClaimStore:
        return RedisClaims(self.connection, self._prefix, max_age_s, account_limit)

    def _keys(self, bucket: str) -> BucketKeys:
        return BucketKeys.of(self._prefix, bucket)


def _written(revision: int) -> int:
    if revision == CONFLICT:
        raise Conflict(cause="the record has been changed in between")
    return revision
