"""Log output: one JSON object per event, and a buffered writer for the access log.

Events are logged with `runtime.events.emit`, as a name and fields.
"""

import asyncio
import atexit
import logging
import os
import queue
import stat
import sys
import threading
from datetime import UTC, datetime
from typing import TextIO

import orjson

_PIPE_BUF = 4096
"""A write of at most this many bytes to a pipe is atomic on Linux (pipe(7))."""


class JsonFormatter(logging.Formatter):
    """One line per record: ``ts``, ``level``, ``logger``, ``event``, then the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        for key, value in getattr(record, "fields", {}).items():
            line.setdefault(key, value)
        if record.exc_info:
            line.setdefault("error", self.formatException(record.exc_info))
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class TextFormatter(logging.Formatter):
    """One line for people: ``12:00:01.123 INFO worker.agent worker.ready key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in getattr(record, "fields", {}).items())
        line = (
            f"{_timestamp(record.created)[11:23]} {record.levelname} {record.name} "
            f"{record.getMessage()}{fields}"
        )
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _timestamp(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def setup(level: str, json: bool = True, stream: TextIO | None = None) -> None:
    """Write every record of ``level`` and above to ``stream``, by default standard output.

    ``level`` is debug, info, warning or error. Replaces an earlier set-up. Write errors, such as a
    reader that has closed the pipe, are ignored.
    """
    handler = logging.StreamHandler(sys.stdout if stream is None else stream)
    handler.setFormatter(JsonFormatter() if json else TextFormatter())
    logging.raiseExceptions = False
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class LineWriter:
    """Writes raw lines to a file descriptor every ``interval_s`` from its own thread.

    A stalled reader therefore never stalls the event loop. Lines beyond ``max_buffer_bytes`` of
    unwritten data are dropped and counted in ``dropped``. In a pipe that several processes write
    to, lines of up to 4096 bytes stay intact. Call `write` only from the loop's thread.
    """

    def __init__(
        self, fd: int, *, max_buffer_bytes: int = 1 << 20, interval_s: float = 0.1
    ) -> None:
        self.dropped = 0
        self._fd = fd
        self._max_bytes = max_buffer_bytes
        self._interval_s = interval_s
        self._lines: list[bytes] = []
        # Each counter has one writer: the loop's thread, and the writing thread.
        self._accepted_bytes = 0
        self._written_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._handed: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def write(self, line: bytes) -> None:
        """Add ``line``, which ends with its newline. Needs a running loop."""
        if self._accepted_bytes - self._written_bytes + len(line) > self._max_bytes:
            self.dropped += 1
            return
        self._accepted_bytes += len(line)
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self.flush)

    def flush(self) -> None:
        """Pass the buffered lines to the writing thread; does not block."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        if self._thread is None:
            # Started at the first flush, so that the process may still fork before it.
            self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._thread.start()
            atexit.register(self.close)
        self._handed.put(self._lines)
        self._lines = []

    def close(self, timeout_s: float = 1.0) -> None:
        """Write the remaining lines and wait at most ``timeout_s``; a later `write` starts anew."""
        self.flush()
        thread, self._thread = self._thread, None
        if thread is not None:
            atexit.unregister(self.close)
            self._handed.put(None)
            thread.join(timeout_s)

    def _run(self) -> None:
        is_pipe = stat.S_ISFIFO(os.fstat(self._fd).st_mode)
        is_open = True
        while (lines := self._handed.get()) is not None:
            for batch in join_for_pipe(lines) if is_pipe else [b"".join(lines)]:
                is_open = is_open and self._write_all(batch)
                self._written_bytes += len(batch)

    def _write_all(self, data: bytes) -> bool:
        """Write ``data``. Return False if the descriptor is no longer writable."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:
                return False
        return True


def join_for_pipe(lines: list[bytes]) -> list[bytes]:
    """Join ``lines`` into batches of at most `_PIPE_BUF` bytes, split only between lines."""
    batches: list[bytes] = []
    batch: list[bytes] = []
    batch_bytes = 0
    for line in lines:
        if batch and batch_bytes + len(line) > _PIPE_BUF:
            batches.append(b"".join(batch))
            batch = []
            batch_bytes = 0
        batch.append(line)
        batch_bytes += len(line)
    batches.append(b"".join(batch))
    return batches
