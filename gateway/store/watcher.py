"""Keeps a model equal to the store, whatever happens to NATS meanwhile.

Each bucket is followed by one task: open a `Feed`, apply what it brings, and when it breaks open
the next one. A new feed brings everything again; what it did not bring has been deleted meanwhile.
While NATS is away the model stays as it was: a lost broker must not take functions down.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.domain.model import Change, RecordError
from gateway.store.connection import Connection
from gateway.store.errors import BucketMissingError, StoreError
from gateway.store.feed import Entry, Feed
from gateway.store.names import KEYS, ROUTING, record_at, removed_at
from gateway.store.nats_kv import Store
from runtime.tasks import spawn

REACHED_WITHIN_S = 1.0
RETRY_S = 0.1
MAX_RETRY_S = 2.0

_log = logging.getLogger("gateway.store")


class Model(Protocol):
    """What is kept equal to the store: the read model or the catalog."""

    def apply(self, change: Change) -> None:
        """Take one change. The same one may come again."""


class Mirror:
    """What one bucket holds, turned into changes. No I/O.

    A document that cannot be read is logged and skipped. If it is a key's, the key stops working:
    it may say that the key is revoked. A function's stays as it was last understood.
    """

    def __init__(self, bucket: str, apply: Callable[[Change], None]) -> None:
        self._bucket = bucket
        self._apply = apply
        self._names: set[str] = set()
        self._missing: set[str] = set()

    def begin(self) -> None:
        """Everything will be told again: what is not, is gone."""
        self._missing = set(self._names)

    def loaded(self) -> None:
        """Everything has been told."""
        for name in self._missing:
            self._remove(name)
        self._missing = set()

    def entry(self, entry: Entry) -> None:
        """Take one entry of the bucket."""
        name, data, revision = entry
        self._missing.discard(name)
        if data is None:
            self._remove(name)
            return
        try:
            self._apply(record_at(self._bucket, name, data))
        except RecordError as error:
            self._skip(name, revision, error)
            return
        self._names.add(name)

    def _skip(self, name: str, revision: int, error: RecordError) -> None:
        _log.error(
            "store.bad_record",
            extra={
                "fields": {
                    "bucket": self._bucket,
                    "name": name,
                    "revision": revision,
                    "error": str(error),
                }
            },
        )
        if self._bucket == KEYS:
            self._remove(name)

    def _remove(self, name: str) -> None:
        if name in self._names:
            self._names.discard(name)
            self._apply(removed_at(self._bucket, name))


class Watcher:
    """Follows some buckets of the store: those for routing unless told otherwise.

    ``loaded`` is set once the model holds everything that was in the store; it stays set when
    NATS goes. Until then the model is incomplete, and nobody should be served from it.
    """

    def __init__(self, store: Store, model: Model, buckets: Sequence[str] = ROUTING) -> None:
        self._followers = [_Follower(bucket, store, model, self._progress) for bucket in buckets]
        self._tasks: list[asyncio.Task[None]] = []
        self.loaded = asyncio.Event()

    @property
    def is_current(self) -> bool:
        """Whether every change of the store reaches the model now."""
        return all(follower.is_current for follower in self._followers)

    def start(self) -> None:
        """Begin to follow; the connection may still be on its way."""
        self._tasks = [
            spawn(follower.run(), f"store.follow.{follower.bucket}") for follower in self._followers
        ]

    async def stop(self) -> None:
        """Stop following; the model stays as it is."""
        for follower in self._followers:
            follower.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def reached(self, bucket: str, revision: int) -> bool:
        """Return when the model shows ``revision`` of ``bucket``: one's own write, for example.

        Waits `REACHED_WITHIN_S` at most, and not at all for a bucket that is not followed. Returns
        whether the model shows it; the write is done in any case.
        """
        for follower in self._followers:
            if follower.bucket == bucket:
                return await follower.reached(revision)
        return False

    def _progress(self) -> None:
        if all(follower.is_complete for follower in self._followers):
            self.loaded.set()


class _Follower:
    """Follows one bucket, feed after feed."""

    def __init__(
        self, bucket: str, store: Store, model: Model, progress: Callable[[], None]
    ) -> None:
        self.bucket = bucket
        self.is_complete = False
        self.is_current = False
        self._store = store
        self._connection: Connection = store.connection
        self._mirror = Mirror(bucket, model.apply)
        self._progress = progress
        self._retry_s = RETRY_S
        self._feed: Feed | None = None
        self._is_stopped = False
        self._revision = 0
        self._waiting: dict[asyncio.Event, int] = {}

    def stop(self) -> None:
        """End `run`, also when `nats-py` swallows the cancellation (cpython #86296)."""
        self._is_stopped = True
        if self._feed is not None:
            self._feed.break_off("stopped")

    async def reached(self, revision: int) -> bool:
        if self._revision >= revision:
            return True
        reached = asyncio.Event()
        self._waiting[reached] = revision
        try:
            async with asyncio.timeout(REACHED_WITHIN_S):
                await reached.wait()
        except TimeoutError:
            _log.warning("store.slow_feed", extra={"fields": {"bucket": self.bucket}})
            return False
        finally:
            del self._waiting[reached]
        return True

    async def run(self) -> None:
        while True:
            try:
                reason = await self._follow()
            except StoreError as error:
                reason = str(error)
            self.is_current = False
            if self._is_stopped:
                return
            _log.warning(
                "store.feed_broken", extra={"fields": {"bucket": self.bucket, "reason": reason}}
            )
            await asyncio.sleep(self._retry_s)
            self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)

    async def _follow(self) -> str:
        client = await self._connection.client()
        self._mirror.begin()
        name = self._store.full_name(self.bucket)
        feed = self._feed = Feed(name, self._entry, self._loaded)
        self._connection.on_lost(feed.break_off)
        try:
            try:
                await feed.open(client)
            except BucketMissingError:
                await self._store.prepare(self.bucket)
                return "the bucket was missing"
            return await feed.wait_broken()
        finally:
            self._connection.forget(feed.break_off)
            await feed.close()

    def _entry(self, entry: Entry) -> None:
        self._mirror.entry(entry)
        self._revision = entry.revision
        for reached, revision in self._waiting.items():
            if revision <= entry.revision:
                reached.set()

    def _loaded(self) -> None:
        self._mirror.loaded()
        self._retry_s = RETRY_S
        self.is_complete = self.is_current = True
        self._progress()
