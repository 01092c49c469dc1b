"""What is collected of a request body before its call is offered to workers.

A slow upload must not hold a worker's slot, so a body is collected first, up to a bound per call
and per process: in memory while it is small and there is space, else in a file. What does not fit
flows through while the worker already has the call. The first 32 KiB are not here: they are in the
envelope.

Pure: the file is a port. It does one operation at a time and reports the end of each one to its
user, so that a slow disk stops this upload and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

BATCH_BYTES = 262_144
"""Bytes of one write to a file, and of one read: each costs a change of threads."""
STEP_BYTES = 65_536
"""Bytes that go from memory to a worker at a time: what may wait on its connection."""


class SpoolUser(Protocol):
    """Who uses a file: an invocation."""

    def spool_written(self, *, is_written: bool) -> None:
        """The last write has ended; False if it failed, for example because the disk is full."""

    def spool_read(self, data: bytes) -> None:
        """What was to be read; empty if it could not be read."""


class SpoolFile(Protocol):
    """A file that ends with its process. The next operation begins after the end of the last."""

    def write(self, data: bytes | bytearray) -> None:
        """Append ``data``, which must not change; `SpoolUser.spool_written` follows."""

    def read(self, at: int, size: int) -> None:
        """Read ``size`` bytes at offset ``at``; `SpoolUser.spool_read` follows."""

    def close(self) -> None:
        """Delete the file. No call follows, also not for an operation that has begun."""


@dataclass(frozen=True, slots=True)
class CollectionBounds:
    """How much is collected, in bytes. A call's bounds of 0 mean that nothing is.

    ``memory_bytes`` and ``spool_bytes`` are for one body, ``memory_total_bytes`` and
    ``spool_total_bytes`` for all bodies of the process.
    """

    memory_bytes: int = 0
    memory_total_bytes: int = 0
    spool_bytes: int = 0
    spool_total_bytes: int = 0


class UploadSpace:
    """The bounds of a process, and how much of them its bodies use."""

    __slots__ = ("bounds", "max_call_bytes", "memory_bytes", "open_file", "spool_bytes")

    def __init__(
        self, bounds: CollectionBounds, open_file: Callable[[SpoolUser], SpoolFile]
    ) -> None:
        self.bounds = bounds
        self.open_file = open_file
        self.max_call_bytes = max(bounds.memory_bytes, bounds.spool_bytes)
        self.memory_bytes = 0
        self.spool_bytes = 0

    def takes(self, length: int | None) -> bool:
        """Return whether a body is collected; of one of unknown length (None), as much as fits."""
        most = self.max_call_bytes
        return most > 0 if length is None else length <= most


class Collection:
    """The bytes of one body that no worker has for good: first a file's, then those in memory.

    ``is_full``: no more is collected; what arrives nevertheless is held in memory. ``is_writing``:
    the file takes bytes; `written` follows.
    """

    __slots__ = (
        "_ahead",
        "_at",
        "_batch",
        "_batch_bytes",
        "_file",
        "_file_bytes",
        "_is_outdated",
        "_is_reading",
        "_memory",
        "_space",
        "_user",
        "is_full",
    )

    def __init__(
        self,
        space: UploadSpace,
        user: SpoolUser | None = None,
        expected_bytes: int | None = None,
    ) -> None:
        """``expected_bytes`` is the announced length, ``None`` if it is not known.

        Without ``user`` nothing is collected: what arrives is held until a worker takes it.
        """
        self._space = space
        self._user = user
        in_memory = space.bounds.memory_bytes
        # A body that cannot stay in memory goes to the file from its first batch on.
        is_long = expected_bytes is not None and expected_bytes > in_memory
        self._batch_bytes = min(in_memory, BATCH_BYTES) if is_long else in_memory
        self._memory = bytearray()
        self._batch: bytearray | None = None
        self._file: SpoolFile | None = None
        self._file_bytes = 0
        self._at = 0
        self._ahead = b""
        self._is_reading = False
        self._is_outdated = False
        self.is_full = user is None

    @property
    def is_writing(self) -> bool:
        return self._batch is not None

    # In

    def is_behind(self) -> bool:
        """Return whether the client should send no more before `written`."""
        space = self._space
        return self._batch is not None and (
            len(self._memory) >= BATCH_BYTES or space.memory_bytes > space.bounds.memory_total_bytes
        )

    def add(self, data: bytes | bytearray) -> None:
        """Take the next bytes."""
        self._memory += data
        self._space.memory_bytes += len(data)
        self._spill()

    def written(self, *, is_written: bool) -> None:
        """The file has taken the last batch, or not: then nothing more is collected."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        if is_written:
            self._file_bytes += len(batch)
            self._space.memory_bytes -= len(batch)
            self._batch_bytes = BATCH_BYTES
            self._spill()
        else:
            self._space.spool_bytes -= len(batch)
            self._memory = batch + self._memory
            self.is_full = True

    def _spill(self) -> None:
        """Write to the file what memory is not to hold."""
        user = self._user
        if self.is_full or self._batch is not None or user is None:
            return
        space, memory = self._space, self._memory
        bounds, size = space.bounds, len(memory)
        has_room = size <= self._batch_bytes and space.memory_bytes <= bounds.memory_total_bytes
        if not size or has_room:
            return
        if (
            self._file_bytes + size > bounds.spool_bytes
            or space.spool_bytes + size > bounds.spool_total_bytes
        ):
            self.is_full = True
            return
        if self._file is None:
            self._file = space.open_file(user)
        self._batch, self._memory = memory, bytearray()
        space.spool_bytes += size
        self._file.write(memory)

    # Out

    def rewind(self) -> None:
        """Begin again with the first byte."""
        self._at = 0
        self._ahead = b""
        self._is_outdated = self._is_reading

    def is_drained(self) -> bool:
        """Return whether everything that was collected has been taken."""
        return self._at == self._file_bytes + len(self._memory)

    def take(self) -> bytes:
        """Return the next bytes; empty after the last, and if `read` must bring them first."""
        if self._at < self._file_bytes:
            data, self._ahead = self._ahead, b""
            self._at += len(data)
            # The file is read while the worker takes what was read before.
            self._read_ahead()
            return data
        at = self._at - self._file_bytes
        data = bytes(self._memory[at : at + STEP_BYTES])
        self._at += len(data)
        return data

    def read(self, data: bytes) -> bool:
        """The file has brought ``data`` for `take`; return False if it is empty: the body is lost.

        Data for which the reader has changed meanwhile is dropped.
        """
        self._is_reading = False
        if not self._is_outdated:
            self._ahead = data
        self._is_outdated = False
        return bool(data)

    def _read_ahead(self) -> None:
        size = min(BATCH_BYTES, self._file_bytes - self._at)
        if size and self._file is not None and not self._is_reading:
            self._is_reading = True
            self._file.read(self._at, size)

    def close(self) -> None:
        """Give up everything, file and memory."""
        space = self._space
        space.memory_bytes -= len(self._memory)
        space.spool_bytes -= self._file_bytes
        if self._batch is not None:
            space.memory_bytes -= len(self._batch)
            space.spool_bytes -= len(self._batch)
        self._memory = bytearray()
        self._batch = None
        file, self._file = self._file, None
        if file is not None:
            file.close()
