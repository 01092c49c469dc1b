"""Starts asyncio tasks that cannot be lost and whose failures are logged.

The event loop keeps only a weak reference to a task, and reports an unhandled exception only when
the task is garbage-collected.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from runtime.events import emit

Result = TypeVar("Result")

_log = logging.getLogger("runtime.tasks")
_running: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, Result], name: str) -> asyncio.Task[Result]:
    """Run ``coroutine`` as a task of the running loop; log an exception with its traceback."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _running.add(task)
    task.add_done_callback(_done)
    return task


async def cancel_all() -> None:
    """Cancel every spawned task of this loop except the current one, and wait until all ended."""
    loop = asyncio.get_running_loop()
    current = asyncio.current_task()
    while others := [t for t in _running if t is not current and t.get_loop() is loop]:
        for task in others:
            task.cancel()
        await asyncio.wait(others)


def _done(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        emit(_log, "task.failed", logging.ERROR, error, task=task.get_name())
