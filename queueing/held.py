"""Leases that wait in the worker for a slot.

With short calls and a line, a pull for each freed slot would cost the broker as much as the rest of
the call, and leave the slot idle for a round trip. So a worker pulls a few requests more than it
has free slots: as many as it runs in `_AHEAD_S`. They are held until a slot is free, for
`_MAX_HELD_S` at most, then given back, as when the calls have become longer.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from queueing.interface import Lease

_AHEAD_S = 0.004
_MAX_HELD_S = 0.05
_MAX_AHEAD = 16
"""Other workers may have free slots meanwhile, and each request may be of several MiB."""


class HeldLeases:
    """Holds leases in their order, each for a bounded time.

    ``waiting`` has them with the times at which they came; ``ahead`` is how many requests may be
    pulled for slots that are not free yet, ``begun`` counts those that got a slot since the last
    `measure`, ``lapsed`` those that were dropped.
    """

    __slots__ = (
        "_call_later",
        "_clock",
        "_may_be_over",
        "_timer",
        "ahead",
        "begun",
        "lapsed",
        "waiting",
    )

    def __init__(self, clock: Callable[[], float], may_be_over: Callable[[], bool]) -> None:
        """``may_be_over`` tells whether leases may be other workers' by now."""
        self._clock = clock
        self._may_be_over = may_be_over
        self._call_later = asyncio.get_running_loop().call_later
        self._timer: asyncio.TimerHandle | None = None
        self.waiting: deque[tuple[float, Lease]] = deque()
        self.ahead = self.begun = self.lapsed = 0

    def measure(self, seconds: float) -> None:
        """Compute ``ahead`` from what got a slot in the last ``seconds``, which are above 0."""
        self.ahead = min(int(self.begun / seconds * _AHEAD_S), _MAX_AHEAD)
        self.begun = 0

    def has_room(self) -> bool:
        """Whether one more may be held."""
        return len(self.waiting) < _MAX_AHEAD

    def hold(self, lease: Lease, now: float) -> None:
        """Keep a lease that came ``now``, by the clock, until there is a slot for it."""
        self.waiting.append((now, lease))
        if self._timer is None:
            self._timer = self._call_later(_MAX_HELD_S, self._check)

    def give_back(self) -> None:
        """End all: the requests were not begun."""
        while self.waiting:
            self.waiting.popleft()[1].nak()

    def drop(self) -> None:
        """Forget all: they may be other workers' by now."""
        self.lapsed += len(self.waiting)
        self.waiting.clear()

    def _check(self) -> None:
        """Give back what was held for too long."""
        self._timer = None
        if self._may_be_over():
            self.drop()
        waiting, now = self.waiting, self._clock()
        while waiting and now - waiting[0][0] >= _MAX_HELD_S:
            self.ahead = 0
            waiting.popleft()[1].nak()
        if waiting:
            left_s = _MAX_HELD_S - (now - waiting[0][0])
            self._timer = self._call_later(left_s, self._check)
