"""Medians and quantiles without interpolation: every number in the table is a measured value."""

from collections.abc import Sequence
from typing import NamedTuple


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank quantile of values in ascending order; ``share`` in (0, 1]."""
    if not ordered:
        raise ValueError("no values")
    rank = -int(-len(ordered) * share // 1)  # rounded up, so that share 1 is the last value
    return ordered[max(rank, 1) - 1]


class Spread(NamedTuple):
    """The median and range of the rounds; for an even number of rounds, the lower median."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    ordered = sorted(values)
    return Spread(quantile(ordered, 0.5), ordered[0], ordered[-1])
