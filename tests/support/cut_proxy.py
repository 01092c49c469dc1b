"""A TCP proxy that can lose one direction, without an end or a reset, and refuse new connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class CutProxy:
    """Forwards connections from 127.0.0.2 to 127.0.0.1.

    While ``is_cut`` nothing that a client sends arrives, new connections included; what the server
    sends still does. ``accepted`` counts connections.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.is_cut = False
        self.accepted = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        with suppress(OSError):
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, to_writer, is_lossy=True))
                both.create_task(self._copy(to_reader, writer, is_lossy=False))

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_lossy: bool
    ) -> None:
        try:
            while data := await reader.read(65_536):
                if not (is_lossy and self.is_cut):
                    writer.write(data)
                    await writer.drain()
        finally:
            if not (is_lossy and self.is_cut):
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
