"""Prints results on standard output, as tables or JSON, and messages on standard error."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import orjson
import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.errors import CommandError, fail, printable

_MAX_LINE = 10_000
TABLE_WIDTH = 100
"""Columns of the terminal that a table takes at most, unless its ids alone are wider."""


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    print_text(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


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
    with _writing():
        _console(max(TABLE_WIDTH, fixed)).print(table)


def print_members(members: Iterable[tuple[str, object]]) -> None:
    """Print one line for each name that has a value."""
    table = Table.grid(padding=(0, 2))
    for name, value in members:
        if value not in (None, "", [], {}):
            table.add_row(name, _cell(value))
    with _writing():
        _console(_MAX_LINE).print(table)


def print_text(text: str = "", *, nl: bool = True) -> None:
    """Print text as it is."""
    with _writing():
        typer.echo(text, nl=nl)


def write(data: bytes) -> None:
    """Write bytes as they are, at once."""
    with _writing():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Print one line on standard error."""
    typer.echo(printable(text), err=True)


_MIN_FOLDED = 8
"""A folded column has at least this many characters per line."""


@contextmanager
def _writing() -> Iterator[None]:
    """End the program if standard output fails; without a message if its reader has left."""
    try:
        yield
    except OSError as error:
        # What is still in the buffer would fail once more at the end of the program.
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(1) from None
        raise fail(CommandError(f"The output cannot be written: {error.strerror}.")) from None


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
