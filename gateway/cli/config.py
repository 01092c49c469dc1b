"""``gateway config``: prints the commented settings files that the package contains."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.errors import usage
from gateway.cli.output import print_text
from queueing.open import nats_callout_config

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


@app.command("nats-callout")
def nats_callout(
    seed: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The file of nats.operator_seed_file.", exists=True),
    ],
) -> None:
    """Print the line that NATS servers need to let NVIDIA's workers in by their token.

    It goes into the configuration of each server, contains no secret, and stays the same until the
    seed is replaced. See docs/nvidia-workers.md.
    """
    try:
        print_text(nats_callout_config(seed.read_text()), nl=False)
    except (OSError, ValueError) as error:
        raise usage(f"{seed}: {error}") from error


def settings_text(program: str) -> str:
    """Return the commented settings file of a program."""
    name = f"{program}.toml"
    packaged = files("gateway") / "config" / name
    if packaged.is_file():
        return packaged.read_text()
    # In the source tree the files are where people look for them, beside the package.
    return (Path(__file__).parents[2] / "config" / name).read_text()
