"""The connections to one HTTP/2 server: one, unless the server takes too few requests on it.

A connection is opened with the first request, and shared by all; one that the server is closing
takes no further request.
"""

import asyncio
from collections.abc import Awaitable, Callable

from http2.client.connection import Http2Client
from runtime.timeouts import silence_limit
from wire.deadlines import VANISHED_S

Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[object]]
"""Opens a connection for the protocol that the factory makes. Raises `OSError`."""


class Http2Pool:
    """Connections to one server, opened by ``connect``; used as `http1.client.pool.Pool`."""

    __slots__ = (
        "_all",
        "_connect",
        "_connect_timeout_s",
        "_connecting",
        "_idle_s",
        "_loop",
        "_usable",
        "_vanished_s",
    )

    def __init__(
        self,
        connect: Connect,
        *,
        idle_s: float,
        connect_timeout_s: float,
        vanished_s: float = VANISHED_S,
    ) -> None:
        """Close a connection that carries no request for ``idle_s`` seconds."""
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._usable: list[Http2Client] = []
        self._all: set[Http2Client] = set()
        self._connecting = asyncio.Lock()
        self._idle_s = idle_s
        self._connect_timeout_s = connect_timeout_s
        self._vanished_s = vanished_s

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self._all)} open, {self.in_use} requests>"

    @property
    def in_use(self) -> int:
        """Number of requests on all connections."""
        return sum(map(len, self._all))

    def take(self) -> Http2Client | None:
        """Return a connection with room for another request."""
        for connection in self._usable:
            if connection.has_room():
                return connection
        return None

    async def connect(self) -> Http2Client:
        """Return a connection with room, opened if there is none. Raises `OSError`."""
        async with self._connecting:
            connection = self.take()
            return connection if connection is not None else await self.open()

    async def open(self) -> Http2Client:
        """Open a connection. Raises `OSError`, also after the time for it."""
        connection = Http2Client(self, self._loop)
        try:
            async with silence_limit(self._connect_timeout_s):
                await self._connect(lambda: connection)
                await connection.ready
        except BaseException:
            connection.give_up()
            raise
        connection.keep_alive(self._vanished_s)
        self._all.add(connection)
        self._usable.append(connection)
        return connection

    async def reach(self) -> None:
        """Raise `OSError` if the server cannot be reached."""
        await self.connect()

    def resize(self, max_idle: int) -> None:
        """Do nothing: one connection is enough for any number of requests."""

    def sweep(self) -> None:
        """Close connections that idle too long, and those whose peer has vanished.

        To be called about once a second.
        """
        now = self._loop.time()
        for connection in list(self._all):
            if connection.is_lost:
                self._all.discard(connection)
            elif connection.silent_s(now) > self._vanished_s:
                connection.break_off()
            elif not len(connection) and now - connection.idle_since > self._idle_s:
                connection.close()

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._all):
            connection.close()
        self._all.clear()

    # Called by the connections (`http2.client.connection.RequestsOwner`)

    def lost(self, connection: Http2Client) -> None:
        """Use ``connection`` for no further request."""
        if connection in self._usable:
            self._usable.remove(connection)
