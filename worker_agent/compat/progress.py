"""Watches the files in which functions tell of their progress.

A function writes ``<folder>/<request id>/progress`` (`worker_agent.compat.rewriting`).
The files are looked at a few times a second, all in one call of a thread, and only while a request
runs that may have one. That works on every file system, those of networks included, and costs an
idle agent nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from runtime.events import emit
from runtime.tasks import spawn
from worker_agent.compat.folders import PROGRESS_NAME, FileThreads, open_below
from worker_agent.compat.rewriting import ProgressError, ProgressNews, read_progress

LOOK_S = 0.2
MAX_PROGRESS_BYTES = 5 * 1024 * 1024

_log = logging.getLogger("worker.compat")

Signature = tuple[int, int, int]
"""When a file was changed, in ns, its size and its number: they differ from one version to the
next."""


class Look(NamedTuple):
    """What was found of one file that has changed."""

    request_id: str
    signature: Signature
    news: ProgressNews | None
    error: str


class WatchedProgress:
    """The progress file of one request. ``news_ns`` is the change of the last news."""

    __slots__ = ("news_ns", "on_news", "signature")

    def __init__(self, on_news: Callable[[ProgressNews], None]) -> None:
        self.on_news = on_news
        self.signature: Signature = (0, 0, 0)
        self.news_ns = 0


class ProgressWatch:
    """The progress files in ``folder``."""

    def __init__(self, folder: Path, threads: FileThreads) -> None:
        self._folder = folder
        self._threads = threads
        self._watched: dict[str, WatchedProgress] = {}
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._watched)

    @property
    def is_running(self) -> bool:
        """Whether anything is looked at."""
        return self._task is not None

    def add(self, request_id: str, on_news: Callable[[ProgressNews], None]) -> None:
        """Call ``on_news`` whenever the function tells of the request."""
        self._watched[request_id] = WatchedProgress(on_news)
        if self._task is None:
            self._task = spawn(self._run(), "progress-watch")

    def remove(self, request_id: str) -> None:
        """Call it no more."""
        self._watched.pop(request_id, None)

    def close(self) -> None:
        """Call nothing any more."""
        self._watched.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while self._watched:
            await asyncio.sleep(LOOK_S)
            known = [(request_id, one.signature) for request_id, one in self._watched.items()]
            for look in await self._threads.run(look_at, self._folder, known):
                self._found(look)
        self._task = None

    def _found(self, look: Look) -> None:
        file = self._watched.get(look.request_id)
        if file is None:
            return
        file.signature = look.signature
        news = look.news
        if news is None:
            self._ignore(look.request_id, look.error)
            return
        # What the function wrote says which request it is about, not the folder.
        watched = self._watched.get(news.request_id)
        if watched is None:
            self._ignore(look.request_id, "it names a request that does not run")
        elif look.signature[0] > watched.news_ns:
            watched.news_ns = look.signature[0]
            watched.on_news(news)

    def _ignore(self, request_id: str, reason: str) -> None:
        emit(_log, "progress.ignored", logging.WARNING, request_id=request_id, reason=reason)


def look_at(folder: Path, known: list[tuple[str, Signature]]) -> list[Look]:
    """Return what is new in the progress files of requests, by what is known of each."""
    found = []
    for request_id, signature in known:
        path = folder / request_id / PROGRESS_NAME
        try:
            status = path.lstat()
            now = (status.st_mtime_ns, status.st_size, status.st_ino)
            if now == signature:
                continue
            with open_below(folder / request_id, PROGRESS_NAME) as file:
                data = file.read(MAX_PROGRESS_BYTES + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            found.append(Look(request_id, (1, 0, 0), None, str(error)))
            continue
        found.append(_read(request_id, now, data))
    return [look for look in found if (look.request_id, look.signature) not in known]


def _read(request_id: str, signature: Signature, data: bytes) -> Look:
    if len(data) > MAX_PROGRESS_BYTES:
        return Look(request_id, signature, None, f"larger than {MAX_PROGRESS_BYTES:,} bytes")
    try:
        return Look(request_id, signature, read_progress(data), "")
    except ProgressError as error:
        return Look(request_id, signature, None, str(error))
