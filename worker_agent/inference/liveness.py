"""Whether the inference server gets requests, and when to probe it next. Pure: no I/O, no clock.

    UP       gets requests
    DOUBTED  gets none until a probe is healthy, and counts as healthy for the platform
    DOWN     gets none until a probe is healthy, and counts as unhealthy

A busy server is not a dead one: while connections with requests of ours are open on it, a probe
that is slow or not healthy is no evidence. A refused connection is evidence at any time: nobody
listens. A request that finds no room, whose connection ends before its response, or that was left
and shows no sign for the time of grace, gives rise to doubt: the next ones would suffer the same.

The first probe after such an event is sent at once, the following ones ever more rarely. A server
that fails again before it has served a request is probed later and later, up to the usual interval.
"""

from enum import Enum

RETRY_S = 0.1
"""Time to the second probe of a server in doubt; it doubles from probe to probe."""
MAX_RETRY_S = 1.0
"""The most that it grows to while no probe is healthy."""


class ServerState(Enum):
    """What the agent thinks of the inference server."""

    UP = 1
    DOUBTED = 2
    DOWN = 3


UP, DOUBTED, DOWN = ServerState


class Liveness:
    """The state of an inference server that has been healthy once.

    ``probe_in_s`` is the time from the last event to the next probe, in seconds.
    """

    __slots__ = ("_interval_s", "_max_misses", "_misses", "_retry_s", "probe_in_s", "state")

    def __init__(self, interval_s: float, max_misses: int) -> None:
        """Probe every ``interval_s``; ``max_misses`` in a row mean that the server is down."""
        self._interval_s = interval_s
        self._max_misses = max_misses
        self._misses = 0
        self._retry_s = 0.0
        self.state = UP
        self.probe_in_s = interval_s

    def healthy(self) -> None:
        """A probe had a healthy response."""
        if self.state is UP:
            self._retry_s = 0.0
        self._misses = 0
        self.state = UP
        self.probe_in_s = self._interval_s

    def missed(self, *, is_refused: bool, is_busy: bool) -> None:
        """A probe had none. ``is_busy``: requests of ours were on the server meanwhile."""
        if not is_busy:
            self._misses += 1
        if is_refused or self._misses >= self._max_misses:
            self.state = DOWN
        if self.state is UP:
            self.probe_in_s = self._interval_s
        else:
            self.probe_in_s = min(self._next_retry_s(), MAX_RETRY_S)

    def unreachable(self, *, is_busy: bool, has_served: bool) -> None:
        """A request found no connection.

        ``is_busy``: others have one, and this one was not refused: the server takes no more for
        now. ``has_served``: it has responded to a request since the last event of this kind.
        """
        self._fall(DOUBTED if is_busy else DOWN, has_served)

    def broke(self, *, has_served: bool) -> None:
        """The connection of a request ended before its response."""
        self._fall(DOUBTED, has_served)

    def unresponsive(self) -> None:
        """A request that was left showed no sign for the time of grace."""
        self._fall(DOUBTED, has_served=True)

    def _fall(self, state: ServerState, has_served: bool) -> None:
        if self.state is UP:
            if has_served:
                self._retry_s = 0.0
            self.probe_in_s = self._next_retry_s()
        if self.state is not DOWN:
            self.state = state

    def _next_retry_s(self) -> float:
        retry_s = self._retry_s
        self._retry_s = min(max(2 * retry_s, RETRY_S), self._interval_s)
        return retry_s
