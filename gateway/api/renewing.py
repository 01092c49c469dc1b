"""Takes the renewals of external workers' leases, and stores them many at a time.

A heartbeat that changes nothing is a note in memory. Every few seconds the notes of one part of the
workers are written as one record (`gateway.domain.renewals`), which every control plane follows.
A lease is as long as the worker's last heartbeat made it, whichever process took that.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from gateway.domain.leases import Leases
from gateway.domain.model import Instance, Record, RecordError, RecordKey, Renewals
from gateway.domain.renewals import PARTS, Renewal, part_of
from gateway.errors import Conflict, StoreUnavailable

_WRITES_PER_LEASE = 6
"""A renewal is in the store within this part of a lease; workers send heartbeats half as often."""
_KEPT_S = 60
"""A record whose leases have all ended is deleted that many seconds later."""


class RenewalRecords(Protocol):
    """The store (`gateway.store.records.Store`)."""

    async def get(self, key: RecordKey) -> tuple[Record, int] | None: ...

    async def put(self, record: Record, revision: int | None = None) -> int: ...

    async def delete(self, key: RecordKey, revision: int | None = None) -> int: ...


class LeaseRenewals:
    """The notes of one process; `run` stores them."""

    def __init__(
        self,
        records: RenewalRecords,
        leases: Leases,
        process: str,
        lease_s: float,
        clock: Callable[[], float],
    ) -> None:
        """``process`` is a UUID that no other process has; ``clock`` returns Unix seconds."""
        self._records = records
        self._leases = leases
        self._process = process
        self._pause_s = lease_s / _WRITES_PER_LEASE / len(PARTS)
        self._clock = clock
        self._notes: dict[str, dict[str, Renewal]] = {part: {} for part in PARTS}
        self._unwritten: set[str] = set()
        self._noted = asyncio.Event()
        self._failing: set[str] = set()

    @property
    def is_storing(self) -> bool:
        """Whether each part was written last time: while not, no heartbeat is only noted."""
        return not self._failing

    def renew(self, instance_id: str, renewal: Renewal) -> None:
        """Note a renewal. The instance has an id that was made here, a UUID."""
        part = part_of(instance_id)
        self._notes[part][instance_id] = renewal
        self._unwritten.add(part)
        self._noted.set()

    def current(self, stored: Instance) -> Instance:
        """Return an instance, as it is stored, with the lease that its worker has now."""
        return self._leases.current(stored)

    async def run(self) -> None:
        """Store the notes, part after part, until it is cancelled."""
        while True:
            await self._noted.wait()
            self._noted.clear()
            for part in PARTS:
                await asyncio.sleep(self._pause_s)
                if part in self._unwritten:
                    await self._write(part)
            await self._delete_ended()

    async def _write(self, part: str) -> None:
        self._unwritten.discard(part)
        now = self._clock()
        kept = {name: one for name, one in self._notes[part].items() if one.lease_until > now}
        self._notes[part] = kept
        try:
            await self._records.put(Renewals(self._process, part, dict(kept)))
        except StoreUnavailable:
            self._failing.add(part)
            self._unwritten.add(part)
            self._noted.set()
        else:
            self._failing.discard(part)

    async def _delete_ended(self) -> None:
        """Delete what processes that are gone have left."""
        before = int(self._clock()) - _KEPT_S
        for key in self._leases.ended(before):
            with suppress(StoreUnavailable, Conflict, RecordError):
                found = await self._records.get(key)
                if found and isinstance(found[0], Renewals) and found[0].ended_at < before:
                    await self._records.delete(key, found[1])
