"""A TCP relay in front of a port of 127.0.0.1, as a middlebox that drops silent connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class RelayedConnection(asyncio.Protocol):
    """One end of a connection through the relay."""

    def __init__(self, relay: "TcpRelay", *, to_server: bool = False) -> None:
        self._relay = relay
        self.is_to_server = to_server
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._early = b""
        self.other: RelayedConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._relay.ends.add(self)
        if self.other is None:
            self._relay.accepted(self)
        self.note_activity()

    def data_received(self, data: bytes) -> None:
        self.note_activity()
        if self._relay.is_frozen:
            return
        if self in self._relay.slow:
            self._relay.held.append((self, data))
        elif self.other is None:
            self._early += data
        else:
            self.other.note_activity()
            self.other.write(data)

    def pass_on(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)

    def joined(self, other: "RelayedConnection") -> None:
        self.other = other
        other.write(self._early)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def note_activity(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._relay.idle_s is not None:
            self._timer = self._loop.call_later(self._relay.idle_s, self._drop)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._relay.ends.discard(self)
        if self.other is not None and not self._relay.is_frozen:
            self.other.abort()

    def _drop(self) -> None:
        self._relay.dropped += 1
        self.abort()


class TcpRelay:
    """Drops a connection that is silent for ``idle_s``; ``dropped`` counts them."""

    def __init__(self, port: int, idle_s: float | None) -> None:
        self._to_port = port
        self.idle_s = idle_s
        self.dropped = 0
        self.is_frozen = False
        self.slow: set[RelayedConnection] = set()
        self.held: list[tuple[RelayedConnection, bytes]] = []
        self.port = 0
        self.ends: set[RelayedConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def freeze(self) -> None:
        """Pass on nothing any more, without closing anything."""
        self.is_frozen = True

    def hold(self) -> None:
        """Keep what the server sends on the connections that are open, until `release`."""
        self.slow = {end for end in self.ends if end.is_to_server}

    def release(self) -> None:
        """Pass on what was kept, and what follows at once."""
        self.slow = set()
        held, self.held = self.held, []
        for end, data in held:
            end.pass_on(data)

    def accepted(self, end: RelayedConnection) -> None:
        self._tasks.add(asyncio.ensure_future(self._join(end)))  # noqa: TID251

    async def _join(self, end: RelayedConnection) -> None:
        other = RelayedConnection(self, to_server=True)
        other.other = end
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: other, "127.0.0.1", self._to_port)
        end.joined(other)


@asynccontextmanager
async def tcp_relay(port: int, *, idle_s: float | None = None) -> AsyncIterator[TcpRelay]:
    """Run a relay on another port of loopback."""
    relay = TcpRelay(port, idle_s)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: RelayedConnection(relay), "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        for end in list(relay.ends):
            end.abort()
