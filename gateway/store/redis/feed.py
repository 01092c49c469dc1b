"""The contents of one bucket in Redis, then every change, until the connection breaks.

A feed reads the bucket in parts, then the stream of changes from where that was at the beginning,
and for each change the document as it is then. So it may deliver a document that is newer than the
change, and again with its own change.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from gateway.errors import StoreUnavailable
from gateway.store.interface import Entry
from gateway.store.redis.connection import RedisStoreConnection
from gateway.store.redis.scripts import BucketKeys, split
from runtime.timeouts import silence_limit

HEARTBEAT_S = 0.5
"""The server responds at least this often."""
SILENCE_S = 1.0
"""After so long without a response that was due, the server counts as lost."""
_AT_ONCE = 200
"""Documents and changes that are asked for, and entries that are delivered, at a time."""


class StoredChange(NamedTuple):
    """A change in the stream: ``after`` is the revision before its own."""

    name: str
    revision: int
    after: int


class RedisFeed:
    """Follows one bucket. Implements `gateway.store.interface.Feed`."""

    def __init__(
        self,
        connection: RedisStoreConnection,
        keys: BucketKeys,
        on_entry: Callable[[Entry], None],
        on_loaded: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._on_entry = on_entry
        self._on_loaded = on_loaded
        self._reason = ""

    async def follow(self) -> str:
        await self._connection.wait_connected()
        position = await self._last_revision()
        await self._deliver_all(position)
        complete_at = await self._last_revision()
        is_loaded = False
        while True:
            if not is_loaded and position >= complete_at:
                is_loaded = True
                self._on_loaded(position)
            changes = await self._changes(position) or await self._overtaken(position)
            documents = await self._documents(changes)
            if self._reason:
                return self._reason
            for change in changes:
                if change.after != position:
                    raise StoreUnavailable(cause="a change is missing")
                position = change.revision
                self._on_entry(Entry(change.name, documents[change.name], position))

    def break_off(self, reason: str = "disconnected") -> None:
        self._reason = reason

    async def _deliver_all(self, position: int) -> None:
        """Deliver what is in the bucket, oldest first.

        Until the changes after ``position`` are delivered, no later revision is complete.
        """
        entries = [entry async for entry in scan(self._connection, self._keys)]
        entries.sort(key=lambda entry: entry.revision)
        for number, entry in enumerate(entries):
            self._on_entry(entry._replace(revision=min(entry.revision, position)))
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)

    async def _overtaken(self, position: int) -> list[StoredChange]:
        """Return the changes after ``position``, of which there were none just now.

        Raises `StoreUnavailable` if the server has another last revision, but no change that leads
        to it: its data were removed, or replaced by those of another time.
        """
        if await self._last_revision() == position:
            return []
        changes = await self._changes(position, wait_s=0)
        if not changes:
            raise StoreUnavailable(cause="the server has lost data")
        return changes

    async def _last_revision(self) -> int:
        return int(await self._connection.call("HGET", self._keys.revisions, "") or 0)

    async def _changes(self, position: int, wait_s: float = HEARTBEAT_S) -> list[StoredChange]:
        """Return changes after ``position``, as soon as there are some, or after ``wait_s``."""
        block = ("BLOCK", round(wait_s * 1000)) if wait_s else ()
        command = ("XREAD", "COUNT", _AT_ONCE, *block, "STREAMS", self._keys.changes)
        try:
            async with silence_limit(wait_s + SILENCE_S):
                found = await self._connection.call_at_once(*command, f"{position}-0")
        except TimeoutError:
            raise StoreUnavailable(cause="the server is silent") from None
        return [
            StoredChange(
                fields[b"name"].decode(), int(change_id.partition(b"-")[0]), int(fields[b"after"])
            )
            for _, changes in found
            for change_id, fields in changes
        ]

    async def _documents(self, changes: list[StoredChange]) -> dict[str, bytes | None]:
        """Return the documents that the changed names have now, `None` for a deleted one."""
        names = list({change.name for change in changes})
        if not names:
            return {}
        stored = await self._connection.call("HMGET", self._keys.documents, *names)
        return {
            name: None if value is None else split(value)[0]
            for name, value in zip(names, stored, strict=True)
        }


async def scan(connection: RedisStoreConnection, keys: BucketKeys) -> AsyncIterator[Entry]:
    """Yield every document of a bucket, in no order.

    One that is written meanwhile may come twice, or be the old one.
    """
    cursor = 0
    while True:
        cursor, found = await connection.call("HSCAN", keys.documents, cursor, "COUNT", _AT_ONCE)
        for name, value in found.items():
            document, revision = split(value)
            yield Entry(name.decode(), document, revision)
        if not cursor:
            return
