"""Finds out that a worker stood still, or its connection did, and its leases may be over.

A process that stood still (SIGSTOP, a paused machine) finds messages in its socket whose leases are
over and belong to others by now; so does one whose connection was cut off for a while. What arrives
before the next round trip to the broker is to be dropped: an end would end the lease of another
worker. After a shorter standstill all leases are renewed, and once more after that round trip:
those that waited in the socket have lost as much of their time.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from runtime.tasks import spawn

WATCH_S = 0.25
"""The interval between two calls of `Standstill.watch`."""
_DEFAULT_LEASE_S = 30.0
_STANDSTILL = 0.75
"""The part of a lease for which the process may stand still: later its leases may be over."""
_PAUSE_S = 1.0
"""After so long a standstill, or a third of that part if it is less, the leases are renewed.

But not before a look was left out.
"""
_SILENT_HEARTBEATS = 1.5
"""And after a silence of the connection of so many intervals between heartbeats."""
_RENEWAL = 0.4
"""The part of a lease after which it is renewed, if that was not asked for before."""

# Goes on while the machine is suspended, which the loop's clock does not.
boot_clock_s = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Watched(Protocol):
    """The worker's side of a queue."""

    def is_silent_usual(self) -> bool:
        """Whether the broker need not send anything now."""

    def read_bytes(self) -> int:
        """Return how much was read so far."""

    def heartbeat_s(self) -> float:
        """Return the interval in which something arrives from the broker, otherwise."""

    async def read_all(self) -> None:
        """Return when all has been read that was sent before, or the link is lost."""

    def stood_still(self, seconds: float) -> None:
        """Leases may be over: drop what was not begun."""

    def all_read(self) -> None:
        """After `stood_still`: what arrives from now on is new."""

    def renew_all(self) -> None:
        """Renew all leases."""


class Standstill:
    """Watches for standstills. ``max_s`` is how long one may be before leases may be over.

    ``read_at`` is when all messages had been read that were sent before, by ``clock``.
    """

    def __init__(
        self, watched: Watched, name: str, clock: Callable[[], float] = boot_clock_s
    ) -> None:
        """``clock`` returns seconds that also pass while the machine is suspended.

        ``name`` is of the queue, for the names of tasks.
        """
        self._watched = watched
        self._name = name
        self._clock = clock
        self._lease_s = _DEFAULT_LEASE_S
        self.max_s = _STANDSTILL * _DEFAULT_LEASE_S
        self.read_at = self._watched_at = self._renewed_at = clock()
        self._read_bytes = 0
        self._is_reading_up = self._is_catching_up = False

    def start(self) -> None:
        """Begin to watch now."""
        self.read_at = self._watched_at = self._clock()

    def set_lease(self, seconds: float) -> None:
        """Set the duration of leases."""
        self._lease_s = seconds
        self.max_s = _STANDSTILL * seconds

    def may_be_over(self) -> bool:
        """Whether so much time has passed since all messages were read that a lease may be over.

        Until then none was in the socket whose lease was not new.
        """
        return self._clock() - self.read_at >= self.max_s

    def renewed(self) -> None:
        """The leases were renewed."""
        self._renewed_at = self._watched_at

    def watch(self) -> float:
        """Remember that all was read up to now, or find out that this was too long ago.

        To be called every `WATCH_S`. While something is expected heartbeats come, so a connection
        that brings nothing may be cut off. Returns the time since the last call, in seconds.
        """
        now = self._clock()
        paused_s, self._watched_at = now - self._watched_at, now
        silent_s = now - self.read_at
        read_bytes = self._watched.read_bytes()
        has_read = self._watched.is_silent_usual() or read_bytes != self._read_bytes
        self._read_bytes = read_bytes
        if self._is_reading_up:
            return paused_s
        if silent_s >= self.max_s:
            self._is_reading_up = True
            spawn(self._read_up(), f"standstill-{self._name}")
        elif paused_s >= max(min(_PAUSE_S, self.max_s / 3), 2 * WATCH_S) or (
            has_read and silent_s >= _SILENT_HEARTBEATS * self._watched.heartbeat_s()
        ):
            if not self._is_catching_up:
                self._is_catching_up = True
                spawn(self._catch_up(), f"pause-{self._name}")
        elif has_read and not self._is_catching_up:
            self.read_at = now
        if now - self._renewed_at >= _RENEWAL * self._lease_s:
            self._renew_all()
        return paused_s

    async def _read_up(self) -> None:
        """Drop what waits in the socket: it was sent before this round trip."""
        stood_s = self._clock() - self.read_at
        self._watched.stood_still(stood_s)
        self._renew_all()
        await self._watched.read_all()
        self.read_at = self._clock()
        self._is_reading_up = False
        self._watched.all_read()

    async def _catch_up(self) -> None:
        """Renew the leases after a short standstill, also those that waited in the socket."""
        self._renew_all()
        await self._watched.read_all()
        self._is_catching_up = False
        if not self._is_reading_up and not self.may_be_over():
            self.read_at = self._clock()
            self._renew_all()

    def _renew_all(self) -> None:
        self.renewed()
        self._watched.renew_all()
