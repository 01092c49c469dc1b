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
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TextIO

import orjson

_OWN_LOGGERS = ("gateway", "worker", "http1", "queueing", "runtime")
_SEPARATORS = frozenset(' "=')
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
        line = {
            "ts": _timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        text = _text_of(line, getattr(record, "fields", {}))
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def as_text(line: str) -> str:
    """Return a line of JSON, such as those of a `LineWriter`, as `TextFormatter` would write it."""
    fields = orjson.loads(line)
    head = {name: str(fields.pop(name)) for name in ("ts", "level", "logger", "event")}
    return f"{_text_of(head, fields)}\n"


def _text_of(head: Mapping[str, str], fields: Mapping[str, object]) -> str:
    shown = "".join(f" {name}={_printable(value)}" for name, value in fields.items())
    time = head["ts"][11:23]
    return f"{time} {head['level'].upper()} {head['logger']} {head['event']}{shown}"


def _printable(value: object) -> str:
    """Return a field's value; as JSON where it would not be one word of one line."""
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if text and text.isprintable() and not _SEPARATORS.intersection(text):
        return text
    return orjson.dumps(text).decode()


def _timestamp(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def setup(level: str, json: bool = True, stream: TextIO | None = None) -> None:
    """Write every record of ``level`` and above to ``stream``, by default standard output.

    ``level`` is debug, info, warning or error. Of libraries only warnings and errors are written,
    whose lines may have in them what they send and receive. Replaces an earlier set-up. Write
    errors, such as a reader that has closed the pipe, are ignored.
    """
    handler = logging.StreamHandler(sys.stdout if stream is None else stream)
    handler.setFormatter(JsonFormatter() if json else TextFormatter())
    logging.raiseExceptions = False
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(number)


class LineWriter:
    """Writes raw lines to a file descriptor every ``interval_s`` from its own thread.

    A stalled reader therefore never stalls the event loop. Lines beyond ``max_buffer_bytes`` of
    unwritten data are dropped and counted in ``dropped``. In a pipe that several processes write
    to, lines of up to 4096 bytes stay intact. Call `write` only from the loop's thread.
    """

    def __init__(
        self,
        fd: int,
        *,
        render: Callable[[str], str] | None = None,
        max_buffer_bytes: int = 1 << 20,
        interval_s: float = 0.1,
    ) -> None:
        """``render`` is applied to each line by the writing thread."""
        self.dropped = 0
        self._fd = fd
        self._render = render
        self._max_bytes = max_buffer_bytes
        self._interval_s = interval_s
        self._lines: list[str] = []
        # Each counter has one writer: the loop's thread, and the writing thread.
        self._accepted_bytes = 0
        self._written_bytes = 0
        # What may be added before the counters are compared again, and how much that was.
        self._room_bytes = self._measured_bytes = max_buffer_bytes
        self._timer: asyncio.TimerHandle | None = None
        self._handed: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Add ``line``, ASCII text that ends with its newline. Needs a running loop."""
        room_bytes = self._room_bytes - len(line)
        if room_bytes < 0:
            room_bytes = self._measure_room() - len(line)
            if room_bytes < 0:
                self.dropped += 1
                return
        self._room_bytes = room_bytes
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self.flush)

    def _measure_room(self) -> int:
        """Return how many bytes may be added now."""
        self._accepted_bytes += self._measured_bytes - self._room_bytes
        room_bytes = self._max_bytes - (self._accepted_bytes - self._written_bytes)
        self._room_bytes = self._measured_bytes = room_bytes
        return room_bytes

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
            shown = lines if self._render is None else list(map(self._render, lines))
            for batch in join_for_pipe(shown) if is_pipe else ["".join(shown)]:
                # Encoded here, because one long text costs less than many short ones.
                is_open = is_open and self._write_all(batch.encode())
            self._written_bytes += sum(map(len, lines))

    def _write_all(self, data: bytes) -> bool:
        """Write ``data``. Return False if the descriptor is no longer writable."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:
                return False
        return True


def join_for_pipe(lines: list[str]) -> list[str]:
    """Join ``lines`` into batches of at most `_PIPE_BUF` bytes, split only between lines."""
    batches: list[str] = []
    batch: list[str] = []
    batch_bytes = 0
    for line in lines:
        if batch and batch_bytes + len(line) > _PIPE_BUF:
            batches.append("".join(batch))
            batch = []
            batch_bytes = 0
        batch.append(line)
        batch_bytes += len(line)
    batches.append("".join(batch))
    return batches
