"""WebSockets from the client through gateway and worker agent to the inference server and back."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.programs import Program
from tests.support.stack import Gateway, Stack
from tests.support.waiting import PATIENCE_S
from tests.support.websockets import (
    BINARY,
    CLOSE,
    TEXT,
    Connection,
    Frame,
    SocketServer,
    close_frame,
)


class World:
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

    async def start_agent(self, slots: int = 1) -> Program:
        """Start an agent while this process serves the probe of its inference server."""
        return await asyncio.to_thread(
            self.stack.agent,
            INFERENCE__PORT=str(self.server.port),
            INFERENCE__MAX_CONCURRENCY=str(slots),
        )

    async def connect(self) -> Connection:
        connection = await Connection.open(self.gateway.url)
        self.connections.append(connection)
        return connection

    async def open(self, path: str = "/ws", **headers: str) -> Connection:
        """Open a WebSocket, which must be agreed to."""
        connection = await self.connect()
        response = await connection.handshake(path, {**self.gateway.headers, **headers})
        assert response.status == 101, (response, await connection.reader.read(2000))
        return connection


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="stack-") as folder:
        stack = Stack(Path(folder))
        server = SocketServer()
        world = World(stack, server)
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


async def test_messages_of_every_size_come_back_and_the_close_code_passes(world: World) -> None:
    await world.begin()
    socket = await world.open("/ws?a=1")
    for size in (0, 1, 125, 126, 65_535, 65_536, 4_000_000):
        await socket.echo(BINARY, b"x" * size)
    await socket.echo(TEXT, "Grüße".encode())
    await socket.send(close_frame(4001, b"bye"))
    assert await socket.frame() == Frame(CLOSE, b"\x0f\xa1bye")
    assert await socket.end() == b""
    socket.close()
    [served] = world.server.sockets
    assert served.target == "/ws?a=1"
    assert "authorization" not in served.headers
    line = await asyncio.to_thread(world.gateway.program.wait_event, "invocation.finished")
    assert (line["status"], line["outcome"]) == (101, "answered")
    assert line["request_bytes"] > 4_000_000 < line["response_bytes"]
