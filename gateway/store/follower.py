"""Follows one bucket of the store for the life of the process, whatever happens to its servers.

A `BucketFollower` opens a feed, passes on what it delivers, and opens the next feed when it breaks.
A new feed delivers the whole bucket again, so a deletion that was missed shows as an entry that is
not delivered. While the servers are away nothing is passed on: their loss must not take functions
down.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from gateway.errors import StoreUnavailable
from gateway.store.interface import Entry, Feed
from gateway.store.records import Store
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
        self._mirror.begin()
        feed = self._feed = self._store.feed(self.bucket, self._entry, self._loaded)
        return await feed.follow()

    def _entry(self, entry: Entry) -> None:
        self._mirror.entry(entry)
        self._show(entry.revision)

    def _loaded(self, revision: int) -> None:
        self._mirror.loaded()
        self._show(revision)
        self._retry_s = RETRY_S
        self.is_complete = True
        self._on_loaded()

    def _show(self, revision: int) -> None:
        """Everything up to ``revision`` has been passed on."""
        self._revision = revision
        for shown, awaited in self._waiting.items():
            if awaited <= revision:
                shown.set()
