"""Places in line from stream sequences: arithmetic only.

Every gateway process keeps the sequences of its own unsettled requests of a version in a `Line`.
The consumer's delivered sequence parts those leased from those waiting, so the place of a request
is 1 + how many sequences, over all processes, lie between the two. Nothing is recorded anywhere.
"""

from bisect import bisect_left, bisect_right, insort

_COMPACT_AT = 64


class Line:
    """The sequences of one process's unsettled requests in one queue, in order.

    Adding costs an append, removing an insertion into the (short) list of those removed, counting
    two binary searches in each. At most twice as many sequences are kept as are in line.
    """

    __slots__ = ("_removed", "_sequences")

    def __init__(self) -> None:
        self._sequences: list[int] = []
        self._removed: list[int] = []

    def __len__(self) -> int:
        return len(self._sequences) - len(self._removed)

    @property
    def last(self) -> int:
        """The highest sequence seen and not yet forgotten, 0 when there is none."""
        return self._sequences[-1] if self._sequences else 0

    def add(self, sequence: int) -> None:
        """Put a published request in line. Each sequence at most once."""
        sequences = self._sequences
        if not sequences or sequence > sequences[-1]:
            sequences.append(sequence)
        else:
            insort(sequences, sequence)

    def remove(self, sequence: int) -> None:
        """Take out a request that was answered or withdrawn. Only what was added, and once."""
        removed = self._removed
        insort(removed, sequence)
        if len(removed) >= _COMPACT_AT and 2 * len(removed) >= len(self._sequences):
            gone = set(removed)
            self._sequences = [one for one in self._sequences if one not in gone]
            self._removed = []

    def clear(self) -> None:
        """Forget everything: the queue was lost and counts from 1 again."""
        self._sequences = []
        self._removed = []

    def between(self, delivered: int, sequence: int) -> int:
        """Return how many in line were published after ``delivered`` and before ``sequence``."""
        if sequence <= delivered:
            return 0
        return _between(self._sequences, delivered, sequence) - _between(
            self._removed, delivered, sequence
        )


def _between(numbers: list[int], low: int, high: int) -> int:
    return bisect_left(numbers, high) - bisect_right(numbers, low)


def place(delivered: int, sequence: int, ahead: int) -> int:
    """Return the place in line: 1 = next to be leased, 0 = leased already.

    ``ahead`` is `Line.between` summed over all processes.
    """
    return 0 if sequence <= delivered else ahead + 1
