"""A request body on its way: the first part for the envelope, the rest for the worker's GET.

The first part is up to 32 KiB. A longer body is collected before the call is offered to workers
(`gateway.invocation.collection`). A body that is not collected flows through: with a known length
the envelope waits for ``min(length, 32 KiB)``, with an unknown length it takes what arrived with
the head and never waits (`docs/wire.md` §3.2).

A body that was collected as a whole can be handed out again, until a response head is there.
"""

from gateway.invocation.collection import Collection, SpoolUser, UploadSpace
from http1.stream import ResponseWriter
from wire.envelope import INLINE_BODY_BYTES


def smaller_limit(limit: int, other: int) -> int:
    """Return the smaller of two limits of a body in bytes; 0 is none."""
    return min(limit, other) if limit and other else limit or other


class Upload:
    """The body of one request. Holds at most 32 KiB, one read of the socket, and a collection."""

    __slots__ = (
        "_collection",
        "_first_part",
        "_has_ended",
        "_is_offered",
        "_is_paused",
        "_keeps",
        "_length",
        "_sink",
        "_space",
        "arrived_bytes",
        "flows",
        "inline_bytes",
        "was_handed_out",
    )

    def __init__(self, length: int | None, space: UploadSpace) -> None:
        """``length`` is the announced length, ``None`` when it is not known."""
        self._length = length
        self._space = space
        self._first_part: bytes | bytearray = b""
        self._collection: Collection | None = None
        self._sink: ResponseWriter | None = None
        self._is_offered = False
        self._is_paused = False
        self._has_ended = False
        self._keeps = True
        self.arrived_bytes = 0
        self.inline_bytes = 0
        self.was_handed_out = False
        """Whether a worker's GET got the rest."""
        self.flows = False
        """Whether the body goes on to the worker as it comes, collected or not."""

    # Before the call is offered

    def is_ready(self) -> bool:
        """Return whether the call can be offered to workers: no more is to be collected first.

        A body of unknown length that is not collected is ready with the end of its first part,
        which is not known here.
        """
        collection = self._collection
        if collection is not None:
            return (collection.is_full or self.is_whole()) and not collection.is_writing
        if self.is_whole():
            return True
        length = self._length
        if length is None or self.arrived_bytes < INLINE_BODY_BYTES:
            return False
        return not self.is_collected()

    def is_collectable(self) -> bool:
        """Return whether what has arrived is more than the envelope's, and is to be collected."""
        return (
            self.arrived_bytes > INLINE_BODY_BYTES
            and self._collection is None
            and self.is_collected()
        )

    def is_collected(self) -> bool:
        """Return whether the body is collected before the call is offered to workers."""
        return not self.flows and self._space.takes(self._length)

    def collect(self, user: SpoolUser) -> None:
        """Collect the body from here on; ``user`` is told when a write has ended."""
        self._collection = Collection(self._space, user, self._length)
        self._split()

    def is_behind(self) -> bool:
        """Return whether the file is behind the client, which should send no more for now."""
        return self._collection is not None and self._collection.is_behind()

    def is_whole(self) -> bool:
        """Return whether the body is complete."""
        return self._has_ended or (self._length is not None and self.arrived_bytes >= self._length)

    def take_first_part(self) -> bytes:
        """Return the envelope's part and hold what lies beyond it."""
        if self._collection is None and len(self._first_part) > INLINE_BODY_BYTES:
            self._collection = Collection(self._space)
            self._split()
        self._is_offered = True
        first_part, self._first_part = bytes(self._first_part), b""
        self.inline_bytes = len(first_part)
        return first_part

    def _split(self) -> None:
        """Move what has arrived beyond the envelope's part to the collection."""
        held, collection = self._first_part, self._collection
        if collection is not None and len(held) > INLINE_BODY_BYTES:
            self._first_part = held[:INLINE_BODY_BYTES]
            collection.add(held[INLINE_BODY_BYTES:])

    # Afterwards

    def has_rest(self) -> bool:
        """Return whether there is, or may be, more than the first part. Call after taking it.

        This is the only place that decides whether a worker has to come back for the body.
        """
        if self._length is not None:
            return self._length > self.inline_bytes
        return not self._has_ended or self.arrived_bytes > self.inline_bytes

    def rest_bytes(self) -> int | None:
        """Return the length of the rest, ``None`` when it is not known yet."""
        if self._length is not None:
            return self._length - self.inline_bytes
        return self.arrived_bytes - self.inline_bytes if self._has_ended else None

    def is_flowing(self) -> bool:
        """Return whether a worker waits for what the client sends next."""
        return self._sink is not None and self._collection is None and not self._is_paused

    def is_lost(self) -> bool:
        """Return whether a worker got the rest, and no other one can."""
        return self.was_handed_out and (self._collection is None or not self.is_whole())

    def add(self, data: bytes) -> bool:
        """Take the next bytes; return whether they went on to a worker (False: they are held)."""
        self.arrived_bytes += len(data)
        if self._collection is not None:
            self._collection.add(data)
        elif self._sink is not None:
            self._sink.send_data(data)
            return True
        elif self._is_offered:
            self._collection = Collection(self._space)
            self._collection.add(data)
        elif not self._first_part:
            self._first_part = data
        else:
            # Not a list of what came: its elements may be of one byte each.
            if not isinstance(self._first_part, bytearray):
                self._first_part = bytearray(self._first_part)
            self._first_part += data
        return False

    def finish(self) -> None:
        """The client's body is complete."""
        self._has_ended = True
        if self._sink is None:
            return
        if self._collection is None:
            sink, self._sink = self._sink, None
            sink.send_end()
        else:
            self._send()

    def attach(self, sink: ResponseWriter) -> None:
        """Send the rest to ``sink``, whose head was sent: what is held now, then what arrives."""
        before, self._sink = self._sink, sink
        self.was_handed_out = True
        self._is_paused = False
        if before is not None:
            before.abort()
        if self._collection is not None:
            self._collection.rewind()
        self._send()

    def pause(self) -> None:
        """The worker reads slower than it is sent to."""
        self._is_paused = True

    def resume(self) -> None:
        """The worker has caught up."""
        self._is_paused = False
        self._send()

    def spool_written(self, *, is_written: bool) -> None:
        """A write of the file has ended."""
        if self._collection is not None:
            self._collection.written(is_written=is_written)

    def spool_read(self, data: bytes) -> None:
        """A read of the file has ended; without ``data`` the body is lost."""
        if self._collection is None:
            return
        if self._collection.read(data):
            self._send()
        else:
            self.abort()

    def _send(self) -> None:
        """Send what is held, as far as the worker takes it; then its end, if it has ended."""
        while self._sink is not None and not self._is_paused:
            collection = self._collection
            if collection is None or collection.is_drained():
                self._end_sending(self._sink)
                return
            data = collection.take()
            if not data:
                return
            self._sink.send_data(data)

    def _end_sending(self, sink: ResponseWriter) -> None:
        """The worker has everything that was held."""
        if self._has_ended:
            self._sink = None
            if not self._keeps:
                self._drop()
            sink.send_end()
        elif not self.is_whole():
            self._drop()

    def respond(self) -> None:
        """A response head is there: no other worker gets the body."""
        self._keeps = False
        if self.was_handed_out and self._sink is None:
            self._drop()

    def detach(self) -> None:
        """The worker needs no more of the body."""
        self._sink = None
        if not self._keeps:
            self._drop()

    def abort(self) -> None:
        """Drop the body; a worker that is still reading it sees a broken stream."""
        self._first_part = b""
        self._drop()
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.abort()

    def _drop(self) -> None:
        if self._collection is not None:
            collection, self._collection = self._collection, None
            collection.close()
