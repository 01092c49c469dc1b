"""Finds an event by its id in a stream of server-sent events (HTML standard). Pure."""

import re

_MAX_LINE_BYTES = 1024
"""What is kept of a line: a longer one is no id that anybody sends back."""
_line_end = re.compile(rb"\r\n|\n|\r(?!\Z)")


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
        # A carriage return at the end of the last ones may have been half a line end.
        held = b"\r" if self._line.endswith(b"\r") else b""
        line, data = self._line.removesuffix(b"\r"), held + data
        begin, at = self._at - len(held), 0
        for end in _line_end.finditer(data):
            self._end_line(line + data[at : end.start()], begin + end.end())
            line, at = b"", end.end()
        self._at = begin + len(data)
        rest = line + data[at:]
        if len(rest) > _MAX_LINE_BYTES:
            rest = rest[:_MAX_LINE_BYTES] + (b"\r" if rest.endswith(b"\r") else b"")
        self._line = rest

    def _end_line(self, line: bytes, at: int) -> None:
        if not line:
            if self._is_wanted:
                self.found_at = at
            self._is_wanted = False
            return
        name, _, value = line.partition(b":")
        if name == b"id":
            self._is_wanted = value.removeprefix(b" ") == self._id
