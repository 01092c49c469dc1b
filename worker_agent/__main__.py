"""`worker-agent`: pull requests from a function's queue and serve them beside the model."""

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from runtime import lifecycle, logs
from runtime.lifecycle import Lifecycle
from runtime.settings import SettingsError, load
from worker_agent.app.agent import Agent
from worker_agent.settings import ENV_PREFIX, NVCF_ALIASES, WorkerSettings

EXIT_UNUSABLE = 2

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def serve(
    config: Annotated[
        Path | None,
        typer.Option(help="Settings in TOML; config/worker.toml shows all.", exists=True),
    ] = None,
) -> None:
    """Serve one function version: pull its requests, have the inference server answer them.

    Settings come from the file, then from the environment: WORKER_INFERENCE__PORT, or NVCF's own
    names, like INFERENCE_PORT. SIGTERM finishes what is running, a second one breaks it off.
    """
    try:
        settings = load(WorkerSettings, config, ENV_PREFIX, aliases=NVCF_ALIASES)
    except SettingsError as error:
        print(f"worker-agent: settings are not usable:\n{error}", file=sys.stderr)  # noqa: T201  for people
        sys.exit(EXIT_UNUSABLE)
    logs.setup(settings.log.level)
    sys.exit(lifecycle.run(partial(_serve, settings)))


async def _serve(settings: WorkerSettings, running: Lifecycle) -> int:
    try:
        return await Agent(settings).serve(running)
    except OSError as error:
        print(f"worker-agent: {error}", file=sys.stderr)  # noqa: T201  for people
        return EXIT_UNUSABLE


def main() -> None:
    """Run the command line."""
    logging.captureWarnings(capture=True)
    app()


if __name__ == "__main__":
    main()
