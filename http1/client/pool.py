"""Idle connections to one server, kept for the next exchange.

The newest is taken first, so that a burst's surplus ages and goes. Idle ones are closed before the
server would close them (uvicorn: after 5 s), because a request that meets a closing connection is
lost.
"""

import asyncio
from collections.abc import Awaitable, Callable

from http1.client.connection import Connection

HOLD_S = 0.002
"""How long a response head waits for its small body."""
LINGER_S = 5.0
"""How long a broken-off connection may take to send what was written to it."""

Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[object]]


class Pool:
    """Connections to one server; ``connect`` opens a transport for the protocol it is given."""

    __slots__ = (
        "_connect",
        "_held",
        "_held_timer",
        "_idle",
        "_lingering",
        "_loop",
        "_open",
        "connect_timeout_s",
        "idle_s",
        "max_idle",
    )

    def __init__(
        self, connect: Connect, *, idle_s: float, max_idle: int, connect_timeout_s: float
    ) -> None:
        """``idle_s`` seconds is how long a connection is kept unused, ``max_idle`` how many."""
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._held: list[Connection] = []
        self._held_timer: asyncio.TimerHandle | None = None
        self._lingering: dict[Connection, float] = {}
        self.idle_s = idle_s
        self.max_idle = max_idle
        self.connect_timeout_s = connect_timeout_s

    @property
    def open_count(self) -> int:
        """Connections that are open, idle or not."""
        return len(self._open)

    def take(self) -> Connection | None:
        """Return an idle connection that is young enough."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if self._loop.time() - connection.idle_since >= self.idle_s:
                connection.close()
            elif connection.is_usable():
                return connection
        return None

    async def connect(self) -> Connection:
        """Open a connection. Raises OSError, also when it takes too long."""
        connection = Connection(self, self._loop)
        async with asyncio.timeout(self.connect_timeout_s):
            await self._connect(lambda: connection)
        self._open.add(connection)
        return connection

    def sweep(self) -> None:
        """Close what has been idle for too long; to be called about once a second."""
        now = self._loop.time()
        oldest = now - self.idle_s
        idle = self._idle
        kept = 0
        while kept < len(idle) and idle[kept].idle_since < oldest:
            idle[kept].close()
            kept += 1
        del idle[:kept]
        for connection, since in list(self._lingering.items()):
            if now - since > LINGER_S:
                connection.close()

    def resize(self, max_idle: int) -> None:
        """Keep so many idle connections from now on; those beyond, the oldest, are closed."""
        self.max_idle = max_idle
        idle = self._idle
        surplus = idle[: max(len(idle) - max_idle, 0)]
        del idle[: len(surplus)]
        for connection in surplus:
            connection.close()

    def linger(self, connection: Connection) -> None:
        """Close ``connection`` when it has sent what it has, or soon after."""
        connection.close_after_writing()
        if not connection.is_lost:
            self._lingering[connection] = self._loop.time()

    def close(self) -> None:
        """Close every connection."""
        if self._held_timer is not None:
            self._held_timer.cancel()
        self._idle.clear()
        for connection in list(self._open):
            connection.close()

    # Owner

    def released(self, connection: Connection) -> None:
        """Keep it for the next exchange."""
        idle = self._idle
        if len(idle) >= self.max_idle:
            idle.pop(0).close()
        idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """Forget it."""
        self._open.discard(connection)
        self._lingering.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)

    def holds(self, connection: Connection) -> None:
        """Give it its say again after `HOLD_S`; one timer for all."""
        self._held.append(connection)
        if self._held_timer is None:
            self._held_timer = self._loop.call_later(HOLD_S, self._tell_held)

    def _tell_held(self) -> None:
        self._held_timer = None
        held, self._held = self._held, []
        for connection in held:
            connection.tell_held()
