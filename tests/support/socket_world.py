"""The system with an inference server for WebSockets, which the test has in its own process."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.programs import Program
from tests.support.stack import Gateway, Stack
from tests.support.waiting import PATIENCE_S, until
from tests.support.websockets import Connection, Response, SocketServer


class SocketWorld:
    """A gateway, a worker agent with one slot, and an inference server of the test's own."""

    def __init__(self, stack: Stack, server: SocketServer) -> None:
        self.stack = stack
        self.server = server
        self.connections: list[Connection] = []
        self.gateway: Gateway
        self.agent: Program

    async def begin(self, slots: int = 1, **settings: str) -> None:
        self.gateway = await asyncio.to_thread(self.stack.gateway, **settings)
        self.agent = await self.start_agent(slots)

    async def start_agent(self, slots: int = 1, **settings: str) -> Program:
        """Start an agent while this process serves the probe of its inference server."""
        return await asyncio.to_thread(
            self.stack.agent,
            INFERENCE__PORT=str(self.server.port),
            INFERENCE__MAX_CONCURRENCY=str(slots),
            **settings,
        )

    async def ask(self, path: str = "/ws", **headers: str) -> tuple[Connection, Response]:
        """Ask for a WebSocket; an empty header is not sent."""
        connection = await Connection.open(self.gateway.url)
        self.connections.append(connection)
        response = await connection.handshake(path, {**self.gateway.headers, **headers})
        return connection, response

    async def open(self, path: str = "/ws", **headers: str) -> Connection:
        """Open a WebSocket, which must be agreed to."""
        connection, response = await self.ask(path, **headers)
        assert response.status == 101, response
        return connection

    async def ended(self) -> dict[str, Any]:
        """Return the access line of the first WebSocket that has ended."""
        return await asyncio.to_thread(self.gateway.program.wait_event, "invocation.finished")

    async def until_ended(self, *ends: str) -> None:
        """Wait until the inference server has seen so many ends, of these kinds."""
        await until(lambda: self.server.ends, lambda found: found == list(ends))


@asynccontextmanager
async def running_sockets() -> AsyncIterator[SocketWorld]:
    """Run what gateway and agent need while the block runs; `SocketWorld.begin` runs them."""
    with tempfile.TemporaryDirectory(prefix="stack-") as folder:
        stack = Stack(Path(folder))
        server = SocketServer()
        world = SocketWorld(stack, server)
        try:
            async with asyncio.timeout(3 * PATIENCE_S):
                await stack.start()
                await server.server.start()
                yield world
        finally:
            for connection in world.connections:
                connection.abort()
            server.server.stop()
            await stack.stop()
