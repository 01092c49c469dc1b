"""Positions of requests, computed from the sequence numbers of a queue.

The broker numbers the requests of a queue with ascending sequences. Every gateway process keeps
the sequences of its own outstanding requests of a version in `Sequences`. The highest sequence ever
leased separates leased requests from waiting ones, so the position of a request is 1 + the number
of sequences between the two, summed over all processes. Nothing is stored in the broker.

This module is the arithmetic; `queueing.nats.positions` asks the broker and makes the sum.
"""

from bisect import bisect_left, bisect_right, insort

_COMPACT_AT = 64


class Sequences:
    """The sequences of one process's outstanding requests in one queue, ascending.

    Adding costs an append, removing an insertion into the (short) list of removed sequences,
    counting two binary searches in each list. The list holds at most twice as many sequences as
    there are requests.
    """

    __slots__ = ("_removed", "_sequences")

    def __init__(self) -> None:
        self._sequences: list[int] = []
        self._removed: list[int] = []

    def __len__(self) -> int:
        return len(self._sequences) - len(self._removed)

    @property
    def stored(self) -> int:
        """How many sequences are stored, removed ones included."""
        return len(self._sequences)

    def add(self, sequence: int) -> None:
        """Add the sequence of a published request, which must not have been added before."""
        sequences = self._sequences
        if not sequences or sequence > sequences[-1]:
            sequences.append(sequence)
        else:
            insort(sequences, sequence)

    def remove(self, sequence: int) -> None:
        """Remove the sequence of a request that has left the queue; it must have been added."""
        removed = self._removed
        insort(removed, sequence)
        if len(removed) >= _COMPACT_AT and 2 * len(removed) >= len(self._sequences):
            gone = set(removed)
            self._sequences = [kept for kept in self._sequences if kept not in gone]
            self._removed = []

    def clear(self) -> None:
        """Remove everything: the queue was lost and counts from 1 again."""
        self._sequences = []
        self._removed = []

    def between(self, delivered: int, sequence: int) -> int:
        """Return how many requests have a sequence above ``delivered`` and below ``sequence``."""
        if sequence <= delivered:
            return 0
        return _between(self._sequences, delivered, sequence) - _between(
            self._removed, delivered, sequence
        )


def _between(numbers: list[int], low: int, high: int) -> int:
    return bisect_left(numbers, high) - bisect_right(numbers, low)


def position(delivered: int, sequence: int, ahead: int) -> int:
    """Return the position of a request: 1 = next to be leased, 0 = already leased.

    ``delivered`` is the highest sequence ever leased, ``sequence`` the request's own, ``ahead``
    the sum of `Sequences.between` over all processes.
    """
    return 0 if sequence <= delivered else ahead + 1
