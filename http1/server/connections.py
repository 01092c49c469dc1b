"""State shared by the connections of a listener: dispatch, limits, clock, date, batched writes."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from email.utils import formatdate
from time import monotonic
from typing import Protocol

from http1.server.http_error import HttpError
from http1.server.limits import ServerLimits
from http1.stream import Dispatch
from runtime.awake import AwakeClock

SERVER_NAME = b"invocation-gateway"
READ_ON_S = 0.005
"""Time in one turn of the loop for connections that have more to read than one turn allows."""

log = logging.getLogger("http1.server")


OnError = Callable[[HttpError, bytes, str, str], object]
"""Called with each error response that the server sends by itself: the error, the request's target
if it is known, the peer's address and the request id in the response."""


def _ignore(*_: object) -> None:
    """Take no notice of an error response."""


class Flushable(Protocol):
    """Collects the writes of one turn of the event loop."""

    def flush(self) -> None:
        """Give what was written in this turn of the loop to the transport."""


class ServerConnection(Flushable, Protocol):
    """One peer's connection, whatever HTTP version it speaks."""

    def check(self, now: float) -> None:
        """Apply every time limit; ``now`` is `Connections.now`."""

    def drain(self) -> None:
        """Close if no request is being served."""

    def peer_lost(self) -> None:
        """End the request's stream with `request_broken` and reset the connection."""

    def read_on(self) -> None:
        """Read what an earlier turn of the loop left."""


class Connections:
    """The open connections of one listener, checked together by one timer.

    ``now`` is the time of the last check, of a clock that leaves out standstills. A deadline that
    must not come early adds ``slack_s`` to it: reading the clock for every request costs more than
    the precision is worth.
    ``http2`` makes the protocol of a connection that begins with the preface of HTTP/2.
    While ``draining``, each response announces that its connection closes; while ``closes_idle``,
    no connection waits for a request. Writes of one turn of the loop wait for its end, up to
    ``coalesced_bytes``; they do not count towards the high-water mark.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        limits: ServerLimits,
        loop: asyncio.AbstractEventLoop,
        server_name: bytes = SERVER_NAME,
        http2: "Http2 | None" = None,
    ) -> None:
        self.loop = loop
        self.dispatch = dispatch
        self.on_error: OnError = _ignore
        self.http2 = http2
        self.limits = limits
        self.draining = False
        self.closes_idle = False
        self.coalesced_bytes = limits.high_water_bytes // 4
        shortest_s = min(
            limits.head_timeout_s,
            limits.body_stall_s,
            limits.write_stall_s,
            limits.idle_timeout_s,
            limits.linger_s,
            limits.vanished_s,
        )
        self.slack_s = max(0.01, min(1.0, shortest_s / 2))
        self._clock = AwakeClock(self.loop.time(), self.slack_s)
        self.now = self._clock.now
        self.date_line = b""
        self.server_line = b"server: %b\r\n" % server_name
        self._open: set[ServerConnection] = set()
        self._unflushed: list[Flushable] = []
        self._unread: deque[ServerConnection] = deque()
        self._reads_on_soon = False
        self._emptied: asyncio.Future[None] | None = None
        self._set_date()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[ServerConnection]:
        return iter(self._open)

    def __repr__(self) -> str:
        state = ", draining" if self.draining else ""
        return f"<{type(self).__name__} {len(self)} open{state}>"

    def add(self, connection: ServerConnection) -> None:
        """Add a new connection."""
        self._open.add(connection)

    def remove(self, connection: ServerConnection) -> None:
        """Remove a closed connection."""
        self._open.discard(connection)
        if not self._open and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def flush_soon(self, connection: Flushable) -> None:
        """Flush ``connection`` at the end of this turn of the loop."""
        if not self._unflushed:
            self.loop.call_soon(self._flush)
        self._unflushed.append(connection)

    def read_on_soon(self, connection: ServerConnection) -> None:
        """Call `read_on` of ``connection`` in a later turn of the loop, when it is its turn."""
        self._unread.append(connection)
        if not self._reads_on_soon:
            self._reads_on_soon = True
            self.loop.call_soon(self._read_on)

    def check(self) -> None:
        """Apply the time limits of every connection. To be called every ``slack_s``."""
        self._set_date()
        clock = self._clock
        if not clock.advance(self.loop.time()):
            return
        self.now = now = clock.now
        for connection in list(self._open):
            connection.check(now)

    async def drain(self, deadline: float) -> bool:
        """Close idle connections and wait for the others; False if some are open at ``deadline``.

        ``deadline`` is loop time.
        """
        self.draining = self.closes_idle = True
        for connection in list(self._open):
            connection.drain()
        if self._open:
            self._emptied = self.loop.create_future()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._emptied
            except TimeoutError:
                return False
        return True

    def reset_all(self) -> None:
        """Reset every connection at once."""
        for connection in list(self._open):
            connection.peer_lost()

    def _flush(self) -> None:
        unflushed, self._unflushed = self._unflushed, []
        for connection in unflushed:
            try:
                connection.flush()
            except Exception:
                log.exception("edge.flush_failed")

    def _read_on(self) -> None:
        unread = self._unread
        end = monotonic() + READ_ON_S
        for _ in range(len(unread)):
            try:
                unread.popleft().read_on()
            except Exception:
                log.exception("edge.read_failed")
            if monotonic() > end:
                break
        self._reads_on_soon = bool(unread)
        if unread:
            self.loop.call_soon(self._read_on)

    def _set_date(self) -> None:
        self.date_line = b"date: %b\r\n" % formatdate(time.time(), usegmt=True).encode()


Http2 = Callable[[Connections], asyncio.Protocol]
"""Makes the protocol of a connection that begins with the preface of HTTP/2."""
