"""The folders that a request shares with the inference server, and threads to work on them.

A disk may be slow, and a network's disk may hang: nothing here runs in the loop's thread.
"""

import asyncio
import fcntl
import os
import shutil
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

from wire.ids import parse_uuid

_THREADS = 8
_OPEN_TO_ALL = 0o777
PROGRESS_NAME = "progress"
_STEP = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_LOCK_NAME = ".lock"

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


class RequestFolders:
    """The folders of requests below ``root``, of which each is named as its request.

    Agents may share it. The first one to come removes what agents that died have left: each holds
    a lock, which the kernel drops with the process.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._opening = threading.Lock()
        self._lock: BinaryIO | None = None

    def make(self, name: str) -> None:
        """Make one for a request. Raises `OSError`."""
        with self._opening:
            if self._lock is None:
                self._lock = self._open()
        make_folder(self.root / name)

    def close(self) -> None:
        """Hold the lock no more."""
        if self._lock is not None:
            self._lock.close()

    def _open(self) -> BinaryIO:
        self.root.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = open(os.open(self.root / _LOCK_NAME, flags), "rb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Another agent lives, or this file system has no locks: nothing is known of the rest.
            pass
        else:
            for path in self.root.iterdir():
                if parse_uuid(path.name.encode(errors="replace")) == path.name:
                    remove_folder(path)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        return lock


def make_folder(folder: Path) -> None:
    """Make an empty folder that anybody may write to, as the inference server. Raises `OSError`."""
    remove_folder(folder)
    folder.mkdir(parents=True)
    folder.chmod(_OPEN_TO_ALL)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that is possible."""
    shutil.rmtree(folder, ignore_errors=True)


def open_below(folder: Path, *names: str) -> BinaryIO:
    """Open a file that the function left below ``folder``: never a link, pipe or device.

    No part of the way may be a link, also if the function makes it one meanwhile. Raises `OSError`.
    """
    at = os.open(folder, _STEP)
    try:
        for name in names[:-1]:
            below = os.open(name, _STEP, dir_fd=at)
            os.close(at)
            at = below
        # A pipe without a writer would block, but for this flag.
        file = open(os.open(names[-1], _READ, dir_fd=at), "rb")
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("it is no regular file")
    return file


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
