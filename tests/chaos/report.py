"""A history as text: its figures, and what led to each violation. Pure."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from tests.chaos.checks import CHECKS, Violation
from tests.chaos.history import History

TIMELINES = 3
"""Violations of one check and shape that are shown with their timeline; others have one line."""
LINES = 12
"""Further violations of one check and shape that are listed."""


_KNOWN_FIELDS = {
    *("ts", "level", "logger", "request_id"),
    *("function_id", "function_version_id", "nca_id"),
}


class Clock(NamedTuple):
    """The monotonic time of the load's start, and how much later Unix time is."""

    started_at: float
    unix_offset_s: float

    def text(self, at: float) -> str:
        """Return a monotonic time as seconds after the start."""
        return f"{at - self.started_at:+9.3f}"

    def monotonic_of(self, timestamp: str) -> float:
        """Return the monotonic time of a log line's ``ts``."""
        return datetime.fromisoformat(timestamp).timestamp() - self.unix_offset_s


Lines = Mapping[str, Sequence[str]]
"""The log lines about one request, by part."""


def figures(history: History, violations: Sequence[Violation], seed: int) -> str:
    """Return the table of figures."""
    calls = history.calls
    faults = Counter((fault.kind.value, fault.target) for fault in history.faults)
    targets = sorted({target for _, target in faults})
    kinds = sorted({kind for kind, _ in faults})
    outcomes = Counter((call.kind.value, call.outcome) for call in calls)
    columns = [name for name, _ in Counter(call.outcome for call in calls).most_common()]
    rows = sorted({kind for kind, _ in outcomes})
    by_check = Counter(violation.check for violation in violations)
    repeated = sum(len(runs) > 1 for runs in history.runs_of.values())
    parts = [
        f"seed {seed}: {len(calls)} calls, {len(history.runs)} runs, {repeated} calls run more "
        f"than once, {len(history.faults)} faults",
        _table(
            ("faults", *targets),
            [(kind, *(faults[kind, target] for target in targets)) for kind in kinds],
        ),
        _table(
            ("calls", "all", *columns),
            [
                (
                    kind,
                    sum(outcomes[kind, name] for name in columns),
                    *(outcomes[kind, name] for name in columns),
                )
                for kind in rows
            ],
        ),
        _table(
            ("after the last call", "is", "at most"),
            [
                (f"{gauge.part} {gauge.name}", f"{gauge.value:g}", f"{gauge.allowed:g}")
                for gauge in history.gauges
            ],
        ),
        _table(
            ("check", "violations"),
            [(check.__name__, by_check[check.__name__]) for check in CHECKS],
        ),
    ]
    return "\n\n".join(parts)


def findings(
    history: History, violations: Iterable[Violation], clock: Clock, lines: Mapping[int, Lines]
) -> str:
    """Return the violations of each check, the first of them with their timelines."""
    groups: dict[tuple[str, str], list[Violation]] = {}
    for violation in violations:
        groups.setdefault((violation.check, violation.shape), []).append(violation)
    found: list[str] = []
    for (check, shape), group in groups.items():
        found.append(f"\n== {check}{': ' if shape else ''}{shape}: {len(group)}")
        for violation in group[:TIMELINES]:
            found += ["", f"-- {violation.text}"]
            found += timeline(history, violation.numbers, clock, lines)
        rest = group[TIMELINES:]
        found += [f"-- {violation.text}" for violation in rest[:LINES]]
        if len(rest) > LINES:
            numbers = sorted({number for one in rest[LINES:] for number in one.numbers})
            found.append(f"-- and {len(rest) - LINES} more: calls {numbers}")
    return "\n".join(found)


def timeline(
    history: History, numbers: Sequence[int], clock: Clock, lines: Mapping[int, Lines]
) -> list[str]:
    """Return everything that is known about some calls, in order."""
    events: set[tuple[float, str]] = set()
    calls = [call for call in history.calls if call.number in numbers]
    for call in calls:
        who = f"{call.number} client   "
        what = f"{call.kind} by {call.gateway} to {call.function}, window {call.window_s:g} s"
        events.add((call.started_at, f"{who} begins {what}"))
        if call.head_at:
            events.add((call.head_at, f"{who} has head {call.status} {call.reason}".rstrip()))
        events.add((call.ended_at, f"{who} ends: {call.outcome}"))
        for fault in history.faults_during(call.started_at - 5.0, call.ended_at + 2.0, 0.0):
            events.add((fault.began_at, f"fault {fault}"))
            events.add((fault.ended_at, f"fault healed: {fault.kind} {fault.target}"))
        for part, texts in lines.get(call.number, {}).items():
            for text in texts:
                events.add(
                    (clock.monotonic_of(_stamp(text)), f"{call.number} {part}: {_short(text)}")
                )
    for run in (run for number in numbers for run in history.runs_of.get(number, [])):
        who, where = f"{run.number} inference", f"at {run.server} (pid {run.pid})"
        events.add((run.started_at, f"{who} starts {where}"))
        if run.first_at:
            events.add((run.first_at, f"{who} has first byte {where}"))
        if run.ended_at:
            events.add((run.ended_at, f"{who} {run.how} {where}"))
    return [f"   {clock.text(at)} {text}" for at, text in sorted(events)]


def _stamp(line: str) -> str:
    stamp: str = json.loads(line)["ts"]
    return stamp


def _short(line: str) -> str:
    """Return what a log line says, without what the timeline has already."""
    fields = json.loads(line)
    return " ".join(
        f"{name}={value}" for name, value in fields.items() if name not in _KNOWN_FIELDS
    )


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    texts = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    )
