"""Metrics whose recording costs one addition, in Prometheus's text format 0.0.4.

A family (`Counter`, `Gauge`, `Histogram`, `Summary`) holds one child per combination of label
values. A hot path looks its child up once and then counts on it: ``child.value += 1``. Names are
written exactly as declared: `prometheus_client` would append ``_total`` to every counter, and
NVCF's autoscaler reads ``function_request`` without it (`docs/wire.md` §17.1).

Not thread-safe: everything runs in the event loop's thread.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import add
from typing import Generic, TypeVar

from runtime.process_metrics import process_lines

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
MAX_CHILDREN = 10_000
PART_LINES = 2000
OTHER = "other"
"""Every label's value in the series that collects combinations beyond a family's bound."""


class CounterChild:
    """One series of a counter: add to ``value``; the amount must not be negative."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: int | float = 0


class GaugeChild:
    """One series of a gauge: set ``value``, or set a function that returns it at each scrape."""

    __slots__ = ("_read", "value")

    def __init__(self) -> None:
        self.value: int | float = 0
        self._read: Callable[[], float] | None = None

    def set_function(self, read: Callable[[], float]) -> None:
        """Call ``read`` at each scrape instead of using ``value``."""
        self._read = read

    def current(self) -> float:
        """Return the value to expose."""
        return self.value if self._read is None else self._read()


class HistogramChild:
    """One series of a histogram, with counts per bucket (not cumulative).

    ``counts[i]`` is the number of observations above ``bounds[i - 1]`` and at most ``bounds[i]``;
    the last count is of those above every bound.
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
    """One series of a summary: for each observation add its value to ``sum`` and 1 to ``count``."""

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
        """``max_children`` bounds the number of series; 0 means `MAX_CHILDREN`."""
        self.name = name
        self._labels = tuple(labels)
        self._max_children = max_children or MAX_CHILDREN
        self._children: dict[tuple[str, ...], Child] = {}
        self._head = f"# HELP {name} {_escape_help(help_text)}\n# TYPE {name} {self.kind}\n"
        if not self._labels:
            self.child()

    def child(self, *label_values: str) -> Child:
        """Return the series with these label values; it is created at the first call.

        Beyond the bound, all new combinations share one series whose labels are `OTHER`. Raises
        ValueError for a wrong number of values.
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

    def lines(self, constant: str = "") -> Iterator[str]:
        """Yield the lines of the exposition, newlines included.

        ``constant`` is a list of label pairs, already encoded, that precede those of each series.
        """
        yield self._head
        # A copy: series may be made between two lines.
        for label_values, child in list(self._children.items()):
            labels = _pairs(zip(self._labels, label_values, strict=True))
            yield from self._series(",".join(filter(None, (constant, labels))), child)

    def _new_child(self) -> Child:
        raise NotImplementedError

    def _series(self, labels: str, child: Child) -> Iterator[str]:
        raise NotImplementedError


class Counter(Family[CounterChild]):
    """A value that only grows."""

    kind = "counter"
    _read: Callable[[], float] | None = None

    def set_function(self, read: Callable[[], float]) -> None:
        """Call ``read`` at each scrape for the value of a counter without labels."""
        self._read = read

    def _new_child(self) -> CounterChild:
        return CounterChild()

    def _series(self, labels: str, child: CounterChild) -> Iterator[str]:
        value = child.value if self._read is None else self._read()
        yield f"{self.name}{_brace(labels)} {_number(value)}\n"


class Gauge(Family[GaugeChild]):
    """A value that goes up and down."""

    kind = "gauge"

    def set_function(self, read: Callable[[], float]) -> None:
        """Call ``read`` at each scrape for the value of a gauge without labels."""
        self._children[()].set_function(read)

    def _new_child(self) -> GaugeChild:
        return GaugeChild()

    def _series(self, labels: str, child: GaugeChild) -> Iterator[str]:
        yield f"{self.name}{_brace(labels)} {_number(child.current())}\n"


Reading = tuple[tuple[str, ...], float]
"""Label values and the value of one series."""


class ScrapedGauge(Family[GaugeChild]):
    """A gauge whose series are read at each scrape: each exists as long as what it is about."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str],
        read: Callable[[], Iterable[Reading]],
        *,
        merge: Callable[[float, float], float] = add,
        max_children: int = 0,
    ) -> None:
        """``read`` yields the series; those beyond the bound become one by ``merge``."""
        super().__init__(name, help_text, labels, max_children=max_children)
        self._read = read
        self._merge = merge

    def lines(self, constant: str = "") -> Iterator[str]:
        """Yield the lines of the exposition, newlines included."""
        yield self._head
        rest: float | None = None
        for count, (label_values, value) in enumerate(self._read()):
            if count < self._max_children:
                yield self._line(constant, label_values, value)
            else:
                rest = value if rest is None else self._merge(rest, value)
        if rest is not None:
            yield self._line(constant, (OTHER,) * len(self._labels), rest)

    def _line(self, constant: str, label_values: tuple[str, ...], value: float) -> str:
        labels = _pairs(zip(self._labels, label_values, strict=True))
        joined = ",".join(filter(None, (constant, labels)))
        return f"{self.name}{_brace(joined)} {_number(value)}\n"


class ScrapedCounter(ScrapedGauge):
    """Values that only grow, read at each scrape."""

    kind = "counter"


class Histogram(Family[HistogramChild]):
    """Counts of observations by upper bound, and their sum. The bucket ``+Inf`` is implied."""

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
        """``buckets`` are inclusive upper bounds. Raises ValueError if they do not ascend."""
        self._bounds = tuple(float(bound) for bound in buckets)
        if not self._bounds or list(self._bounds) != sorted(set(self._bounds)):
            raise ValueError(f"{name}: bounds must ascend: {self._bounds}")
        super().__init__(name, help_text, labels, max_children=max_children)

    def _new_child(self) -> HistogramChild:
        return HistogramChild(self._bounds)

    def _series(self, labels: str, child: HistogramChild) -> Iterator[str]:
        before = f"{labels}," if labels else ""
        total = 0
        for bound, count in zip([*map(_number, self._bounds), "+Inf"], child.counts, strict=True):
            total += count
            yield f'{self.name}_bucket{{{before}le="{bound}"}} {total}\n'
        yield f"{self.name}_sum{_brace(labels)} {_number(child.sum)}\n"
        yield f"{self.name}_count{_brace(labels)} {total}\n"


class Summary(Family[SummaryChild]):
    """The sum and the count of observations, without quantiles."""

    kind = "summary"

    def _new_child(self) -> SummaryChild:
        return SummaryChild()

    def _series(self, labels: str, child: SummaryChild) -> Iterator[str]:
        yield f"{self.name}_sum{_brace(labels)} {_number(child.sum)}\n"
        yield f"{self.name}_count{_brace(labels)} {child.count}\n"


AnyFamily = Counter | Gauge | ScrapedGauge | Histogram | Summary


class MetricRegistry:
    """All families of a process, in the order of declaration, and its ``process_`` metrics."""

    def __init__(
        self, *, with_process: bool = True, constant: Mapping[str, str] | None = None
    ) -> None:
        """``constant`` are labels of every series except the ``process_`` metrics."""
        self._families: dict[str, AnyFamily] = {}
        self._constant = _pairs((constant or {}).items())
        self._has_process = with_process

    def counter(
        self, name: str, help_text: str, labels: Sequence[str] = (), *, max_children: int = 0
    ) -> Counter:
        """Declare a counter. Raises ValueError if the name is taken."""
        family = Counter(name, help_text, labels, max_children=max_children)
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
        """Expose a family created elsewhere. Raises ValueError if the name is taken."""
        if family.name in self._families:
            raise ValueError(f"metric {family.name} is declared twice")
        self._families[family.name] = family

    def exposition(self) -> bytes:
        """Return the body of the response to a scrape; its content type is `CONTENT_TYPE`."""
        return b"".join(self.parts())

    def parts(self) -> Iterator[bytes]:
        """Yield the exposition in parts of at most `PART_LINES` lines; one part may be made later.

        10,000 function versions have a million lines, for which a loop must not stand still.
        """
        lines = chain.from_iterable(
            family.lines(self._constant) for family in self._families.values()
        )
        while part := "".join(islice(lines, PART_LINES)):
            yield part.encode()
        if self._has_process:
            yield "".join(process_lines()).encode()


def _pairs(labels: Iterable[tuple[str, str]]) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in labels)


def _brace(labels: str) -> str:
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
