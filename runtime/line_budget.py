"""A bound on log lines that outsiders can cause: so many per second for each key. Pure."""

from collections import Counter


class LineBudget:
    """Counts lines by key, and what was left out, second by second.

    ``most`` is how many lines with one key one second may have. There must be few keys.
    """

    __slots__ = ("_left_out", "_most", "_second", "_taken")

    def __init__(self, most: int) -> None:
        self._most = most
        self._second = 0
        self._taken: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def begin(self, second: int) -> list[tuple[str, int]]:
        """Go on to ``second``; return keys and numbers of lines that were left out before it.

        Each number is returned once.
        """
        if second == self._second:
            return []
        self._second = second
        self._taken.clear()
        left_out, self._left_out = self._left_out, Counter()
        return sorted(left_out.items())

    def takes(self, key: str) -> bool:
        """Whether one more line with ``key`` is to be written; it counts as left out if not."""
        if self._taken[key] >= self._most:
            self._left_out[key] += 1
            return False
        self._taken[key] += 1
        return True
