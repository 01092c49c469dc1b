"""A timer wheel: many deadlines served by one repeating tick.

Most deadlines are distant and are cancelled before they are due, so each costs one dictionary entry
instead of a timer in the event loop's heap. Pure: time is an argument, in seconds of any one clock.
"""

from math import floor
from typing import Generic, Protocol, TypeVar

IDLE = -1
"""The ``slot`` of an owner that is not scheduled."""


class TimerOwner(Protocol):
    """An object with a deadline, hashed by identity.

    ``slot`` starts as `IDLE` and is written only by `Timers`. ``due_at`` is the deadline, ``None``
    if there is none. An owner may itself clear ``due_at`` or move it *later*; `Timers` notices when
    the earlier time has come.
    """

    due_at: float | None
    slot: int


Owner = TypeVar("Owner", bound=TimerOwner)


class Timers(Generic[Owner]):
    """Owners by the tick in which they are due.

    `schedule` and `cancel` take constant time, and a cancelled owner leaves no entry behind. An
    owner is never returned before its deadline, and late by at most the time between two calls of
    `advance`.
    """

    __slots__ = ("_count", "_next", "_slots", "_ticks_per_s")

    def __init__(self, tick_s: float = 0.1, now: float = 0.0) -> None:
        self._ticks_per_s = 1.0 / tick_s
        self._next = floor(now * self._ticks_per_s)
        self._slots: dict[int, dict[Owner, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"Timers({self._count} owners in {len(self._slots)} ticks)"

    def schedule(self, at: float, owner: Owner) -> None:
        """Make ``owner`` due at ``at``; replaces its earlier deadline."""
        if owner.slot != IDLE:
            self._take_out(owner)
        owner.due_at = at
        slot = floor(at * self._ticks_per_s)
        if slot < self._next:
            slot = self._next
        owner.slot = slot
        owners = self._slots.get(slot)
        if owners is None:
            owners = self._slots[slot] = {}
        owners[owner] = None
        self._count += 1

    def cancel(self, owner: Owner) -> None:
        """Remove the deadline of ``owner``; does nothing if it has none."""
        owner.due_at = None
        if owner.slot != IDLE:
            self._take_out(owner)

    def advance(self, now: float) -> list[Owner]:
        """Return the owners due at ``now``, ``due_at`` cleared, in the order of their ticks."""
        current = floor(now * self._ticks_per_s)
        slots = self._slots
        passed = range(self._next, current + 1)
        if len(passed) > len(slots):
            passed_slots = sorted(slot for slot in slots if slot <= current)
        else:
            passed_slots = [slot for slot in passed if slot in slots]
        self._next = max(self._next, current)
        due: list[Owner] = []
        for slot in passed_slots:
            for owner in list(slots[slot]):
                at = owner.due_at
                if at is not None and at > now:
                    if slot < current or at * self._ticks_per_s >= slot + 1:
                        self.schedule(at, owner)
                    continue
                self._take_out(owner)
                if at is not None:
                    owner.due_at = None
                    due.append(owner)
        return due

    def _take_out(self, owner: Owner) -> None:
        owners = self._slots[owner.slot]
        del owners[owner]
        if not owners:
            del self._slots[owner.slot]
        owner.slot = IDLE
        self._count -= 1
