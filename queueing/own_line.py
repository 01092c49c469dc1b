"""What one process knows of its own requests in one queue, without asking the broker.

Requests are leased in the order of their sequences, so none waits up to the highest sequence that
is known to be leased, or before one that was answered. Pure: ``now`` and the times of requests are
loop time in seconds.
"""

from typing import Generic, Protocol, TypeVar

from queueing.interface import OwnLine
from queueing.position import Sequences

_OLDEST_KNOWN_S = 0.05
"""So long `RequestLine.has_waited` believes what it found: its answer is late by no more."""


class Stored(Protocol):
    """A request that the broker has stored; ``at`` is when it was published."""

    at: float


R = TypeVar("R", bound=Stored)


class RequestLine(Generic[R]):
    """The requests of this process in the queue of one version.

    ``highest`` is the highest sequence that the queue is known to have used, since ``highest_at``,
    ``delivered`` the highest one known to be leased. ``by_sequence`` has the requests that the
    broker holds; ``unacknowledged`` counts those whose publish is not decided, ``leased_early``
    those of them that a worker has leased already. ``answered_at`` is when the request was
    published that was answered last, ``answered_sequence`` the highest sequence that was answered,
    ``oldest_at`` the same for the one that waited for longest when that was last looked at, at
    ``oldest_read_at``.
    """

    __slots__ = (
        "answered_at",
        "answered_sequence",
        "by_sequence",
        "delivered",
        "highest",
        "highest_at",
        "leased_early",
        "oldest_at",
        "oldest_read_at",
        "sequences",
        "unacknowledged",
    )

    def __init__(self) -> None:
        self.answered_at = 0.0
        self.answered_sequence = 0
        self.oldest_at = self.oldest_read_at = 0.0
        self.highest = self.delivered = 0
        self.highest_at = 0.0
        self.sequences = Sequences()
        self.by_sequence: dict[int, R] = {}
        self.unacknowledged = self.leased_early = 0

    def store(self, request: R, sequence: int, now: float) -> None:
        """The broker holds ``request`` under ``sequence``."""
        if sequence > self.highest:
            self.highest = sequence
            self.highest_at = now
        self.by_sequence[sequence] = request
        self.sequences.add(sequence)

    def remove(self, sequence: int) -> None:
        """The broker holds a request no more, if it did."""
        if self.by_sequence.pop(sequence, None) is not None:
            self.sequences.remove(sequence)

    def take_all(self) -> list[R]:
        """Remove and return all requests: the queue has lost them, and counts anew."""
        lost = list(self.by_sequence.values())
        self.by_sequence.clear()
        self.sequences.clear()
        self.answered_sequence = 0
        self.highest = self.delivered = 0
        return lost

    def answered(self, request: R, sequence: int) -> None:
        """A worker responds to a request; ``sequence`` is 0 if the broker does not hold it."""
        self.answered_at = request.at
        self.answered_sequence = max(self.answered_sequence, sequence)

    def leased(self) -> int:
        """Return the highest sequence that is known to have been leased."""
        return max(self.delivered, self.answered_sequence)

    def waiting(self) -> int:
        """Return how many of the requests that the broker holds may wait for a lease."""
        return self.sequences.between(self.leased(), self.highest + 1)

    def has_waiting(self) -> bool:
        """Return whether a request may be waiting for a lease."""
        if self.unacknowledged > self.leased_early:
            return True
        if not self.by_sequence:
            return False
        leased = self.leased()
        return self.highest > leased and self.sequences.between(leased, self.highest + 1) > 0

    def has_waited(self, seconds: float, now: float) -> bool:
        """Return whether a request may have waited for a lease for ``seconds``."""
        if not self.by_sequence:
            return False
        latest = now - seconds
        if self.answered_at >= latest:
            return False
        if now - self.oldest_read_at >= _OLDEST_KNOWN_S:
            # Slow with many requests: a dictionary finds its first entry behind all removed ones.
            self.oldest_at = next(iter(self.by_sequence.values())).at
            self.oldest_read_at = now
        return self.oldest_at <= latest

    def oldest_waiting_at(self, default: float) -> float:
        """Return when the first request that waits was published, ``default`` if none does."""
        leased = self.leased()
        if not self.sequences.between(leased, self.highest + 1):
            return default
        waiting = (one.at for sequence, one in self.by_sequence.items() if sequence > leased)
        return next(waiting, default)

    def own_line(self, delivered: int, published: int) -> OwnLine:
        """Return this knowledge; ``delivered`` is a sequence that was leased."""
        waiting = self.sequences.between(max(delivered, self.answered_sequence), self.highest + 1)
        return OwnLine(self.highest, self.answered_sequence, published, waiting)
