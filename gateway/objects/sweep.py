"""Deletes objects whose life time is over. Of all gateway processes, one does it at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import orjson

from gateway.errors import Conflict, StoreUnavailable
from gateway.objects.interface import ObjectStore
from runtime.events import emit

SWEEP_S = 300.0

_log = logging.getLogger("gateway.objects")


class Lifetime(NamedTuple):
    """How long the objects below ``prefix`` are kept, from their last modification."""

    prefix: str
    seconds: float


class SweepTurns:
    """Who sweeps: the process that writes the time of its sweep first, into one document."""

    def __init__(
        self,
        read: Callable[[], Awaitable[tuple[bytes, int] | None]],
        write: Callable[[bytes, int], Awaitable[object]],
    ) -> None:
        """``write`` replaces a revision, 0 for none, and raises `Conflict` if it is another."""
        self._read = read
        self._write = write

    async def take(self, now: float) -> bool:
        """Return whether this process sweeps at ``now``, Unix seconds."""
        found = await self._read()
        revision = 0
        if found is not None:
            data, revision = found
            try:
                at = float(orjson.loads(data)["at"])
            except (ValueError, TypeError, KeyError):
                at = 0.0
            if now < at + SWEEP_S:
                return False
        try:
            await self._write(orjson.dumps({"at": now}), revision)
        except Conflict:
            return False
        return True


class Sweep:
    """Sweeps every `SWEEP_S`, if it is this process's turn."""

    def __init__(
        self,
        store: ObjectStore,
        lifetimes: Sequence[Lifetime],
        turns: SweepTurns,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._lifetimes = lifetimes
        self._turns = turns
        self._clock = clock

    async def run(self) -> None:
        """Sweep until cancelled. A store that is not available is tried again at the next turn."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                if await self._turns.take(self._clock()):
                    await self.sweep()
            except StoreUnavailable as error:
                emit(_log, "objects.not_swept", logging.WARNING, error=str(error))

    async def sweep(self) -> int:
        """Delete what is to be deleted now; return how many objects."""
        deleted = 0
        for prefix, seconds in self._lifetimes:
            async for info in self._store.list(prefix):
                if info.modified_at + seconds <= self._clock():
                    await self._store.delete(info.key)
                    deleted += 1
        if deleted:
            emit(_log, "objects.swept", deleted=deleted)
        return deleted
