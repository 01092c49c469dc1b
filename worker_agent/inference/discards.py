"""Requests that still run at the inference server although nobody waits for their responses.

Closing the connection would tell us nothing about the server: many go on to the end of their work.
So the agent only ends its own half of the connection, reads what comes, and keeps the slot until

* the response ends, or the server closes the connection: servers that watch for the end of their
  input (uvicorn, Node, hyper) stop and do so at once;
* ``grace_s`` is over. Then the connection is reset, so that the server's next write fails.

A server that goes on writing is not reset before: after a reset nothing would show when it is done,
and its slot would have to stay taken for as long.
"""

from collections.abc import Callable

from http1.stream import Failure, Headers, NullResponseStream, RequestWriter


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
        response = DiscardedResponse(self, writer, done, self._clock() + self._grace_s)
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

    def ended(self, response: "DiscardedResponse") -> None:
        """The inference server is done with a response."""
        if response in self._responses:
            self._responses.remove(response)
            response.done()


class DiscardedResponse(NullResponseStream):
    """The rest of one response; ``free_at`` is when its slot is free whatever the server does.

    ``is_silent``: nothing of it has come since it was discarded.
    """

    __slots__ = ("_discards", "_writer", "done", "free_at", "is_silent")

    def __init__(
        self,
        discards: Discards,
        writer: RequestWriter,
        done: Callable[[], object],
        free_at: float,
    ) -> None:
        self._discards = discards
        self._writer = writer
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
        self.is_silent = False

    def response_data(self, data: bytes) -> None:  # noqa: ARG002
        """Note that the server writes."""
        self.is_silent = False

    def response_end(self) -> None:
        """The server is done."""
        self._discards.ended(self)

    def response_failed(self, failure: Failure) -> None:
        """The server closed the connection, or writes what is not HTTP."""
        if failure is Failure.INVALID:
            self._writer.discard(self)
        else:
            self._discards.ended(self)
