"""The worker agent from its command line to the exit code."""

import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

from runtime import lifecycle, logs
from runtime.lifecycle import EXIT_UNUSABLE, Lifecycle
from runtime.plain_options import plain_options
from runtime.settings import SettingsError, load
from runtime.version import emit_starting
from worker_agent.app.agent import Agent
from worker_agent.app.facts import worker_facts
from worker_agent.app.joining import Joined, join
from worker_agent.settings import ENV_PREFIX, NVCF_ALIASES, WorkerSettings

_log = logging.getLogger("worker.agent")


class AgentOptions(NamedTuple):
    """The options of the command; `None` for one that is not given."""

    config: Path | None = None


def read_options(words: Sequence[str]) -> AgentOptions | None:
    """Return the options of a plain command line, `None` for any other."""
    found = plain_options(words, AgentOptions._fields)
    if found is None:
        return None
    config = Path(found["config"]) if "config" in found else None
    if config is not None and not config.exists():
        return None
    return AgentOptions(config)


def serve(options: AgentOptions) -> NoReturn:
    """Serve until the stop signal; exit with the code of the process."""
    logging.captureWarnings(capture=True)
    try:
        settings = _load(options)
    except SettingsError as error:
        print(f"worker-agent: invalid settings:\n{error}", file=sys.stderr)  # noqa: T201  for people
        sys.exit(EXIT_UNUSABLE)
    logs.setup(settings.log.level, json=settings.log.format == "json")
    emit_starting(_log, "worker.starting")
    sys.exit(lifecycle.run(partial(_serve, options, settings)))


def _load(options: AgentOptions, joined: Joined | None = None) -> WorkerSettings:
    return load(
        WorkerSettings,
        options.config,
        ENV_PREFIX,
        environ=None if joined is None else {**os.environ, **joined.decided},
        aliases=NVCF_ALIASES,
        defaults=None if joined is None else joined.defaults,
    )


async def _serve(options: AgentOptions, settings: WorkerSettings, running: Lifecycle) -> int:
    try:
        facts = await worker_facts(settings.instance) if settings.control.url else None
        token = settings.registration_token
        if token and facts is not None:
            joined = await join(settings, facts, running)
            if isinstance(joined, int):
                return joined
            settings = _load(options, joined)
        return await Agent(settings, facts, token).serve(running)
    except SettingsError as error:
        print(f"worker-agent: invalid settings:\n{error}", file=sys.stderr)  # noqa: T201  for people
        return EXIT_UNUSABLE
    except OSError as error:
        print(f"worker-agent: {error}", file=sys.stderr)  # noqa: T201  for people
        return EXIT_UNUSABLE
