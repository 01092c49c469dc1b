"""Follows the bucket ``meta``: documents about the whole installation that are not records.

Each listener gets every entry and ignores those that it does not know, such as the leader's lease.
"""

import asyncio
import logging
from collections.abc import Callable

from gateway.domain.model import RecordError
from gateway.store.follower import BucketFollower
from gateway.store.interface import Entry
from gateway.store.names import META
from gateway.store.records import Store
from runtime.events import emit

Apply = Callable[[str, bytes | None], None]
"""Takes a name and its document, `None` if it was deleted. May raise `RecordError`."""

_log = logging.getLogger("gateway.store")


class MetaFollower:
    """Passes the entries of ``meta`` and their changes to ``listeners``.

    ``loaded`` is set once every entry was passed on; it stays set when the store is lost.
    """

    def __init__(self, store: Store, *listeners: Apply) -> None:
        self._listeners = listeners
        self._follower = BucketFollower(META, store, _MetaMirror(self._pass_on), self._on_loaded)
        self.loaded = asyncio.Event()

    def start(self) -> None:
        """Start following; the connection need not be open yet."""
        self._follower.start()

    async def stop(self) -> None:
        """Stop following."""
        await self._follower.stop()

    def _on_loaded(self) -> None:
        self.loaded.set()

    def _pass_on(self, name: str, data: bytes | None) -> None:
        for listener in self._listeners:
            try:
                listener(name, data)
            except RecordError as error:
                fields = {"bucket": META, "name": name, "error": str(error)}
                emit(_log, "store.bad_record", logging.ERROR, **fields)


class _MetaMirror:
    """Reports entries, and as deleted those that a new feed does not deliver."""

    def __init__(self, report: Apply) -> None:
        self._report = report
        self._names: set[str] = set()
        self._missing: set[str] = set()

    def begin(self) -> None:
        self._missing = set(self._names)

    def entry(self, entry: Entry) -> None:
        self._missing.discard(entry.name)
        if entry.data is None:
            self._names.discard(entry.name)
        else:
            self._names.add(entry.name)
        self._report(entry.name, entry.data)

    def loaded(self) -> None:
        for name in self._missing:
            self._names.discard(name)
            self._report(name, None)
        self._missing = set()
