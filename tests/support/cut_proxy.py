"""A TCP proxy whose connections can lose one direction, without an end or a reset."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class _Direction:
    """Copies bytes; those of connections that were open before ``epoch`` went up are lost."""

    epoch = 0

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        epoch = self.epoch
        while data := await reader.read(65_536):
            if epoch == self.epoch:
                writer.write(data)
                await writer.drain()
        if epoch == self.epoch:
            writer.close()


class CutProxy:
    """Forwards connections from 127.0.0.2 to 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._to_servers = _Direction()
        self._to_clients = _Direction()
        self.connections: set[asyncio.Task[None]] = set()

    def lose_what_clients_send(self) -> None:
        """Lose it from now on, on the connections that are open; what servers send arrives."""
        self._to_servers.epoch += 1

    def lose_what_servers_send(self) -> None:
        """Lose it from now on, on the connections that are open; what clients send arrives."""
        self._to_clients.epoch += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._port)
        both = asyncio.gather(
            self._to_servers.copy(reader, to_writer), self._to_clients.copy(to_reader, writer)
        )
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
