"""Keeps a model (read model or catalog) equal to the records in the store.

Each bucket is followed by a `gateway.store.follower.BucketFollower`; a `RecordMirror` turns its
entries into changes of the model.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.domain.model import Change, RecordError, Removed
from gateway.store.follower import BucketFollower
from gateway.store.interface import Entry
from gateway.store.names import KEYS, ROUTING, key_at, record_at
from gateway.store.records import Store
from runtime.events import emit

_log = logging.getLogger("gateway.store")


class RecordModel(Protocol):
    """What is kept equal to the store: the read model or the catalog."""

    def apply(self, change: Change) -> None:
        """Apply one change. The same change may come again."""


class RecordMirror:
    """Turns the entries of one bucket into changes. No I/O.

    A document that cannot be read is logged and skipped. If it is an API key's, the key is removed:
    the document may say that the key is revoked. The record of anything else stays as it was.
    """

    def __init__(self, bucket: str, apply: Callable[[Change], None]) -> None:
        self._bucket = bucket
        self._apply = apply
        self._names: set[str] = set()
        self._missing: set[str] = set()

    def begin(self) -> None:
        """Every entry is delivered again: one that is not, has been deleted."""
        self._missing = set(self._names)

    def loaded(self) -> None:
        """Every entry has been delivered."""
        for name in self._missing:
            self._remove(name)
        self._missing = set()

    def entry(self, entry: Entry) -> None:
        """Apply one entry of the bucket."""
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
        fields = {
            "bucket": self._bucket,
            "name": name,
            "revision": revision,
            "error": str(error),
        }
        emit(_log, "store.bad_record", logging.ERROR, **fields)
        if self._bucket == KEYS:
            self._remove(name)

    def _remove(self, name: str) -> None:
        if name in self._names:
            self._names.discard(name)
            self._apply(Removed(key_at(self._bucket, name)))


class Watcher:
    """Follows buckets of the store; by default those that routing needs.

    ``loaded`` is set once the model holds everything that is in the store; it stays set when the
    store is lost. Until then the model is incomplete, and the process must not serve requests from
    it.
    """

    def __init__(self, store: Store, model: RecordModel, buckets: Sequence[str] = ROUTING) -> None:
        self._followers = [
            BucketFollower(bucket, store, RecordMirror(bucket, model.apply), self._on_loaded)
            for bucket in buckets
        ]
        self.loaded = asyncio.Event()

    def start(self) -> None:
        """Start following; the connection need not be open yet."""
        for follower in self._followers:
            follower.start()

    async def stop(self) -> None:
        """Stop following; the model stays as it is."""
        await asyncio.gather(*(follower.stop() for follower in self._followers))

    async def wait_until_shown(self, bucket: str, revision: int) -> bool:
        """Wait until the model shows ``revision`` of ``bucket``: a write of this process, say.

        Returns whether it does; at once `False` for a bucket that is not followed. The write is
        stored in any case. Waits `gateway.store.follower.SHOWN_WITHIN_S` at most.
        """
        for follower in self._followers:
            if follower.bucket == bucket:
                return await follower.wait_until_shown(revision)
        return False

    def _on_loaded(self) -> None:
        if all(follower.is_complete for follower in self._followers):
            self.loaded.set()
