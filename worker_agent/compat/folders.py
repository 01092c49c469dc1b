"""The folders that a request shares with the inference server, and threads to work on them.

A disk may be slow, and a network's disk may hang: nothing here runs in the loop's thread.
"""

import asyncio
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

_THREADS = 8
_OPEN_TO_ALL = 0o777
PROGRESS_NAME = "progress"

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class FileThreads:
    """A few threads for files, started when the first is needed."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    async def run(
        self,
        function: Callable[Arguments, Result],
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> Result:
        """Call a function in one of the threads, and return its result."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(_THREADS, "files")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*arguments, **keywords))

    def close(self) -> None:
        """Begin nothing more."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


def make_folder(folder: Path) -> None:
    """Make a folder that anybody may write to, as the inference server. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(_OPEN_TO_ALL)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that is possible."""
    shutil.rmtree(folder, ignore_errors=True)


def artifacts(folder: Path) -> list[Path]:
    """Return the files that the function left as part of its response, at any depth.

    Links are not followed: what they name is the agent's, not the function's.
    """
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if name != PROGRESS_NAME and not path.is_symlink() and path.is_file():
                found.append(path)
    return found
