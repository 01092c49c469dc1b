"""A request body on its way: the first part for the envelope, the rest for the worker's GET.

With a known length the envelope waits for ``min(length, 32 KiB)``. With an unknown length it takes
what arrived with the head and never waits, because a client may send nothing more until it gets a
response (`docs/wire.md` §3.2).
"""

from http1.stream import ResponseWriter
from wire.envelope import INLINE_BODY_BYTES


class Upload:
    """The body of one request. Holds at most 32 KiB plus one read of the client's socket."""

    __slots__ = (
        "_held",
        "_length",
        "_sink",
        "_whole",
        "arrived_bytes",
        "inline_bytes",
        "was_handed_out",
    )

    def __init__(self, length: int | None) -> None:
        """``length`` is the announced length, ``None`` when it is not known."""
        self._length = length
        self._held: list[bytes] = []
        self._sink: ResponseWriter | None = None
        self._whole = False
        self.arrived_bytes = 0
        self.inline_bytes = 0
        self.was_handed_out = False
        """Whether a worker's GET got the rest; it is not kept, so no second one can get it."""

    def is_first_part_complete(self) -> bool:
        """Return whether the envelope's part has arrived; False for a body of unknown length."""
        length = self._length
        return length is not None and self.arrived_bytes >= min(length, INLINE_BODY_BYTES)

    def take_first_part(self) -> bytes:
        """Return the envelope's part and keep what lies beyond it."""
        held = self._held
        whole = held[0] if len(held) == 1 else b"".join(held)
        if len(whole) > INLINE_BODY_BYTES:
            self._held = [whole[INLINE_BODY_BYTES:]]
            whole = whole[:INLINE_BODY_BYTES]
        else:
            self._held = []
        self.inline_bytes = len(whole)
        return whole

    def has_rest(self) -> bool:
        """Return whether there is, or may be, more than the first part. Call after taking it.

        This is the only place that decides whether a worker has to come back for the body.
        """
        if self._length is not None:
            return self._length > self.inline_bytes
        return not self._whole or bool(self._held)

    def rest_bytes(self) -> int | None:
        """Return the length of the rest, ``None`` when it is not known yet."""
        if self._length is not None:
            return self._length - self.inline_bytes
        return self.arrived_bytes - self.inline_bytes if self._whole else None

    def add(self, data: bytes) -> bool:
        """Take the next bytes; return whether they went on to a worker (False: they are held)."""
        self.arrived_bytes += len(data)
        if self._sink is not None:
            self._sink.send_data(data)
            return True
        self._held.append(data)
        return False

    def finish(self) -> None:
        """The client's body is complete."""
        self._whole = True
        if self._sink is not None:
            self._sink.send_end()
            self._sink = None

    def attach(self, sink: ResponseWriter) -> None:
        """Send the rest to ``sink``, whose head was sent: what is held now, then what arrives."""
        self._sink = sink
        self.was_handed_out = True
        held, self._held = self._held, []
        for data in held:
            sink.send_data(data)
        if self._whole:
            self._sink = None
            sink.send_end()

    def detach(self) -> None:
        """The worker needs no more of the body."""
        self._sink = None

    def abort(self) -> None:
        """Drop the body; a worker that is still reading it sees a broken stream."""
        self._held = []
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.abort()
