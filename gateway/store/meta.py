"""Follows the bucket ``meta``: what holds for the whole installation and is no record.

Each entry is told by its name to whoever knows what it is; the leader's lease, which changes all
the time, is one of many that nobody here knows.
"""

import asyncio
import logging
from collections.abc import Callable

from gateway.domain.model import RecordError
from gateway.store.errors import BucketMissingError, StoreError
from gateway.store.feed import Entry, Feed
from gateway.store.names import META
from gateway.store.nats_kv import Store
from runtime.tasks import spawn

RETRY_S = 0.1
MAX_RETRY_S = 2.0

Apply = Callable[[str, bytes | None], None]
"""Takes a name and its document, `None` when it is gone. May raise `RecordError`."""

_log = logging.getLogger("gateway.store")


class MetaFeed:
    """Tells the entries of ``meta`` and their changes, for as long as the process lives.

    ``loaded`` is set once everything was told; it stays set when NATS goes, and so does what was
    told.
    """

    def __init__(self, store: Store, *listeners: Apply) -> None:
        self._store = store
        self._listeners = listeners
        self._names: set[str] = set()
        self._missing: set[str] = set()
        self._retry_s = RETRY_S
        self._feed: Feed | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self.loaded = asyncio.Event()

    def start(self) -> None:
        """Begin; the connection may still be on its way."""
        self._task = spawn(self._run(), "store.follow.meta")

    async def stop(self) -> None:
        """Stop following."""
        self._is_stopped = True
        if self._feed is not None:
            self._feed.break_off("stopped")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                reason = await self._follow()
            except StoreError as error:
                reason = str(error)
            if self._is_stopped:
                return
            fields = {"bucket": META, "reason": reason}
            _log.warning("store.feed_broken", extra={"fields": fields})
            await asyncio.sleep(self._retry_s)
            self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)

    async def _follow(self) -> str:
        connection = self._store.connection
        client = await connection.client()
        self._missing = set(self._names)
        feed = self._feed = Feed(self._store.full_name(META), self._entry, self._all_told)
        connection.on_lost(feed.break_off)
        try:
            try:
                await feed.open(client)
            except BucketMissingError:
                await self._store.prepare(META)
                return "the bucket was missing"
            return await feed.wait_broken()
        finally:
            connection.forget(feed.break_off)
            await feed.close()

    def _entry(self, entry: Entry) -> None:
        self._missing.discard(entry.name)
        self._tell(entry.name, entry.data)

    def _all_told(self) -> None:
        for name in self._missing:
            self._tell(name, None)
        self._missing = set()
        self._retry_s = RETRY_S
        self.loaded.set()

    def _tell(self, name: str, data: bytes | None) -> None:
        if data is None:
            self._names.discard(name)
        else:
            self._names.add(name)
        for listener in self._listeners:
            try:
                listener(name, data)
            except RecordError as error:
                fields = {"bucket": META, "name": name, "error": str(error)}
                _log.error("store.bad_record", extra={"fields": fields})
