"""Medians and quantiles, without interpolation: every number in the table is one that occurred."""

from collections.abc import Sequence
from typing import NamedTuple


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank quantile of values in ascending order; ``share`` in (0, 1]."""
    if not ordered:
        raise ValueError("no values")
    rank = -int(-len(ordered) * share // 1)  # the ceiling, so that share 1 is the last
    return ordered[max(rank, 1) - 1]


class Spread(NamedTuple):
    """The median of the rounds and their range. Of an even number of rounds: the lower median."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    ordered = sorted(values)
    return Spread(quantile(ordered, 0.5), ordered[0], ordered[-1])
