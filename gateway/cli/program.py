"""The program `gateway`: its command `serve`, and the others, which are imported when used."""

import logging
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from gateway.app.process import serve as serve_process
from gateway.app.supervisor import Supervisor, bind_for
from gateway.cli.lazy import LazyGroup
from gateway.settings import GatewaySettings, read_settings
from http1.server.listener import ListenError
from runtime import lifecycle, logs
from runtime.lifecycle import EXIT_UNUSABLE
from runtime.settings import SettingsError
from runtime.version import emit_starting, program_version

_log = logging.getLogger("gateway.supervisor")

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
    try:
        settings = read_settings(config, {"GATEWAY_ROLES": roles} if roles else {})
    except SettingsError as error:
        _refuse(f"invalid settings:\n{error}")
    count = processes or settings.edge.processes
    logs.setup(settings.log.level, json=settings.log.format == "json")
    try:
        sockets = bind_for(settings.edge.listen, count)
    except ListenError as error:
        _refuse(str(error))
    if count == 1:
        sys.exit(_run_one(settings, 0, sockets[0]))
    emit_starting(_log, "gateway.starting", processes=count)
    run = partial(_run_one, settings, shares_addresses=True)
    sys.exit(Supervisor(run, sockets).supervise())


def _run_one(
    settings: GatewaySettings,
    index: int,
    sockets: list[socket.socket],
    *,
    shares_addresses: bool = False,
) -> int:
    run = partial(serve_process, settings, index, sockets, shares_addresses=shares_addresses)
    return lifecycle.run(run)


def _refuse(message: str) -> NoReturn:
    print(f"gateway: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(EXIT_UNUSABLE)


def run() -> None:
    """Run the command line of the gateway."""
    logging.captureWarnings(capture=True)
    app()
