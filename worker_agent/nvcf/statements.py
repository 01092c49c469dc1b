"""Signed statements of the control plane, kept in files for the function's container.

Each is renewed after 80 % of its life. While that fails the file stays as it is: the agent does not
need it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from runtime.events import emit
from runtime.files import write_public
from worker_agent.nvcf.calls import NvcfCallError, Statement

_RETRY_S = 60.0
_LEAST_S = 1.0
_SPREAD_S = 59.0
_RENEW_AFTER = 0.8

_log = logging.getLogger("worker.nvcf")


async def keep_statement(ask: Callable[[], Awaitable[Statement]], path: Path) -> None:
    """Write what ``ask`` returns to ``path``, again and again, until it is cancelled."""
    is_failing = False
    while True:
        try:
            statement = await ask()
            await asyncio.to_thread(_write, path, statement.text)
        except (NvcfCallError, OSError) as error:
            if not is_failing:
                emit(_log, "nvcf.no_statement", logging.WARNING, file=path, error=str(error))
            is_failing = True
            await asyncio.sleep(_RETRY_S)
        else:
            is_failing = False
            await asyncio.sleep(renewal_pause_s(statement.expires_at - time.time(), _spread()))


def renewal_pause_s(life_s: float, spread_s: float) -> float:
    """Return when to renew what lives for ``life_s``: ``spread_s`` later than 80 % if it can.

    What has ended when it comes, because the clocks differ, is asked for as after a failure.
    """
    if life_s <= 0.0:
        return _RETRY_S
    pause_s = life_s * _RENEW_AFTER
    if pause_s + spread_s < life_s:
        pause_s += spread_s
    return max(pause_s, _LEAST_S)


def _spread() -> float:
    return random.uniform(0.0, _SPREAD_S)  # noqa: S311 - spreads agents, guards nothing


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_public(path, text.encode())
