"""A request body on its way: the first part for the envelope, the rest for GET attach.

With a known length the envelope waits for ``min(length, 32 KiB)``; with an unknown length it takes
what arrived with the head and never waits, because a client may send nothing more until it gets a
response (`spec/invocation.md` §3).
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

    def is_enough(self) -> bool:
        """Whether the first part is complete (known length only)."""
        length = self._length
        return length is not None and self.arrived_bytes >= min(length, INLINE_BODY_BYTES)

    def take_first_part(self) -> bytes:
        """Return what goes into the envelope; keeps what is beyond it."""
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
        """Whether anything is, or may come, beyond the first part. Ask after taking it."""
        if self._length is not None:
            return self._length > self.inline_bytes
        return not self._whole or bool(self._held)

    def rest_bytes(self) -> int | None:
        """Return the length of what GET attach will carry, if it is known."""
        if self._length is not None:
            return self._length - self.inline_bytes
        return self.arrived_bytes - self.inline_bytes if self._whole else None

    def add(self, data: bytes) -> bool:
        """Take the next bytes; True when they went on to the worker, False when they are held."""
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
        """Send the rest to ``sink``, after its head: what is held now, then what comes."""
        self._sink = sink
        self.was_handed_out = True
        held, self._held = self._held, []
        for data in held:
            sink.send_data(data)
        if self._whole:
            self._sink = None
            sink.send_end()

    def detach(self) -> None:
        """The worker wants no more of it."""
        self._sink = None

    def break_off(self) -> None:
        """Nobody wants the body any more; a worker that reads it must see that it is not whole."""
        self._held = []
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.abort()
