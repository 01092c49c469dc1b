"""Who leads: a lease in the store that one of several reconcilers holds.

The record names its holder. The holder writes it again every third of ``ttl_s``; another one that
sees the same revision for all of ``ttl_s``, by its own clock, replaces it. No clock is compared
with another machine's.

Fenced by time: the holder trusts its lease for three quarters of ``ttl_s`` only, counted from when
it *asked* for the last renewal. So it has stopped acting before anybody else can begin, even if it
was paused in between. Without the store nobody leads, and nothing is changed, until it is back.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Protocol

from gateway.errors import Conflict, StoreUnavailable
from runtime.tasks import spawn

BUCKET = "meta"
NAME = "leader"
TTL_S = 6.0
_TRUSTED = 0.75

_log = logging.getLogger("gateway.provision")


class Place(Protocol):
    """Where the lease is kept (`gateway.store.nats_kv.Store`).

    Every call may raise `StoreUnavailable`; writes raise `Conflict` when the revision is another.
    """

    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int: ...

    async def get_raw(self, bucket: str, name: str) -> tuple[bytes, int] | None: ...

    async def delete_raw(self, bucket: str, name: str, revision: int | None = None) -> int: ...


class LeaderLease:
    """One candidate. ``changed`` is called when it begins or ends to hold, or learns who does."""

    def __init__(
        self,
        place: Place,
        owner: str,
        changed: Callable[[], None],
        ttl_s: float = TTL_S,
    ) -> None:
        """``owner`` is unique among candidates, also among the lives of one."""
        self._place = place
        self._owner = owner
        self._changed = changed
        self._ttl_s = ttl_s
        self._loop = asyncio.get_running_loop()
        self._trusted_until = 0.0
        self._revision = 0
        self._seen = (0, 0.0)
        self._shown: tuple[bool, str] = (False, "")
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.holder = ""
        """Who was seen to hold it last; ourselves included."""

    @property
    def is_held(self) -> bool:
        """Whether we may act now."""
        return self._loop.time() < self._trusted_until

    @property
    def is_others(self) -> bool:
        """Whether another holds it, as far as is known."""
        return self.holder not in {"", self._owner}

    def start(self) -> None:
        """Begin to try for it, and to keep it."""
        self._task = spawn(self._run(), "provision.lease")

    async def stop(self) -> None:
        """Give it up at once, so that another need not wait; try no more."""
        # A flag as well: on Python 3.11 what is under `nats-py` can swallow a cancellation.
        self._is_stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        was_held, self._trusted_until = self.is_held, 0.0
        if was_held:
            try:
                await self._place.delete_raw(BUCKET, NAME, self._revision)
            except (Conflict, StoreUnavailable) as error:
                _log.warning("lease.not_released", extra={"fields": {"error": str(error)}})
        self._show()

    async def _run(self) -> None:
        while not self._is_stopping:
            try:
                await self._turn()
            except Conflict:
                # Somebody was faster, or our own last write came through without its answer.
                self._revision = 0
            except StoreUnavailable as error:
                _log.warning("lease.store_unavailable", extra={"fields": {"error": str(error)}})
            self._show()
            await asyncio.sleep(self._ttl_s / 8)

    async def _turn(self) -> None:
        now = self._loop.time()
        if self._revision and self.is_held:
            if self._trusted_until - now > self._ttl_s * (_TRUSTED - 1 / 3):
                return
            await self._write(self._revision)
            return
        found = await self._place.get_raw(BUCKET, NAME)
        if found is None:
            await self._write(0)
            return
        data, revision = found
        self.holder = _holder_of(data)
        if revision != self._seen[0]:
            self._seen = revision, now
        if self.holder == self._owner or now - self._seen[1] >= self._ttl_s:
            await self._write(revision)

    async def _write(self, revision: int) -> None:
        asked_at = self._loop.time()
        document = json.dumps({"holder": self._owner}).encode()
        self._revision = await self._place.put_raw(BUCKET, NAME, document, revision)
        # It may have ended while we waited: what was put off then must be told of the renewal.
        self._show()
        self._trusted_until = asked_at + self._ttl_s * _TRUSTED
        self.holder = self._owner

    def _show(self) -> None:
        shown = self.is_held, self.holder
        if shown == self._shown:
            return
        if shown[0] != self._shown[0]:
            event = "leader.began" if shown[0] else "leader.ended"
            _log.info(event, extra={"fields": {"owner": self._owner, "holder": self.holder}})
        self._shown = shown
        self._changed()


def _holder_of(data: bytes) -> str:
    try:
        return str(json.loads(data)["holder"])
    except (ValueError, KeyError, TypeError):
        return "unreadable"
