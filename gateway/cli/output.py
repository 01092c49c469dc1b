"""Prints results on standard output, as tables or JSON, and messages on standard error."""

import sys
from collections.abc import Iterable, Sequence

import orjson
import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.errors import printable

_MAX_LINE = 10_000
TABLE_WIDTH = 100
"""Columns of the terminal that a table takes at most, unless its ids alone are wider."""


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table in `TABLE_WIDTH` columns.

    The cells of columns whose name ends with ``*`` are folded where they need to be; others, such
    as ids, are always in one line. The ``*`` is not printed.
    """
    table = Table(box=None, pad_edge=False)
    fixed = 0
    cells = [[_cell(value) for value in row] for row in rows]
    for index, name in enumerate(columns):
        is_folded = name.endswith("*")
        title = name.removesuffix("*")
        table.add_column(title, no_wrap=not is_folded, overflow="fold")
        widest = max([len(title), *(len(row[index]) for row in cells)])
        fixed += 2 + (_MIN_FOLDED if is_folded else widest)
    for row in cells:
        table.add_row(*row)
    _console(max(TABLE_WIDTH, fixed)).print(table)


def print_members(members: Iterable[tuple[str, object]]) -> None:
    """Print one line for each name that has a value."""
    table = Table.grid(padding=(0, 2))
    for name, value in members:
        if value not in (None, "", [], {}):
            table.add_row(name, _cell(value))
    _console(_MAX_LINE).print(table)


def say(text: str) -> None:
    """Print one line on standard error."""
    typer.echo(printable(text), err=True)


_MIN_FOLDED = 8
"""A folded column has at least this many characters per line."""


def _console(width: int) -> Console:
    # A truncated id is useless, and terminals wrap lines themselves. Names that users have chosen
    # are printed literally: no markup, no emoji.
    return Console(
        file=sys.stdout,
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return "\n".join(printable(line) for line in value.splitlines())
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return printable(" ".join(value))
    return printable(orjson.dumps(value).decode())
