"""One process's view of a bucket of calls that all gateway processes take from.

What is shared is one number for each rate: when the bucket will be full again, in Unix nanoseconds.
It lies further in the future the more calls were taken, so nothing has to be written while the
bucket fills, and clocks that differ by a moment shift the limit by that moment once, not its rate.
A process takes calls by replacing the numbers on condition that they are still those it read:

    claim -> written    the calls are this process's
          -> lost       another process was faster: read again, claim again
          -> alone      the numbers cannot be reached: this process counts for itself, and adds what
                        it took to the shared numbers with its next claim

So at most as many calls are accepted as the bucket had, however many processes share it. A process
takes a portion in advance, its ``stock``, so that not every call waits for a claim; what it does
not use it gives back. Pure: times are arguments, Unix nanoseconds. The I/O is in
`gateway.dispatch.rate_limits`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from gateway.domain.rate_limit import Rate

FullAt = tuple[int, ...]
"""For each rate, when its bucket is full again; the past means full."""

_PORTIONS = 160
"""A portion is this part of the calls of the smallest rate: what four processes hold, and lose if
they are killed, is 2.5 % of them."""
_MAX_PORTION = 4096
_SPACING_NS = 50_000_000
"""The most by which a process leaves others the turn before it claims from an empty bucket."""


def available(rates: Sequence[Rate], full_at: FullAt, now_ns: int) -> int:
    """Return how many calls the bucket has now."""
    return max(
        min(
            rate.calls - -(-max(full_ns - now_ns, 0) // rate.interval_ns)
            for rate, full_ns in zip(rates, full_at, strict=True)
        ),
        0,
    )


def taken(rates: Sequence[Rate], full_at: FullAt, count: int, now_ns: int) -> FullAt:
    """Return the bucket without ``count`` calls; a negative number puts calls back."""
    return tuple(
        max(full_ns, now_ns) + count * rate.interval_ns
        for rate, full_ns in zip(rates, full_at, strict=True)
    )


def slowest(rates: Sequence[Rate], full_at: FullAt, now_ns: int) -> tuple[int, Rate]:
    """Return in how many nanoseconds the bucket has a call, and the rate that decides it."""
    return max(
        (max(full_ns - (rate.calls - 1) * rate.interval_ns - now_ns, 0), rate)
        for rate, full_ns in zip(rates, full_at, strict=True)
    )


def portion_of(rates: Sequence[Rate]) -> int:
    """Return how many calls a process takes in advance."""
    return min(min(rate.calls for rate in rates) // _PORTIONS, _MAX_PORTION)


def encode(full_at: FullAt) -> bytes:
    """Return the shared numbers as decimal digits, separated by spaces."""
    return b" ".join(b"%d" % full_ns for full_ns in full_at)


def decode(data: bytes, count: int) -> FullAt | None:
    """Return ``count`` shared numbers, `None` if ``data`` is none such."""
    parts = data.split(b" ")
    if len(parts) != count or not all(part.isdigit() and len(part) < 20 for part in parts):
        return None
    return tuple(map(int, parts))


class Claim(NamedTuple):
    """A write that takes so many calls if the stored revision is still ``revision``."""

    calls: int
    data: bytes
    revision: int
    full_at: FullAt


class SharedBucket:
    """One bucket, as this process knows it.

    ``stock`` are calls that this process has taken and not used. ``used_ns`` is when a call was
    last asked for. ``is_known`` becomes false when the shared numbers have to be read.
    """

    __slots__ = (
        "_alone",
        "_alone_from",
        "_empty_until_ns",
        "_full_at",
        "_is_contended",
        "_portion",
        "_revision",
        "is_known",
        "rates",
        "stock",
        "used_ns",
    )

    def __init__(self, rates: tuple[Rate, ...], *, is_exact: bool) -> None:
        """``is_exact``: take nothing in advance."""
        self.rates = rates
        self.stock = 0
        self.used_ns = 0
        self.is_known = False
        self._portion = 0 if is_exact else portion_of(rates)
        self._revision = 0
        self._full_at: FullAt = (0,) * len(rates)
        self._empty_until_ns = 0
        self._is_contended = False
        self._alone: FullAt | None = None
        self._alone_from: FullAt = self._full_at

    def take(self, now_ns: int) -> bool:
        """Take one call from the stock; return whether there was one."""
        self.used_ns = now_ns
        if not self.stock:
            return False
        self.stock -= 1
        return True

    def put_back(self) -> None:
        """Return one call that was taken and is not made."""
        self.stock += 1

    def is_empty(self, now_ns: int) -> bool:
        """Whether nothing is left here, and it is known that a claim would take nothing now."""
        return not self.stock and now_ns < self._empty_until_ns

    def is_low(self, now_ns: int) -> bool:
        """Whether it is time to take the next portion."""
        return 2 * self.stock < self._portion and now_ns >= self._empty_until_ns

    def wait(self, now_ns: int) -> tuple[int, Rate]:
        """Return in how many nanoseconds there is a call, and the rate that decides it."""
        return slowest(self.rates, self._alone or self._full_at, now_ns)

    def read(self, stored: tuple[bytes, int] | None) -> None:
        """Take the shared numbers and their revision.

        `None`: there are none. Then nobody has taken a call, or the broker has lost them: what this
        process knows is kept.
        """
        if stored is None:
            self._revision = 0
        else:
            data, self._revision = stored
            self._full_at = decode(data, len(self.rates)) or (0,) * len(self.rates)
        self.is_known = True

    def claim(self, waiting: int, now_ns: int) -> Claim | None:
        """Return the write that takes calls for ``waiting`` ones, and the next portion.

        `None` if the bucket is empty. `is_known` must be true.
        """
        base = self._with_debt(now_ns)
        wanted = waiting + max(self._portion - self.stock, 0)
        count = min(wanted, available(self.rates, base, now_ns))
        if count < wanted:
            self._note_empty(taken(self.rates, base, count, now_ns), now_ns)
        if not count and self._alone is None:
            return None
        return self._claim(count, base, now_ns)

    def surrender(self, now_ns: int) -> Claim:
        """Empty the stock, and return the write that puts it back. `is_known` must be true."""
        count, self.stock = self.stock, 0
        return self._claim(-count, self._with_debt(now_ns), now_ns)

    def sent(self) -> None:
        """A write is under way. If it is never said what became of it, its calls are lost."""
        self.is_known = False

    def written(self, claim: Claim, revision: int) -> None:
        """The write of ``claim`` was accepted and has this revision."""
        self.stock += max(claim.calls, 0)
        self.is_known = True
        self._full_at = claim.full_at
        self._revision = revision
        self._alone = None
        self._is_contended = False

    def lost(self, claim: Claim) -> None:
        """Another process wrote in between: read again before the next claim."""
        self.stock += max(-claim.calls, 0)
        self._is_contended = True

    def take_alone(self, waiting: int, now_ns: int) -> None:
        """Take calls for ``waiting`` ones without the others: the shared numbers are away."""
        if self._alone is None:
            self._alone = self._alone_from = self._full_at
        count = min(waiting, available(self.rates, self._alone, now_ns))
        self._alone = taken(self.rates, self._alone, count, now_ns)
        self.stock += count
        self.is_known = False
        if count < waiting:
            self._empty_until_ns = now_ns + slowest(self.rates, self._alone, now_ns)[0]

    def _claim(self, count: int, base: FullAt, now_ns: int) -> Claim:
        full_at = taken(self.rates, base, count, now_ns)
        return Claim(count, encode(full_at), self._revision, full_at)

    def _with_debt(self, now_ns: int) -> FullAt:
        """Return the shared numbers, with what was taken alone and has not filled up since."""
        if self._alone is None:
            return self._full_at
        return tuple(
            max(full_ns, now_ns) + max(alone_ns - max(from_ns, now_ns), 0)
            for full_ns, alone_ns, from_ns in zip(
                self._full_at, self._alone, self._alone_from, strict=True
            )
        )

    def _note_empty(self, full_at: FullAt, now_ns: int) -> None:
        """Remember until when the bucket is empty.

        Processes that compete for an empty bucket would ask at each call that it gains, and most
        would ask in vain: they let a portion gather.
        """
        wait_ns, rate = slowest(self.rates, full_at, now_ns)
        if self._is_contended:
            wait_ns += min(self._portion * rate.interval_ns, _SPACING_NS)
        self._empty_until_ns = now_ns + wait_ns
