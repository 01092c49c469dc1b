"""The connections to one server, kept for reuse.

The connection that became idle last is reused first, so that the surplus of a burst grows old and
is closed. A request on a connection that the server is closing is lost, so an idle one is closed
before the server would (uvicorn: after 5 s, gunicorn: after 2): after the time that the server
announces in ``Keep-Alive`` (RFC 9112 §C.2.2), or has shown by closing one, less a margin, and after
``idle_s`` at the latest. One that has been idle for a moment is taken only if the kernel knows of
no FIN.
"""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf

from http1.client.awaited import AwaitedResponse, Response, StaleError
from http1.client.connection import ClientConnection
from http1.client.status import AwaitedStatus
from runtime.timeouts import silence_limit
from wire.deadlines import VANISHED_S

SMALL_BODY_WAIT_S = 0.002
"""How long a response head waits for its small body."""
KEPT_PART = 0.75
"""The part of a server's idle time for which a connection is kept: the server begins to count when
it has written, which is before the response is read here."""
MAX_MARGIN_S = 1.0
"""The most by which a connection is kept shorter than the server keeps it."""
LEAST_SHOWN_S = 0.2
"""A server that closes a connection sooner shows no idle time: it is restarting, say."""
SHOWN_FOR_S = 600.0
"""For how long what a server has shown counts: what is kept for less never shows a longer time."""
LOOK_AFTER_S = 0.05
"""A connection idle for less has no FIN that the loop does not know of, but by a rare chance."""
LINGER_S = 5.0
"""How long a connection of `Pool.linger` may take to send what was written to it."""

Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[object]]
"""Opens a connection for the protocol that the factory makes. Raises `OSError`."""


class Pool:
    """Connections to one server, opened by ``connect``."""

    __slots__ = (
        "_connect",
        "_delayed",
        "_delayed_timer",
        "_idle",
        "_lingering",
        "_loop",
        "_open",
        "_shown_at",
        "_shown_s",
        "connect_timeout_s",
        "idle_s",
        "max_idle",
        "vanished_s",
    )

    def __init__(
        self,
        connect: Connect,
        *,
        idle_s: float,
        max_idle: int,
        connect_timeout_s: float,
        vanished_s: float = VANISHED_S,
    ) -> None:
        """Keep up to ``max_idle`` connections, each unused for at most ``idle_s`` seconds.

        A connection that has sent something ends after ``vanished_s`` without an acknowledgement.
        """
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._idle: list[ClientConnection] = []
        self._open: set[ClientConnection] = set()
        self._delayed: list[ClientConnection] = []
        self._delayed_timer: asyncio.TimerHandle | None = None
        self._lingering: dict[ClientConnection, float] = {}
        self._shown_s = inf
        self._shown_at = 0.0
        self.idle_s = idle_s
        self.max_idle = max_idle
        self.connect_timeout_s = connect_timeout_s
        self.vanished_s = vanished_s

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self._open)} open, {len(self._idle)} idle>"

    @property
    def open_count(self) -> int:
        """Number of open connections, idle or not."""
        return len(self._open)

    @property
    def in_use(self) -> int:
        """Number of open connections that carry a request."""
        return len(self._open) - len(self._idle)

    def take(self) -> ClientConnection | None:
        """Return an idle connection, ``None`` if there is none that the server surely keeps."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            idle_s = self._loop.time() - connection.idle_since
            if idle_s < LOOK_AFTER_S and connection.is_usable():
                return connection
            if idle_s >= self._kept_s(connection) or connection.has_peer_closed():
                connection.close()
            elif connection.is_usable():
                return connection
        return None

    def _kept_s(self, connection: ClientConnection) -> float:
        """Return for how long ``connection`` is kept idle, in seconds."""
        server_s = min(connection.idle_s, self._shown_s)
        if server_s == inf:
            return self.idle_s
        return min(self.idle_s, max(server_s * KEPT_PART, server_s - MAX_MARGIN_S))

    async def connect(self) -> ClientConnection:
        """Open a connection. Raises `OSError`, also after ``connect_timeout_s``."""
        connection = ClientConnection(self, self._loop)
        try:
            async with silence_limit(self.connect_timeout_s):
                await self._connect(lambda: connection)
        except OSError:
            # What closed the idle ones may have been the end of the server.
            self._shown_s = inf
            raise
        connection.keep_alive(self.vanished_s)
        self._open.add(connection)
        return connection

    async def reach(self) -> None:
        """Raise `OSError` if the server cannot be reached."""
        (await self.connect()).close()

    async def status_of(self, head: bytes, timeout_s: float) -> int:
        """Send a request without a body on a connection of its own; return the response's status.

        ``timeout_s`` bounds the whole. The connection is never anybody else's: the end of a
        response is known a turn of the loop before its waiter runs. Raises `OSError`.
        """
        async with silence_limit(timeout_s):
            connection = await self.connect()
            connection.use_once()
            try:
                status = AwaitedStatus()
                connection.start(status, head, b"")
                return await status.known
            finally:
                connection.close()

    async def response_to(self, head: bytes, body: bytes, max_body_bytes: int) -> Response:
        """Send a request on a kept or a new connection; return the response.

        Raises `OSError`, also for a body of more than ``max_body_bytes``.
        """
        while True:
            connection = self.take() or await self.connect()
            response = AwaitedResponse(max_body_bytes)
            connection.start(response, head, body)
            try:
                return await response.known
            except StaleError:
                continue
            finally:
                if not response.is_complete:
                    connection.close()

    def sweep(self) -> None:
        """Close connections that idle or linger too long, and those whose peer has vanished.

        To be called about once a second.
        """
        now = self._loop.time()
        for connection in list(self._open):
            if connection.silent_s(now) > self.vanished_s:
                connection.break_off()
        if now - self._shown_at > SHOWN_FOR_S:
            self._shown_s = inf
        idle, self._idle = self._idle, []
        for connection in idle:
            if now - connection.idle_since > self._kept_s(connection):
                connection.close()
            else:
                self._idle.append(connection)
        for connection, since in list(self._lingering.items()):
            if now - since > LINGER_S:
                connection.close()

    def resize(self, max_idle: int) -> None:
        """Keep up to ``max_idle`` idle connections from now on; close the oldest of the others."""
        self.max_idle = max_idle
        idle = self._idle
        surplus = idle[: max(len(idle) - max_idle, 0)]
        del idle[: len(surplus)]
        for connection in surplus:
            connection.close()

    def linger(self, connection: ClientConnection) -> None:
        """Close ``connection`` when it has sent what was written, or after `LINGER_S`."""
        connection.close_after_writing()
        if not connection.is_lost:
            self._lingering[connection] = self._loop.time()

    def close(self) -> None:
        """Close every connection."""
        if self._delayed_timer is not None:
            self._delayed_timer.cancel()
        self._idle.clear()
        for connection in list(self._open):
            connection.close()

    # Called by the connections (`http1.client.connection.ConnectionOwner`)

    def released(self, connection: ClientConnection) -> None:
        """Keep ``connection`` for the next request."""
        idle = self._idle
        if len(idle) >= self.max_idle:
            idle.pop(0).close()
        idle.append(connection)

    def lost(self, connection: ClientConnection) -> None:
        """Forget ``connection``."""
        self._open.discard(connection)
        self._lingering.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)
            self._learn(connection)
        elif connection.is_unanswered:
            self._learn(connection)

    def _learn(self, connection: ClientConnection) -> None:
        """The server has closed ``connection``, which was idle, at the last request perhaps."""
        idle_s = self._loop.time() - connection.idle_since
        if idle_s >= LEAST_SHOWN_S:
            self._shown_s = min(self._shown_s, idle_s)
            self._shown_at = self._loop.time()

    def delay_small_body(self, connection: ClientConnection) -> None:
        """Call `ClientConnection.report_delayed` after `SMALL_BODY_WAIT_S`; one timer for all."""
        self._delayed.append(connection)
        if self._delayed_timer is None:
            self._delayed_timer = self._loop.call_later(SMALL_BODY_WAIT_S, self._report_delayed)

    def _report_delayed(self) -> None:
        self._delayed_timer = None
        delayed, self._delayed = self._delayed, []
        for connection in delayed:
            connection.report_delayed()
