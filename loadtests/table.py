"""The results as a table for people and as a JSON document for programs. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from loadtests.bars import BarOutcome, Verdict
from loadtests.figures import (
    BEFORE,
    FIGURES,
    GATEWAY,
    ON_NATS,
    ON_REDIS,
    ROWS,
    Figure,
    Results,
)
from loadtests.stats import Spread

_FAILED = "failed"
_NONE = "-"
_COMPARISONS = (
    ("This build, times the one before", GATEWAY, BEFORE),
    ("Queue on Redis, times that on NATS", ON_REDIS, ON_NATS),
)


def render(results: Results, verdicts: Sequence[Verdict]) -> str:
    """Return the table: figures, comparisons of two systems, bars, failures."""
    systems = results.systems()
    lines: list[tuple[str, ...]] = [("", "", *systems)]
    for row, title in ROWS.items():
        figures = [figure for figure in FIGURES if figure.row == row]
        cells = [
            (f"  {figure.title}", figure.unit, *(_cell(results, s, figure) for s in systems))
            for figure in figures
        ]
        if any(cell != _NONE for line in cells for cell in line[2:]):
            lines.append((title, "", *("" for _ in systems)))
            lines += [line for line in cells if any(cell != _NONE for cell in line[2:])]
    parts = [_aligned(lines)]
    for title, system, to in _COMPARISONS:
        if changes := _changes(results, system, to):
            parts.append(f"{title}\n{_aligned(changes)}")
    parts.append(_bars(verdicts))
    if results.failures:
        parts.append(
            "Failed\n"
            + "\n".join(
                f"  {each.row}, {each.system}, round {each.round_number}: {each.reason}"
                for each in results.failures
            )
        )
    return "\n\n".join(parts)


def _cell(results: Results, system: str, figure: Figure) -> str:
    if results.failed(system, figure.row):
        return _FAILED
    spread = results.spread(system, figure.key)
    return _NONE if spread is None else _range(spread, figure.decimals)


def _changes(results: Results, system: str, to: str) -> list[tuple[str, ...]]:
    return [
        (f"  {ROWS[figure.row]}: {figure.title}", "x", _range(ratios, 3))
        for figure in FIGURES
        if not figure.added and (ratios := results.ratios(figure.key, system, to)) is not None
    ]


def _range(spread: Spread, decimals: int) -> str:
    low, high = (f"{value:,.{decimals}f}" for value in (spread.low, spread.high))
    middle = f"{spread.median:,.{decimals}f}"
    return middle if low == high else f"{middle} ({low}..{high})"


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _bars(verdicts: Sequence[Verdict]) -> str:
    lines = [
        (
            f"  {bar.title}",
            f"{'>=' if bar.at_least else '<='} {bar.limit:g} {bar.unit}",
            _NONE if measured is None else f"{measured:,.2f}",
            outcome.value,
        )
        for bar, measured, outcome in verdicts
    ]
    return "Bars\n" + _aligned(lines)


def document(
    results: Results, verdicts: Sequence[Verdict], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the same figures, and those of each round, as a JSON document."""
    return {
        "schema": 1,
        **about,
        "figures": {
            figure.key: {
                "row": figure.row,
                "title": figure.title,
                "unit": figure.unit,
                "systems": {
                    system: {**spread._asdict(), "rounds": results.values(system, figure.key)}
                    for system in results.systems()
                    if (spread := results.spread(system, figure.key)) is not None
                },
            }
            for figure in FIGURES
        },
        "bars": [
            {
                "title": bar.title,
                "unit": bar.unit,
                "limit": bar.limit,
                "at_least": bar.at_least,
                "measured": measured,
                "outcome": outcome.value,
            }
            for bar, measured, outcome in verdicts
        ],
        "failures": [failure._asdict() for failure in results.failures],
        "passed": not results.failures and all(v.outcome is not BarOutcome.FAIL for v in verdicts),
    }
