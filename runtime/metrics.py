"""Metrics that cost an addition on the hot path, in Prometheus's text format 0.0.4.

A family (`Counter`, `Gauge`, `Histogram`, `Summary`) holds one child per combination of label
values. Hot paths look their child up once and count on it: ``child.value += 1``. Names are exactly
as given: `prometheus_client` would append ``_total`` to every counter, and NVCF's autoscaler reads
``function_request`` without it (`spec/operations.md` §12). The ``process_`` metrics are its own.

One thread: the loop's.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
MAX_CHILDREN = 10_000
OTHER = "other"
"""The label value of everything beyond a family's bound."""


class CounterChild:
    """One series of a counter: add to ``value``, never less than 0."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: int | float = 0


class GaugeChild:
    """One series of a gauge: set ``value``, or give it a function that is asked when read."""

    __slots__ = ("_read", "value")

    def __init__(self) -> None:
        self.value: int | float = 0
        self._read: Callable[[], float] | None = None

    def set_function(self, read: Callable[[], float]) -> None:
        """Ask ``read`` at each scrape instead of ``value``."""
        self._read = read

    def current(self) -> float:
        return self.value if self._read is None else self._read()


class HistogramChild:
    """One series of a histogram: ``counts[i]`` observations at most ``bounds[i]``, not summed up.

    The last count is of those beyond every bound.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class SummaryChild:
    """One series of a summary: add to both, of what was observed ``sum`` and 1 to ``count``."""

    __slots__ = ("count", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum: int | float = 0


Child = TypeVar("Child", CounterChild, GaugeChild, HistogramChild, SummaryChild)


class Family(Generic[Child]):
    """One metric name and its children by label values."""

    kind = ""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str] = (), *, max_children: int = 0
    ) -> None:
        """``max_children`` of 0 means `MAX_CHILDREN`."""
        self.name = name
        self._labels = tuple(labels)
        self._max_children = max_children or MAX_CHILDREN
        self._children: dict[tuple[str, ...], Child] = {}
        self._head = f"# HELP {name} {_escape_help(help_text)}\n# TYPE {name} {self.kind}\n"
        if not self._labels:
            self.child()

    def child(self, *label_values: str) -> Child:
        """Return the series with these label values, made at first use.

        Beyond the bound every new combination shares one child, each label of which is `OTHER`.
        Raises ValueError for a wrong number of values.
        """
        found = self._children.get(label_values)
        if found is not None:
            return found
        if len(label_values) != len(self._labels):
            raise ValueError(f"{self.name} has the labels {self._labels}, got {label_values}")
        if len(self._children) >= self._max_children:
            label_values = (OTHER,) * len(self._labels)
            found = self._children.get(label_values)
            if found is not None:
                return found
        made = self._children[label_values] = self._new_child()
        return made

    def remove(self, *label_values: str) -> None:
        """Forget one series, if it is there: what it is about exists no longer."""
        self._children.pop(label_values, None)

    def lines(self, constant: str = "") -> Iterator[str]:
        """Yield the exposition, newlines included; ``constant`` are labels of every series."""
        yield self._head
        for label_values, child in self._children.items():
            labels = _pairs(zip(self._labels, label_values, strict=True))
            yield from self._series(",".join(filter(None, (constant, labels))), child)

    def _new_child(self) -> Child:
        raise NotImplementedError

    def _series(self, labels: str, child: Child) -> Iterator[str]:
        raise NotImplementedError


class Counter(Family[CounterChild]):
    """A sum that only grows."""

    kind = "counter"
    _read: Callable[[], float] | None = None

    def set_function(self, read: Callable[[], float]) -> None:
        """Ask ``read``, which only grows, at each scrape: for a counter without labels."""
        self._read = read

    def _new_child(self) -> CounterChild:
        return CounterChild()

    def _series(self, labels: str, child: CounterChild) -> Iterator[str]:
        value = child.value if self._read is None else self._read()
        yield f"{self.name}{_braced(labels)} {_number(value)}\n"


class Gauge(Family[GaugeChild]):
    """A value that goes up and down."""

    kind = "gauge"

    def set(self, value: float) -> None:
        """Set the only series of a gauge without labels."""
        self._children[()].value = value

    def set_function(self, read: Callable[[], float]) -> None:
        """Ask ``read`` at each scrape for the only series of a gauge without labels."""
        self._children[()].set_function(read)

    def _new_child(self) -> GaugeChild:
        return GaugeChild()

    def _series(self, labels: str, child: GaugeChild) -> Iterator[str]:
        yield f"{self.name}{_braced(labels)} {_number(child.current())}\n"


class Histogram(Family[HistogramChild]):
    """Counts by upper bound, ``+Inf`` added by itself, and their sum."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help_text: str,
        buckets: Sequence[float],
        labels: Sequence[str] = (),
        *,
        max_children: int = 0,
    ) -> None:
        """``buckets`` are the upper bounds, ascending, inclusive. Raises ValueError if not so."""
        self._bounds = tuple(float(bound) for bound in buckets)
        if not self._bounds or list(self._bounds) != sorted(set(self._bounds)):
            raise ValueError(f"{name}: bounds must ascend: {self._bounds}")
        super().__init__(name, help_text, labels, max_children=max_children)

    def observe(self, value: float) -> None:
        """Count into the only series of a histogram without labels."""
        self._children[()].observe(value)

    def _new_child(self) -> HistogramChild:
        return HistogramChild(self._bounds)

    def _series(self, labels: str, child: HistogramChild) -> Iterator[str]:
        before = f"{labels}," if labels else ""
        total = 0
        for bound, count in zip([*map(_number, self._bounds), "+Inf"], child.counts, strict=True):
            total += count
            yield f'{self.name}_bucket{{{before}le="{bound}"}} {total}\n'
        yield f"{self.name}_sum{_braced(labels)} {_number(child.sum)}\n"
        yield f"{self.name}_count{_braced(labels)} {total}\n"


class Summary(Family[SummaryChild]):
    """A sum and how many it is of, without quantiles."""

    kind = "summary"

    def _new_child(self) -> SummaryChild:
        return SummaryChild()

    def _series(self, labels: str, child: SummaryChild) -> Iterator[str]:
        yield f"{self.name}_sum{_braced(labels)} {_number(child.sum)}\n"
        yield f"{self.name}_count{_braced(labels)} {child.count}\n"


AnyFamily = Counter | Gauge | Histogram | Summary


class Registry:
    """All families of a process, in order of declaration, then its ``process_`` metrics."""

    def __init__(
        self, *, with_process: bool = True, constant: Mapping[str, str] | None = None
    ) -> None:
        """``constant`` are labels that every series has but those of the process."""
        self._families: dict[str, AnyFamily] = {}
        self._constant = _pairs((constant or {}).items())
        self._process = CollectorRegistry()
        if with_process:
            ProcessCollector(registry=self._process)

    def counter(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
        """Declare a counter. Raises ValueError if the name is taken."""
        family = Counter(name, help_text, labels)
        self.add(family)
        return family

    def gauge(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
        """Declare a gauge. Raises ValueError if the name is taken."""
        family = Gauge(name, help_text, labels)
        self.add(family)
        return family

    def histogram(
        self, name: str, help_text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        """Declare a histogram. Raises ValueError if the name is taken."""
        family = Histogram(name, help_text, buckets, labels)
        self.add(family)
        return family

    def summary(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Summary:
        """Declare a summary. Raises ValueError if the name is taken."""
        family = Summary(name, help_text, labels)
        self.add(family)
        return family

    def add(self, family: AnyFamily) -> None:
        """Show a family that somebody else has made. Raises ValueError if the name is taken."""
        if family.name in self._families:
            raise ValueError(f"metric {family.name} is declared twice")
        self._families[family.name] = family

    def names(self) -> list[str]:
        """Return the declared names."""
        return list(self._families)

    def exposition(self) -> bytes:
        """Return the answer to a scrape; its type is `CONTENT_TYPE`."""
        families, constant = self._families.values(), self._constant
        ours = "".join(line for family in families for line in family.lines(constant))
        return ours.encode() + generate_latest(self._process)


def _pairs(labels: Iterable[tuple[str, str]]) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in labels)


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(value)
