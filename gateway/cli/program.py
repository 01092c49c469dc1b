"""The program `gateway`: its command `serve`, and the others, which are imported when used."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.lazy import LazyGroup
from runtime.version import program_version

app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"gateway {program_version()}")  # noqa: T201
        raise typer.Exit


@app.callback()
def gateway(
    *,
    shows_version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            callback=_show_version,
            is_eager=True,
            # Not a parameter of the commands, which have this option too.
            expose_value=False,
        ),
    ] = False,
) -> None:
    """Invocation gateway for GPU functions: HTTP in, a queue per function, workers that pull.

    'gateway dev' runs everything on this machine and prints calls to try. 'gateway serve' is for
    production. The other commands call the API of a running gateway: set GATEWAY_API_URL to its
    URL and GATEWAY_API_KEY to an API key or token. They take functions and versions by name or id.
    """


@app.command("serve")
def serve(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Settings file; 'gateway config show' prints one with all settings. Environment "
            "variables override it. Default: none.",
            exists=True,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Processes that share the addresses. Default: edge.processes, which is 1.",
            min=1,
            max=256,
        ),
    ] = None,
    roles: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Comma-separated: invocation, api, provision. Default: all."
        ),
    ] = None,
) -> None:
    """Serve invocations and the API. Requires a NATS server, unlike 'gateway dev'."""
    # Only now: no other command needs these modules.
    from gateway.app import serving  # noqa: PLC0415

    serving.serve(serving.ServeOptions(config, processes, roles))


def run() -> None:
    """Run the command line of the gateway."""
    logging.captureWarnings(capture=True)
    app()
