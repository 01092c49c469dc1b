"""What the connections of one listener share: dispatch, limits, clock, date, the turn's writes."""

import asyncio
import logging
import time
from email.utils import formatdate
from typing import Protocol

from http1.server.limits import EdgeLimits
from http1.stream import Dispatch

SERVER_NAME = b"invocation-gateway"

log = logging.getLogger("http1.server")


class Connection(Protocol):
    """One peer's connection, whatever HTTP version it speaks."""

    def flush(self) -> None:
        """Give what this turn of the loop has written to the transport."""

    def check(self, now: float) -> None:
        """Look at every limit in time."""

    def drain(self) -> None:
        """Close as soon as no exchange is open."""

    def peer_lost(self) -> None:
        """Tell the receiver that its peer is gone and end the connection at once."""


class Connections:
    """The open connections, checked together by one timer.

    ``now`` is loop time of the last check, ``slack_s`` what to add to it for a deadline that must
    not come early: reading the clock per request would cost more than it tells. Up to
    ``coalesced_bytes`` of a turn's writes wait for its end; they count as not yet waiting.
    """

    def __init__(
        self, dispatch: Dispatch, limits: EdgeLimits, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.loop = loop
        self.dispatch = dispatch
        self.limits = limits
        self.draining = False
        self.coalesced_bytes = limits.high_water_bytes // 4
        shortest_s = min(
            limits.head_timeout_s,
            limits.body_stall_s,
            limits.write_stall_s,
            limits.idle_timeout_s,
            limits.linger_s,
        )
        self.slack_s = max(0.01, min(1.0, shortest_s / 2))
        self.now = self.loop.time()
        self.date_line = b""
        self.server_line = b"server: %b\r\n" % SERVER_NAME
        self._open: set[Connection] = set()
        self._unflushed: list[Connection] = []
        self._emptied: asyncio.Future[None] | None = None
        self._set_date()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> None:
        """Take up a new connection."""
        self._open.add(connection)

    def remove(self, connection: Connection) -> None:
        """Forget a closed connection."""
        self._open.discard(connection)
        if not self._open and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def flush_soon(self, connection: Connection) -> None:
        """Have ``connection`` flushed in this turn of the loop."""
        if not self._unflushed:
            self.loop.call_soon(self._flush)
        self._unflushed.append(connection)

    def check(self) -> None:
        """Let every connection look at its limits. To be called every ``slack_s``."""
        self.now = now = self.loop.time()
        self._set_date()
        for connection in list(self._open):
            connection.check(now)

    async def drain(self, deadline: float) -> bool:
        """Close what is idle and wait for the rest; False when some are left at ``deadline``.

        ``deadline`` is loop time.
        """
        self.draining = True
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
        """End every connection at once."""
        for connection in list(self._open):
            connection.peer_lost()

    def _flush(self) -> None:
        unflushed, self._unflushed = self._unflushed, []
        for connection in unflushed:
            try:
                connection.flush()
            except Exception:
                log.exception("edge.flush_failed")

    def _set_date(self) -> None:
        self.date_line = b"date: %b\r\n" % formatdate(time.time(), usegmt=True).encode()
