"""Leader election: several reconcilers compete for one lease in the store.

The record names its holder. The holder rewrites it every third of ``ttl_s``. A candidate that sees
the same revision for a whole ``ttl_s``, by its own clock, replaces it. Clocks of different machines
are never compared.

Leadership is fenced by time: the holder trusts its lease for only three quarters of ``ttl_s``,
counted from when it *sent* the last renewal. It has therefore stopped acting before another
candidate can begin, even if it was paused in between. While the store is unavailable there is no
leader, and nothing is changed.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Protocol

from gateway.errors import Conflict, StoreUnavailable
from runtime.events import emit
from runtime.tasks import spawn

BUCKET = "meta"
NAME = "leader"
TTL_S = 6.0
_TRUSTED = 0.75

_log = logging.getLogger("gateway.provision")


class LeaseStore(Protocol):
    """The store of the lease (`gateway.store.records.Store`).

    Every call may raise `StoreUnavailable`; writes raise `Conflict` if the revision is another.
    """

    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int: ...

    async def get_raw(self, bucket: str, name: str) -> tuple[bytes, int] | None: ...

    async def delete_raw(self, bucket: str, name: str, revision: int | None = None) -> int: ...


class LeaderLease:
    """One candidate. ``on_change`` is called when `is_held` or `holder` has changed."""

    def __init__(
        self,
        store: LeaseStore,
        owner: str,
        on_change: Callable[[], None],
        ttl_s: float = TTL_S,
    ) -> None:
        """``owner`` is unique among all candidates, and differs after a restart."""
        self._store = store
        self._owner = owner
        self._on_change = on_change
        self._ttl_s = ttl_s
        self.machine = ""
        """Same in candidates that reach the same instances; to be set before `start`."""
        self._loop = asyncio.get_running_loop()
        self._trusted_until = 0.0
        self._revision = 0
        self._last_read = (0, 0.0)
        """The last revision read, and when it was first read."""
        self._notified: tuple[bool, str] = (False, "")
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.holder = ""
        """The owner that the last read or written record names; empty before the first."""
        self._holder_machine = ""

    @property
    def is_held(self) -> bool:
        """Whether this candidate leads now."""
        return self._loop.time() < self._trusted_until

    @property
    def is_held_by_other(self) -> bool:
        """Whether another candidate leads, as far as is known."""
        return self.holder not in {"", self._owner}

    @property
    def is_holder_near(self) -> bool:
        """Whether the leader, as far as is known, reaches the same instances as this candidate."""
        return self._holder_machine == self.machine

    def start(self) -> None:
        """Begin to compete for the lease."""
        self._task = spawn(self._run(), "provision.lease")

    async def stop(self) -> None:
        """Stop competing, and release the lease so that another candidate takes it at once."""
        # A flag as well: on Python 3.11 code below `nats-py` can swallow a cancellation.
        self._is_stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        was_held, self._trusted_until = self.is_held, 0.0
        if was_held:
            try:
                await self._store.delete_raw(BUCKET, NAME, self._revision)
            except (Conflict, StoreUnavailable) as error:
                emit(_log, "lease.not_released", logging.WARNING, error=str(error))
        self._notify()

    async def _run(self) -> None:
        while not self._is_stopping:
            try:
                await self._step()
            except Conflict:
                # Another candidate was faster, or our last write succeeded without its reply.
                self._revision = 0
            except StoreUnavailable as error:
                emit(_log, "lease.store_unavailable", logging.WARNING, error=str(error))
            self._notify()
            await asyncio.sleep(self._ttl_s / 8)

    async def _step(self) -> None:
        """Renew the lease, or read it and take it if it is free. Writes only if it is due."""
        now = self._loop.time()
        if self._revision and self.is_held:
            if self._trusted_until - now > self._ttl_s * (_TRUSTED - 1 / 3):
                return
            await self._write(self._revision)
            return
        found = await self._store.get_raw(BUCKET, NAME)
        if found is None:
            await self._write(0)
            return
        data, revision = found
        self.holder, self._holder_machine = _holder_of(data)
        if revision != self._last_read[0]:
            self._last_read = revision, now
        if self.holder == self._owner or now - self._last_read[1] >= self._ttl_s:
            await self._write(revision)

    async def _write(self, revision: int) -> None:
        sent_at = self._loop.time()
        document = json.dumps({"holder": self._owner, "machine": self.machine}).encode()
        self._revision = await self._store.put_raw(BUCKET, NAME, document, revision)
        # The lease may have expired during the write. Notify of that first: work that was put off
        # meanwhile continues only on the notification of the renewal.
        self._notify()
        self._trusted_until = sent_at + self._ttl_s * _TRUSTED
        self.holder, self._holder_machine = self._owner, self.machine

    def _notify(self) -> None:
        """Log and report a change of `is_held` or `holder`, if there is one."""
        current = self.is_held, self.holder
        if current == self._notified:
            return
        if current[0] != self._notified[0]:
            event = "leader.began" if current[0] else "leader.ended"
            emit(_log, event, owner=self._owner, holder=self.holder)
        self._notified = current
        self._on_change()


def _holder_of(data: bytes) -> tuple[str, str]:
    """Return owner and machine; a gateway before these were written together has no machine."""
    try:
        document = json.loads(data)
        return str(document["holder"]), str(document.get("machine", "unknown"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "unreadable", "unknown"
