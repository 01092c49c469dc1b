"""What was made of bytes that repeat, such as heads: made twice, then looked up. Pure."""

from typing import Generic, TypeVar

Kept = TypeVar("Kept")

MAX_KEPT = 1024
MAX_BYTES = 4096
"""Longer bytes are never kept."""
MAX_ONCE = 8192


class Repeated(Generic[Kept]):
    """Keeps something for each of up to `MAX_KEPT` byte strings that came at least twice.

    Most that hold an id come only once: of these a hash alone is kept. ``known`` is what is kept. A
    full collection is emptied.
    """

    __slots__ = ("_once", "known")

    def __init__(self) -> None:
        self.known: dict[bytes, Kept] = {}
        self._once: set[int] = set()

    def has_come(self, block: bytes) -> bool:
        """Return whether ``block``, which is not known, has come before and is to be kept."""
        if len(block) > MAX_BYTES:
            return False
        mark = hash(block)
        if mark in self._once:
            self._once.discard(mark)
            return True
        if len(self._once) >= MAX_ONCE:
            self._once.clear()
        self._once.add(mark)
        return False

    def keep(self, block: bytes, kept: Kept) -> None:
        """Keep ``kept`` for the next time that ``block`` comes."""
        if len(self.known) >= MAX_KEPT:
            self.known.clear()
        self.known[block] = kept
