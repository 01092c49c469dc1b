"""Follows one bucket of the store for the life of the process, whatever happens to NATS.

A `BucketFollower` opens a `Feed`, passes on what it delivers, and opens the next feed when it
breaks. A new feed delivers the whole bucket again, so a deletion that was missed shows as an entry
that is not delivered. While NATS is away nothing is passed on: the loss of the broker must not take
functions down.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from gateway.errors import StoreUnavailable
from gateway.store.connection import BucketMissing
from gateway.store.feed import Entry, Feed
from gateway.store.nats_kv import Store
from runtime.events import emit
from runtime.tasks import spawn

SHOWN_WITHIN_S = 1.0
"""How long `BucketFollower.wait_until_shown` waits at most."""
RETRY_S = 0.1
"""Pause before the first new feed; doubled up to `MAX_RETRY_S` until a feed has loaded."""
MAX_RETRY_S = 2.0

_log = logging.getLogger("gateway.store")


class Mirror(Protocol):
    """Receives the contents of a bucket."""

    def begin(self) -> None:
        """Every existing entry is delivered again from here to `loaded`."""

    def entry(self, entry: Entry) -> None:
        """Apply one entry, or the deletion of one."""

    def loaded(self) -> None:
        """Every entry that existed at the start of the feed has been delivered."""


class BucketFollower:
    """Follows one bucket, feed after feed.

    ``is_complete`` becomes true when the first feed has loaded, and stays true.
    """

    def __init__(
        self, bucket: str, store: Store, mirror: Mirror, on_loaded: Callable[[], None]
    ) -> None:
        """``on_loaded`` is called whenever a feed has delivered the whole bucket."""
        self.bucket = bucket
        self.is_complete = False
        self._store = store
        self._mirror = mirror
        self._on_loaded = on_loaded
        self._retry_s = RETRY_S
        self._feed: Feed | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._revision = 0
        self._waiting: dict[asyncio.Event, int] = {}

    def start(self) -> None:
        """Start following; the connection need not be open yet."""
        self._task = spawn(self._run(), f"store.follow.{self.bucket}")

    async def stop(self) -> None:
        """Stop following. What was passed on stays as it is."""
        self._is_stopped = True
        if self._feed is not None:
            # Ends the task even if nats-py swallows its cancellation (cpython #86296).
            self._feed.break_off("stopped")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def wait_until_shown(self, revision: int) -> bool:
        """Wait until ``revision`` of the bucket has been passed on, `SHOWN_WITHIN_S` at most.

        Returns whether it has been.
        """
        if self._revision >= revision:
            return True
        shown = asyncio.Event()
        self._waiting[shown] = revision
        try:
            async with asyncio.timeout(SHOWN_WITHIN_S):
                await shown.wait()
        except TimeoutError:
            emit(_log, "store.slow_feed", logging.WARNING, bucket=self.bucket)
            return False
        finally:
            del self._waiting[shown]
        return True

    async def _run(self) -> None:
        while True:
            try:
                reason = await self._follow()
            except StoreUnavailable as error:
                reason = str(error)
            if self._is_stopped:
                return
            emit(_log, "store.feed_broken", logging.WARNING, bucket=self.bucket, reason=reason)
            await asyncio.sleep(self._retry_s)
            self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)

    async def _follow(self) -> str:
        """Follow the bucket with one feed; return why it ended."""
        connection = self._store.connection
        client = await connection.client()
        self._mirror.begin()
        feed = self._feed = Feed(self._store.full_name(self.bucket), self._entry, self._loaded)
        connection.on_lost(feed.break_off)
        try:
            try:
                await feed.open(client)
            except BucketMissing:
                await self._store.prepare(self.bucket)
                return "the bucket was missing"
            return await feed.wait_broken()
        finally:
            connection.forget(feed.break_off)
            await feed.close()

    def _entry(self, entry: Entry) -> None:
        self._mirror.entry(entry)
        self._revision = entry.revision
        for shown, revision in self._waiting.items():
            if revision <= entry.revision:
                shown.set()

    def _loaded(self) -> None:
        self._mirror.loaded()
        self._retry_s = RETRY_S
        self.is_complete = True
        self._on_loaded()
