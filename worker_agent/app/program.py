"""The command line of `worker-agent` for people: with help, and errors in words."""

from pathlib import Path
from typing import Annotated

import typer

from runtime.version import program_version
from worker_agent.app import serving
from worker_agent.app.serving import AgentOptions

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"worker-agent {program_version()}")  # noqa: T201
        raise typer.Exit


@app.command()
def serve(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Settings file; 'gateway config show worker' prints one with all settings. "
            "Default: none; then WORKER_FUNCTION__ID and WORKER_FUNCTION__VERSION_ID are "
            "required.",
            exists=True,
        ),
    ] = None,
    *,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Serve one function version: pull its requests and forward them to the inference server.

    Environment variables override the settings file: WORKER_INFERENCE__PORT, or the names of NVCF,
    such as INFERENCE_PORT. SIGTERM finishes running requests; a second one aborts them.
    """
    serving.serve(AgentOptions(config))


def run() -> None:
    """Run the command line of the worker agent."""
    app()
