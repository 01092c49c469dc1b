"""A response that is too large to be passed on, as a zip file (NVCF's format of large responses).

The entry ``<request id>.response`` is the inference server's body, the others are the files that
the function left in its folder. Nothing is compressed: what is large is so already, mostly, and
compressing it would take longer than all the rest. What the disk cannot take yet makes the
inference server wait.

The file has no name: no function can put a link or another file in its place, and nothing is left
of it whatever becomes of the agent.
"""

import asyncio
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, cast

from runtime.tasks import spawn
from worker_agent.compat.folders import FileThreads, open_below

HIGH_WATER_BYTES = 1 << 20
CONTENT_TYPE = "application/zip"
_BLOCK_BYTES = 256 * 1024
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)
_LAST_DATE = (2107, 12, 31, 23, 59, 58)
"""Which times a zip file can have."""


class ZipFileWriter:
    """``file`` itself, below ``folder``; every method works on the disk."""

    def __init__(self, folder: Path, entry: str) -> None:
        self.file = cast("BinaryIO", tempfile.TemporaryFile(dir=folder))
        self._zip = zipfile.ZipFile(self.file, "w", zipfile.ZIP_STORED)
        # The size is not known before its end, and may be above 4 GiB.
        self._body: IO[bytes] = self._zip.open(entry, "w", force_zip64=True)

    def write(self, data: bytes) -> None:
        """Add to the body."""
        self._body.write(data)

    def finish(self, folder: Path, files: list[Path]) -> None:
        """End the body, add files of ``folder`` and end the zip file."""
        self._body.close()
        for path in files:
            names = path.relative_to(folder).parts
            with open_below(folder, *names) as file:
                entry = _entry_of("/".join(names), file)
                # It may still grow.
                with self._zip.open(entry, "w", force_zip64=True) as target:
                    shutil.copyfileobj(file, target, _BLOCK_BYTES)
        self._zip.close()

    def close(self) -> None:
        """Let it go, also if the disk is full: then there is room for what closing still writes."""
        with suppress(OSError, ValueError):
            os.ftruncate(self.file.fileno(), 0)
            self._body.close()
            self._zip.close()
        with suppress(OSError):
            self.file.close()


def _entry_of(name: str, file: BinaryIO) -> zipfile.ZipInfo:
    """Return the entry of a file: with a time that can be written, and a name in UTF-8."""
    status = os.fstat(file.fileno())
    date = min(max(time.localtime(status.st_mtime)[:6], _FIRST_DATE), _LAST_DATE)
    entry = zipfile.ZipInfo(os.fsencode(name).decode(errors="replace"), date)
    entry.external_attr = (status.st_mode & 0xFFFF) << 16
    entry.file_size = status.st_size
    return entry


class Archive:
    """The zip file of one response, on the disk of ``folder``, written beside the loop.

    ``pause`` and ``resume`` make the inference server wait for the disk.
    """

    def __init__(
        self,
        threads: FileThreads,
        folder: Path,
        entry: str,
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self._folder = folder
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

    async def finish(self, folder: Path, files: list[Path]) -> BinaryIO:
        """End it, with files of ``folder``; return the file, open. Raises `OSError`."""
        if self._writing is not None:
            await self._writing
        if self._error is not None:
            raise self._error
        await self._threads.run(self._finish_now, folder, files)
        return self._opened().file

    async def close(self) -> None:
        """Let the file go, whatever was written."""
        self._pending.clear()
        if self._writing is not None:
            await asyncio.wait({self._writing})
        if self._writer is not None:
            await self._threads.run(self._writer.close)

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

    def _finish_now(self, folder: Path, files: list[Path]) -> None:
        self._opened().finish(folder, files)

    def _opened(self) -> ZipFileWriter:
        if self._writer is None:
            self._writer = ZipFileWriter(self._folder, self._entry)
        return self._writer
