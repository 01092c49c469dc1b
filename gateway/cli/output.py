"""Prints results on standard output, as tables or JSON, and messages on standard error."""

import sys
from collections.abc import Iterable, Sequence

import orjson
import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.errors import printable

_MAX_LINE = 10_000


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table. Each row takes one line, however wide, unless a cell has several."""
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    _console().print(table)


def print_members(members: Iterable[tuple[str, object]]) -> None:
    """Print one line for each name that has a value."""
    table = Table.grid(padding=(0, 2))
    for name, value in members:
        if value not in (None, "", [], {}):
            table.add_row(name, _cell(value))
    _console().print(table)


def say(text: str) -> None:
    """Print one line on standard error."""
    typer.echo(printable(text), err=True)


def _console() -> Console:
    # Very wide: a truncated id is useless, and terminals wrap lines themselves. Names that users
    # have chosen are printed literally: no markup, no emoji.
    return Console(
        file=sys.stdout,
        width=_MAX_LINE,
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
