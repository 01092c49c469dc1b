"""The requests of a version that were cancelled lately, in a worker.

A cancel may come before the request that it is about.
"""

from collections.abc import Callable

_MAX_CANCELS = 10_000
_MEMORY_S = 300.0


class CancelMemory:
    """The ids of cancelled requests, for `_MEMORY_S`, at most `_MAX_CANCELS` of them."""

    __slots__ = ("_clock", "ids")

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` returns seconds."""
        self._clock = clock
        self.ids: dict[str, float] = {}

    def add(self, request_id: str) -> None:
        """Remember a cancelled request."""
        now, ids = self._clock(), self.ids
        ids.pop(request_id, None)
        ids[request_id] = now
        oldest = next(iter(ids))
        while len(ids) > _MAX_CANCELS or now - ids[oldest] > _MEMORY_S:
            del ids[oldest]
            oldest = next(iter(ids))
