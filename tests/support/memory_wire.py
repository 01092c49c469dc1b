"""Connections in memory, whose bytes arrive when a test says so, and a loop with its own clock."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time is ``now``; it never waits."""

    now = 1000.0

    def time(self) -> float:
        return self.now


async def settle() -> None:
    """Let everything run that waits for no time and no bytes."""
    for _ in range(12):
        await asyncio.sleep(0)


class MemoryTransport(asyncio.Transport):
    """One end of a connection; ``inbox`` is what is on its way to it, ``None`` its peer's end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: Any) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self.peer: MemoryTransport | None = None
        self.inbox: deque[bytes | None] = deque()
        self.is_over = False
        self.is_mute = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def is_closing(self) -> bool:
        return self.is_over

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.is_over and not self.is_mute and self.peer is not None:
            self.peer.inbox.append(bytes(data))

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self.is_over:
            return
        self.lose()
        if self.peer is not None and not self.peer.is_over:
            self.peer.inbox.append(None)

    def lose(self) -> None:
        """The connection is over at this end."""
        if not self.is_over:
            self.is_over = True
            self.inbox.clear()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def receive(self) -> None:
        """Let the next bytes arrive."""
        if self.is_over or not self.inbox:
            return
        data = self.inbox.popleft()
        if data is None:
            self.lose()
        else:
            self._protocol.data_received(data)


class MemoryConnection:
    """A connection between a client and a server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: Callable[[], asyncio.BaseProtocol],
        server: asyncio.BaseProtocol,
    ) -> None:
        self.server = MemoryTransport(loop, server)
        self.client = MemoryTransport(loop, None)
        self.client.peer, self.server.peer = self.server, self.client
        server.connection_made(self.server)
        protocol = client()
        self.client.set_protocol(protocol)
        protocol.connection_made(self.client)

    @property
    def is_over(self) -> bool:
        return self.client.is_over and self.server.is_over

    def cut(self) -> None:
        """Lose what is on its way, and the connection."""
        self.client.lose()
        self.server.lose()
