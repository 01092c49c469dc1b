"""A response as it is recorded, and followed by any number of clients, each at its own pace.

Bytes stay in memory up to `MEMORY_BYTES`; more go to a file, in batches. A follower that keeps up
gets the bytes as they come. One that is behind, or comes late, reads the file until it has caught
up. A file does one operation at a time: the next write, or the next read of one follower. The
writer of the response is slowed down only by the disk (`is_behind`).

Pure: the file is a port, as in `gateway.invocation.collection`.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from gateway.invocation.collection import BATCH_BYTES, STEP_BYTES, SpoolFile, SpoolUser
from http1.stream import NO_TRAILERS, EncodedHead, Headers

MEMORY_BYTES = 65_536
"""Bytes of one recording that stay in memory; a longer one goes to a file."""
MEMORY_TOTAL_BYTES = 67_108_864
"""Bytes of all recordings of a process in memory; above it, shorter ones go to files too."""
MAX_FOLLOWERS = 64
"""Followers of one recording at the same time."""


class RecordingSpace:
    """What the recordings of one process use, in bytes."""

    __slots__ = ("memory_bytes", "open_file", "spool_bytes")

    def __init__(self, open_file: Callable[[SpoolUser], SpoolFile]) -> None:
        self.open_file = open_file
        self.memory_bytes = 0
        self.spool_bytes = 0


class Follower(Protocol):
    """Who follows a recording. Each call may come inside `RecordingCursor.pump` and ``resume``."""

    def recorded_head(self, recording: "Recording") -> None:
        """The head is there: ``recording.status`` and ``recording.headers``."""

    def recorded_data(self, data: bytes) -> None:
        """Take the next bytes of the body."""

    def recorded_end(self) -> None:
        """The response is complete; ``recording.trailers`` end it. No call follows."""

    def recorded_broken(self) -> None:
        """The rest of the response will never come. No call follows."""


class RecordingUser(Protocol):
    """Whose response is recorded."""

    def caught_up(self) -> None:
        """The disk has caught up: `Recording.is_behind` is false again."""

    def spool_failed(self) -> None:
        """The file cannot be written or read: the recording is lost."""


class RecordingCursor:
    """One follower's place in a recording. ``at`` is the next byte of the body that it gets."""

    __slots__ = (
        "_ahead",
        "_follower",
        "_has_head",
        "_is_pumping",
        "_is_reading",
        "_recording",
        "at",
        "is_paused",
    )

    def __init__(self, recording: "Recording", follower: Follower, at: int) -> None:
        self._recording: Recording | None = recording
        self._follower = follower
        self._ahead = b""
        self._has_head = self._is_pumping = self._is_reading = False
        self.at = at
        self.is_paused = False

    def pause(self) -> None:
        """Bring no more bytes for now."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on."""
        self.is_paused = False
        self.pump()

    def leave(self) -> None:
        """Follow no longer: the follower is not called any more."""
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.left(self)

    def pump(self) -> None:
        """Bring the follower what there is for it, until it pauses."""
        if self._is_pumping:
            return
        self._is_pumping = True
        while self._step():
            pass
        self._is_pumping = False

    def live(self, data: bytes) -> None:
        """``data`` was just recorded: bring it, if it is what comes next for the follower."""
        recording = self._recording
        if (
            recording is not None
            and self._has_head
            and not self.is_paused
            and not self._is_pumping
            and self.at + len(data) == recording.size
        ):
            self.at += len(data)
            self._follower.recorded_data(data)
        else:
            self.pump()

    def was_read(self, data: bytes) -> None:
        """The file has brought the next bytes."""
        self._is_reading = False
        self._ahead = data
        self.pump()

    def was_lost(self) -> None:
        """The recording is lost."""
        if self._recording is not None:
            self.leave()
            self._follower.recorded_broken()

    def _step(self) -> bool:
        """Bring the next thing; return whether more may follow at once."""
        recording = self._recording
        if recording is None or self.is_paused or self._is_reading:
            return False
        if recording.status and not self._has_head:
            self._has_head = True
            self._follower.recorded_head(recording)
            return True
        if self.at < recording.size:
            return self._step_data(recording)
        if recording.is_over:
            self.leave()
            if recording.is_broken:
                self._follower.recorded_broken()
            else:
                self._follower.recorded_end()
        return False

    def _step_data(self, recording: "Recording") -> bool:
        """Bring the next bytes, or have them read."""
        data, self._ahead = self._ahead or recording.in_memory(self.at), b""
        if not data:
            self._is_reading = True
            recording.read(self)
            return False
        self.at += len(data)
        self._follower.recorded_data(data)
        return True


class Recording:
    """One response: its head, its body as far as it has come, and how it ended.

    ``status`` is 0 before the head. ``body_bytes`` is the announced length, ``None`` if it is not
    known. ``size`` counts the bytes of the body so far. ``is_over``: no more will come;
    ``is_broken``: before the response was complete.
    """

    __slots__ = (
        "_batch",
        "_cursors",
        "_file",
        "_file_bytes",
        "_headers",
        "_is_busy",
        "_is_unwanted",
        "_memory",
        "_readers",
        "_space",
        "_user",
        "body_bytes",
        "encoded",
        "is_broken",
        "is_over",
        "more_lines",
        "size",
        "status",
        "trailers",
    )

    def __init__(self, space: RecordingSpace, user: RecordingUser) -> None:
        self._space = space
        self._user = user
        self._memory: bytes | bytearray = b""
        self._batch: bytes | bytearray | None = None
        self._file: SpoolFile | None = None
        self._file_bytes = 0
        self._is_busy = self._is_unwanted = False
        self._readers: deque[RecordingCursor] | None = None
        self._cursors: list[RecordingCursor] | None = None
        self._headers: Headers | None = None
        self.status = 0
        self.body_bytes: int | None = None
        self.encoded: EncodedHead | None = None
        self.more_lines = b""
        self.trailers = NO_TRAILERS
        self.size = 0
        self.is_over = self.is_broken = False

    @property
    def headers(self) -> Headers:
        """The headers of the head; without framing, as in `http1.stream.ResponseWriter`."""
        if self._headers is None:
            self._headers = _decoded(self.encoded, self.more_lines)
        return self._headers

    @property
    def follower_count(self) -> int:
        return 0 if self._cursors is None else len(self._cursors)

    # In

    def begin(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Record the head."""
        self.status, self._headers, self.body_bytes = status, headers, body_bytes
        self._pump()

    def record_whole(
        self,
        head: EncodedHead,
        more_lines: bytes,
        body_bytes: int | None,
        body: bytes,
        trailers: Headers,
    ) -> None:
        """Record a whole response, as `http1.stream.ResponseWriter.send_whole` has it."""
        self.encoded, self.more_lines = head, more_lines
        self.status, self.body_bytes, self.trailers = head.status, body_bytes, trailers
        self._take(body)
        self.is_over = True
        self._pump()

    def add(self, data: bytes) -> None:
        """Record the next bytes of the body."""
        self._take(data)
        for cursor in tuple(self._cursors or ()):
            cursor.live(data)

    def finish(self, trailers: Headers = NO_TRAILERS) -> None:
        """The response is complete."""
        self.trailers = trailers
        self.is_over = True
        self._pump()

    def break_off(self) -> None:
        """The response will never be complete."""
        self.is_over = self.is_broken = True
        self._pump()

    def is_behind(self) -> bool:
        """Return whether the disk is behind: record no more before `RecordingUser.caught_up`."""
        return self._batch is not None and (
            len(self._memory) >= BATCH_BYTES or self._space.memory_bytes > MEMORY_TOTAL_BYTES
        )

    def _take(self, data: bytes) -> None:
        if not data:
            return
        self.size += len(data)
        self._space.memory_bytes += len(data)
        if not self._memory:
            self._memory = data
        else:
            if not isinstance(self._memory, bytearray):
                self._memory = bytearray(self._memory)
            self._memory += data
        self._spill()

    def _spill(self) -> None:
        """Begin to write what memory is not to hold, unless the file is busy."""
        size = len(self._memory)
        limit = BATCH_BYTES if self._file_bytes else MEMORY_BYTES
        is_short = size <= limit and self._space.memory_bytes <= MEMORY_TOTAL_BYTES
        if self._is_busy or self._batch is not None or not size or is_short:
            return
        if self._file is None:
            self._file = self._space.open_file(self)
        self._batch, self._memory = self._memory, b""
        self._space.spool_bytes += size
        self._is_busy = True
        self._file.write(self._batch)

    # The file

    def spool_written(self, *, is_written: bool) -> None:
        """A write has ended."""
        self._is_busy = False
        batch, self._batch = self._batch, None
        if batch is None:
            return
        if not is_written:
            self._space.memory_bytes -= len(batch)
            self._space.spool_bytes -= len(batch)
            self._lose()
            return
        self._file_bytes += len(batch)
        self._space.memory_bytes -= len(batch)
        self._next()
        if not self.is_behind():
            self._user.caught_up()

    def spool_read(self, data: bytes) -> None:
        """A read has ended; ``data`` is empty if it failed."""
        self._is_busy = False
        cursor = None if self._readers is None else self._readers.popleft()
        if not data:
            self._lose()
            return
        self._next()
        if cursor is not None:
            cursor.was_read(data)

    def _lose(self) -> None:
        """The file cannot be used: what is in it is lost."""
        self.is_over = self.is_broken = True
        for cursor in tuple(self._cursors or ()):
            cursor.was_lost()
        self._user.spool_failed()

    def _next(self) -> None:
        """Begin the next operation of the file: a write first, because it frees memory."""
        self._spill()
        if not self._is_busy and self._readers and self._file is not None:
            self._is_busy = True
            at = self._readers[0].at
            self._file.read(at, min(BATCH_BYTES, self._file_bytes - at))

    # Out

    def follow(self, follower: Follower, at: int = 0) -> RecordingCursor:
        """Bring ``follower`` the head and the body from byte ``at`` on, and then what comes.

        What there is already may be brought before this returns: call `RecordingCursor.pump`.
        """
        cursor = RecordingCursor(self, follower, at)
        if self._cursors is None:
            self._cursors = []
        self._cursors.append(cursor)
        return cursor

    def in_memory(self, at: int) -> bytes:
        """Return bytes of the body from ``at`` on, empty if they must be read from the file."""
        if at < self._file_bytes:
            return b""
        at -= self._file_bytes
        if self._batch is not None:
            if at < len(self._batch):
                return bytes(self._batch[at : at + STEP_BYTES])
            at -= len(self._batch)
        if not at and len(self._memory) <= STEP_BYTES:
            return bytes(self._memory)
        return bytes(self._memory[at : at + STEP_BYTES])

    def whole(self) -> bytes | None:
        """Return the whole body if it is complete and in memory."""
        if self.is_over and not self.is_broken and self.size == len(self._memory):
            return bytes(self._memory)
        return None

    def read(self, cursor: RecordingCursor) -> None:
        """Read the file at the cursor, in its turn; `RecordingCursor.was_read` follows."""
        if self._readers is None:
            self._readers = deque()
        self._readers.append(cursor)
        if not self._is_busy:
            self._next()

    def left(self, cursor: RecordingCursor) -> None:
        """``cursor`` follows no longer."""
        if self._cursors is not None and cursor in self._cursors:
            self._cursors.remove(cursor)
            if self._is_unwanted and not self._cursors:
                self._drop()

    def drop_when_left(self) -> None:
        """Keep nothing of the body any more, once nobody follows it."""
        self._is_unwanted = True
        if not self._cursors:
            self._drop()

    def _drop(self) -> None:
        space = self._space
        space.memory_bytes -= len(self._memory)
        space.spool_bytes -= self._file_bytes
        if self._batch is not None:
            space.memory_bytes -= len(self._batch)
            space.spool_bytes -= len(self._batch)
        self._memory, self._batch, self._file_bytes = b"", None, 0
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _pump(self) -> None:
        for cursor in tuple(self._cursors or ()):
            cursor.pump()


def _decoded(head: EncodedHead | None, more_lines: bytes) -> Headers:
    if head is None:
        return []
    more = [line.partition(b": ") for line in more_lines.split(b"\r\n") if line]
    return head.headers + [(name, value) for name, _, value in more]
