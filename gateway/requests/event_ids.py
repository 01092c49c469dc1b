"""Finds an event by its id in a stream of server-sent events (HTML standard). Pure."""

_MAX_LINE_BYTES = 1024
"""What is kept of a line: a longer one is no id that anybody sends back."""
_BLANK = frozenset({b"\n", b"\r\n", b"\r"})


class EventSearch:
    """Looks for the event with an id in the bytes of a stream, as they come.

    ``found_at`` is the offset behind that event, ``None`` as long as it was not found; the last one
    counts if several have the id.
    """

    __slots__ = ("_at", "_id", "_is_wanted", "_line", "found_at")

    def __init__(self, event_id: bytes) -> None:
        self._id = event_id
        self._is_wanted = False
        self._line = b""
        self._at = 0
        self.found_at: int | None = None

    def add(self, data: bytes) -> None:
        """Look at the next bytes."""
        self._at += len(data)
        rest = self._line + data
        at = self._at - len(rest)
        # In C, and little for each line: whoever writes a function may send nothing but short ones.
        lines = rest.splitlines(keepends=True)
        # A carriage return at the end may be half a line end.
        self._line = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        for line in lines:
            at += len(line)
            if len(line) < 3 and line in _BLANK:
                if self._is_wanted:
                    self.found_at = at
                    self._is_wanted = False
            elif line.startswith(b"id"):
                self._field(line.rstrip(b"\r\n"))
        rest = self._line
        if len(rest) > _MAX_LINE_BYTES:
            self._line = rest[:_MAX_LINE_BYTES] + (b"\r" if rest.endswith(b"\r") else b"")

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"id":
            self._is_wanted = value.removeprefix(b" ") == self._id
