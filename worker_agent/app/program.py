"""The program `worker-agent`: its command line, from settings to exit code."""

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from runtime import lifecycle, logs
from runtime.lifecycle import EXIT_UNUSABLE, Lifecycle
from runtime.settings import SettingsError, load
from runtime.version import emit_starting, program_version
from worker_agent.app.agent import Agent
from worker_agent.settings import ENV_PREFIX, NVCF_ALIASES, WorkerSettings

_log = logging.getLogger("worker.agent")

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
    try:
        settings = load(WorkerSettings, config, ENV_PREFIX, aliases=NVCF_ALIASES)
    except SettingsError as error:
        print(f"worker-agent: invalid settings:\n{error}", file=sys.stderr)  # noqa: T201  for people
        sys.exit(EXIT_UNUSABLE)
    logs.setup(settings.log.level, json=settings.log.format == "json")
    emit_starting(_log, "worker.starting")
    sys.exit(lifecycle.run(partial(_serve, settings)))


async def _serve(settings: WorkerSettings, running: Lifecycle) -> int:
    try:
        return await Agent(settings).serve(running)
    except OSError as error:
        print(f"worker-agent: {error}", file=sys.stderr)  # noqa: T201  for people
        return EXIT_UNUSABLE


def run() -> None:
    """Run the command line of the worker agent."""
    logging.captureWarnings(capture=True)
    app()
