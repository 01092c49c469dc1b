"""``gateway config``: prints the commented settings files that the package contains."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.errors import usage
from gateway.cli.output import print_text

app = typer.Typer(
    name="config",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


PROGRAMS = ("gateway", "worker")
"""The programs that have a settings file."""


@app.callback()
def group() -> None:
    """Show the settings of the gateway and of workers."""


@app.command()
def show(
    program: Annotated[
        str, typer.Argument(metavar="PROGRAM", help="gateway or worker.")
    ] = "gateway",
) -> None:
    """Print a settings file with every setting.

    Each setting is at its default, with a comment that says what it does. Save the file, change it,
    and start the program with --config: settings that are left out have their defaults.
    """
    if program not in PROGRAMS:
        raise usage(f"{program} is not a program that has settings: give gateway or worker.")
    print_text(settings_text(program), nl=False)


def settings_text(program: str) -> str:
    """Return the commented settings file of a program."""
    name = f"{program}.toml"
    packaged = files("gateway") / "config" / name
    if packaged.is_file():
        return packaged.read_text()
    # In the source tree the files are where people look for them, beside the package.
    return (Path(__file__).parents[2] / "config" / name).read_text()
