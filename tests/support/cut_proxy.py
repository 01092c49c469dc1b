"""A TCP proxy whose connections can lose one direction, without an end or a reset."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class CutProxy:
    """Forwards connections from 127.0.0.2 to 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._epoch = 0
        self.connections: set[asyncio.Task[None]] = set()

    def lose_what_clients_send(self) -> None:
        """Lose it from now on, on the connections that are open; what servers send arrives."""
        self._epoch += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._port)
        both = asyncio.gather(self._to_server(reader, to_writer), _copy(to_reader, writer))
        try:
            with suppress(OSError, asyncio.CancelledError):
                await both
        finally:
            both.cancel()
            for end in (writer, to_writer):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()
            self.connections.discard(task)

    async def _to_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        epoch = self._epoch
        while data := await reader.read(65_536):
            if epoch == self._epoch:
                writer.write(data)
                await writer.drain()
        if epoch == self._epoch:
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def cut_proxy(port: int) -> AsyncIterator[CutProxy]:
    """Run a proxy on 127.0.0.2 in front of the same port of 127.0.0.1."""
    proxy = CutProxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.2", port)
    try:
        yield proxy
    finally:
        server.close()
        open_ones = list(proxy.connections)
        for connection in open_ones:
            connection.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)
