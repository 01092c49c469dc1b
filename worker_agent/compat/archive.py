"""A response that is too large to be passed on, as a zip file (NVCF's format of large responses).

The entry ``<request id>.response`` is the inference server's body, the others are the files that
the function left in its folder. Nothing is compressed: what is large is so already, mostly, and
compressing it would take longer than all the rest. What the disk cannot take yet makes the
inference server wait.
"""

import asyncio
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from runtime.tasks import spawn
from worker_agent.compat.folders import FileThreads

HIGH_WATER_BYTES = 1 << 20
CONTENT_TYPE = "application/zip"


class ZipFileWriter:
    """The file itself; every method works on the disk."""

    def __init__(self, path: Path, entry: str) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        # The size is not known before its end, and may be above 4 GiB.
        self._body: IO[bytes] = self._zip.open(entry, "w", force_zip64=True)

    def write(self, data: bytes) -> None:
        """Add to the body."""
        self._body.write(data)

    def finish(self, folder: Path, files: list[Path]) -> None:
        """End the body, add files of ``folder`` and end the zip file."""
        self._body.close()
        for file in files:
            self._zip.write(file, file.relative_to(folder).as_posix())
        self._zip.close()


class Archive:
    """The zip file at ``path`` of one response, written beside the loop.

    ``pause`` and ``resume`` make the inference server wait for the disk.
    """

    def __init__(
        self,
        threads: FileThreads,
        path: Path,
        entry: str,
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self.path = path
        self._threads = threads
        self._entry = entry
        self._pause = pause
        self._resume = resume
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._is_paused = False
        self._error: OSError | None = None
        self._writer: ZipFileWriter | None = None
        self._writing: asyncio.Task[None] | None = None

    def add(self, data: bytes) -> None:
        """Add to the body."""
        if self._error is not None:
            return
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes > HIGH_WATER_BYTES and not self._is_paused:
            self._is_paused = True
            self._pause()
        if self._writing is None:
            self._writing = spawn(self._write(), "archive")

    async def finish(self, folder: Path, files: list[Path]) -> None:
        """End it, with files of ``folder``. Raises `OSError`."""
        if self._writing is not None:
            await self._writing
        if self._error is not None:
            raise self._error
        await self._threads.run(self._opened().finish, folder, files)

    async def _write(self) -> None:
        try:
            while self._pending:
                data = b"".join(self._pending)
                self._pending.clear()
                await self._threads.run(self._write_now, data)
                self._pending_bytes -= len(data)
                if self._is_paused and self._pending_bytes <= HIGH_WATER_BYTES:
                    self._is_paused = False
                    self._resume()
        except OSError as error:
            self._error = error
            self._pending.clear()
            if self._is_paused:
                self._resume()
        finally:
            self._writing = None

    def _write_now(self, data: bytes) -> None:
        self._opened().write(data)

    def _opened(self) -> ZipFileWriter:
        if self._writer is None:
            self._writer = ZipFileWriter(self.path, self._entry)
        return self._writer
