"""Requests that still run at the inference server although nobody waits for their responses.

Closing the connection would tell us nothing about the server: many go on to the end of their work.
So the agent only ends its own half of the connection, reads what comes, and keeps the slot until

* the response ends, or the server closes the connection: servers that watch for the end of their
  input (uvicorn, Node, hyper) stop and do so at once;
* a server that goes on writing after `NOTICE_S` was reset, so that its next write fails, and had
  the time for that write: twice the longest pause between two of its writes;
* ``grace_s`` is over.
"""

from collections.abc import Callable

from http1.stream import Failure, Headers, NullResponseStream, RequestWriter

NOTICE_S = 0.5
"""Time for a server to stop writing after the end of its input, and at least for one more write."""


class Discards:
    """All discarded responses of one inference server; each of them holds a slot."""

    __slots__ = ("_clock", "_grace_s", "_on_unresponsive", "_responses")

    def __init__(
        self, grace_s: float, clock: Callable[[], float], on_unresponsive: Callable[[], object]
    ) -> None:
        """``on_unresponsive``: the server let ``grace_s`` seconds pass without sending a byte."""
        self._grace_s = grace_s
        self._clock = clock
        self._on_unresponsive = on_unresponsive
        self._responses: set[DiscardedResponse] = set()

    def add(self, writer: RequestWriter, done: Callable[[], object]) -> None:
        """Discard the rest of a response; ``done`` is called when its slot is free."""
        now = self._clock()
        response = DiscardedResponse(self, writer, done, now, now + self._grace_s)
        self._responses.add(response)
        writer.discard(response)

    def sweep(self) -> None:
        """End those whose time is over; to be called about twice a second."""
        now = self._clock()
        for response in [response for response in self._responses if response.free_at <= now]:
            response.give_up()
            if response.is_silent:
                self._on_unresponsive()
            self.ended(response)

    # Called by the responses

    def now(self) -> float:
        """Return the time in seconds."""
        return self._clock()

    def ended(self, response: "DiscardedResponse") -> None:
        """The inference server is done with a response."""
        if response in self._responses:
            self._responses.remove(response)
            response.done()


class DiscardedResponse(NullResponseStream):
    """The rest of one response; ``free_at`` is when its slot is free whatever the server does.

    ``is_silent``: nothing of it has come since it was discarded.
    """

    __slots__ = (
        "_discards",
        "_longest_pause_s",
        "_read_at",
        "_since",
        "_writer",
        "done",
        "free_at",
        "is_silent",
    )

    def __init__(
        self,
        discards: Discards,
        writer: RequestWriter,
        done: Callable[[], object],
        now: float,
        free_at: float,
    ) -> None:
        self._discards = discards
        self._writer = writer
        self._since = self._read_at = now
        self._longest_pause_s = 0.0
        self.done = done
        self.free_at = free_at
        self.is_silent = True

    def give_up(self) -> None:
        """Wait no longer; the server's next write fails."""
        self._writer.reset()

    def response_whole(
        self,
        status: int,  # noqa: ARG002  only that it has come counts
        headers: Headers,  # noqa: ARG002
        body_bytes: int | None,  # noqa: ARG002
        body: bytes,  # noqa: ARG002
    ) -> None:
        """The server is done."""
        self._discards.ended(self)

    def response_head(
        self,
        status: int,  # noqa: ARG002
        headers: Headers,  # noqa: ARG002
        body_bytes: int | None,  # noqa: ARG002
    ) -> None:
        """Note that the server writes."""
        self._note_read()

    def response_data(self, data: bytes) -> None:  # noqa: ARG002
        """Note that the server writes."""
        self._note_read()

    def response_end(self) -> None:
        """The server is done."""
        self._discards.ended(self)

    def response_broken(self, failure: Failure, *, is_stale: bool) -> None:  # noqa: ARG002
        """The server closed the connection, or writes what is not HTTP."""
        if failure is Failure.INVALID:
            self._writer.discard(self)
        else:
            self._discards.ended(self)

    def _note_read(self) -> None:
        now = self._discards.now()
        self.is_silent = False
        self._longest_pause_s = max(self._longest_pause_s, now - self._read_at)
        self._read_at = now
        if now - self._since >= NOTICE_S:
            # It does not watch for the end of its input.
            self._writer.reset()
            self.free_at = min(self.free_at, now + max(NOTICE_S, 2 * self._longest_pause_s))
