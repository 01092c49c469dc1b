"""Files for long request bodies that are collected, read and written outside the loop's thread.

A write that meets a slow disk may block for seconds, so a few threads do it: the loop goes on, and
only uploads wait. A file has no name, so that nothing is left after a crash.
"""

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from gateway.invocation.collection import SpoolUser
from runtime.events import emit

_THREADS = 4
"""As many operations run at a time; each upload has at most one, the others wait for a thread."""

_log = logging.getLogger("gateway.spool")


class SpoolFiles:
    """The files of one process; `open` is `gateway.invocation.collection.UploadSpace.open_file`."""

    def __init__(self, folder: Path | None) -> None:
        """Without ``folder`` the files are in the system's folder for temporary files."""
        self._folder = folder
        self._threads = ThreadPoolExecutor(_THREADS, "spool")

    def open(self, user: SpoolUser) -> "OpenSpoolFile":
        """Return a file for ``user``; it is created by its first write."""
        return OpenSpoolFile(self._threads, self._folder, user)

    def close(self) -> None:
        """Begin no more operations; those that were begun go on to their end."""
        self._threads.shutdown(wait=False)


class OpenSpoolFile:
    """One file: a `gateway.invocation.collection.SpoolFile`.

    ``_file`` and ``_size`` belong to the operation that runs, of which there is at most one.
    """

    __slots__ = ("_file", "_folder", "_is_busy", "_is_closed", "_size", "_threads", "_user")

    def __init__(self, threads: ThreadPoolExecutor, folder: Path | None, user: SpoolUser) -> None:
        self._threads = threads
        self._folder = folder
        self._user = user
        self._file: BinaryIO | None = None
        self._size = 0
        self._is_busy = False
        self._is_closed = False

    def write(self, data: bytes | bytearray) -> None:
        """Append ``data``, which must not change; `SpoolUser.spool_written` follows."""
        self._run(lambda: self._append(data), self._written)

    def read(self, at: int, size: int) -> None:
        """Read ``size`` bytes at offset ``at``; `SpoolUser.spool_read` follows."""
        self._run(lambda: self._fetch(at, size), self._was_read)

    def close(self) -> None:
        """Delete the file. No call follows, also not for an operation that has begun."""
        self._is_closed = True
        if not self._is_busy:
            self._close_file()

    # In a thread

    def _append(self, data: bytes | bytearray) -> bytes:
        if self._file is None:
            # Has no name: either it never gets one (O_TMPFILE), or it is deleted at once.
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)
        with memoryview(data) as left:
            at = 0
            while at < len(left):
                at += os.pwrite(self._file.fileno(), left[at:], self._size + at)
        self._size += len(data)
        return b""

    def _fetch(self, at: int, size: int) -> bytes:
        if self._file is None:
            raise AssertionError("read before a write")
        data = os.pread(self._file.fileno(), size, at)
        if len(data) != size:
            raise OSError(f"{len(data)} of {size} bytes could be read")
        return data

    # In the loop's thread

    def _run(self, operation: Callable[[], bytes], end: Callable[[bytes | None], None]) -> None:
        self._is_busy = True
        running = asyncio.get_running_loop().run_in_executor(self._threads, operation)
        running.add_done_callback(lambda done: self._end(done, end))

    def _end(self, done: asyncio.Future[bytes], end: Callable[[bytes | None], None]) -> None:
        self._is_busy = False
        result: bytes | None = None
        if not done.cancelled():
            error = done.exception()
            if error is None:
                result = done.result()
            else:
                emit(_log, "upload.spool_failed", logging.WARNING, error=str(error))
        if self._is_closed:
            self._close_file()
        else:
            end(result)

    def _written(self, result: bytes | None) -> None:
        self._user.spool_written(is_written=result is not None)

    def _was_read(self, result: bytes | None) -> None:
        self._user.spool_read(result or b"")

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            # Frees what the file holds, which takes long for a long file.
            self._threads.submit(file.close)
