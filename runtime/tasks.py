"""Tasks that are neither lost nor silent.

The loop itself keeps only a weak reference to a task, and reports a failure only when somebody
collects the garbage.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

_log = logging.getLogger("runtime.tasks")
_running: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, Result], name: str) -> asyncio.Task[Result]:
    """Run ``coroutine`` on the running loop; a failure is logged with its traceback."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _running.add(task)
    task.add_done_callback(_done)
    return task


async def cancel_all() -> None:
    """Cancel every spawned task of this loop but the current one, and wait for their end."""
    loop = asyncio.get_running_loop()
    current = asyncio.current_task()
    while others := [t for t in _running if t is not current and t.get_loop() is loop]:
        for task in others:
            task.cancel()
        await asyncio.wait(others)


def _done(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("task.failed", exc_info=error, extra={"fields": {"task": task.get_name()}})
