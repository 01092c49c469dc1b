"""A small HTTP/2 client whose streams a test can reset, over a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events

from tests.support.waiting import PATIENCE_S


class Http2Client:
    """One connection. ``ended`` are the streams that are complete, ``reset`` those that broke."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.codec = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.codec.initiate_connection()
        self.heads: dict[int, dict[bytes, bytes]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()

    async def ask(self, path: str, headers: dict[str, str], method: str = "GET") -> int:
        """Send a request without a body; return its stream."""
        number: int = self.codec.get_next_available_stream_id()
        pseudo = [
            (":method", method),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", path),
        ]
        self.codec.send_headers(number, [*pseudo, *headers.items()], end_stream=True)
        self.bodies[number] = b""
        await self.flush()
        return number

    async def connect(self, path: str, headers: dict[str, str], protocol: str) -> int:
        """Send an extended CONNECT (RFC 8441); return its stream, which stays open."""
        number: int = self.codec.get_next_available_stream_id()
        pseudo = [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", path),
        ]
        self.codec.send_headers(number, [*pseudo, *headers.items()])
        self.bodies[number] = b""
        await self.flush()
        return number

    async def cancel(self, number: int) -> None:
        """Reset a stream."""
        self.codec.reset_stream(number, 8)
        await self.flush()

    async def flush(self) -> None:
        """Send what waits."""
        self._writer.write(self.codec.data_to_send())
        await self._writer.drain()

    async def read(self) -> None:
        """Take what comes next."""
        async with asyncio.timeout(PATIENCE_S):
            data = await self._reader.read(65_536)
        if not data:
            raise ConnectionError("the gateway has closed the connection")
        for event in self.codec.receive_data(data):
            number = getattr(event, "stream_id", None) or 0
            match event:
                case h2.events.ResponseReceived():
                    self.heads[number] = dict(event.headers or [])
                case h2.events.DataReceived():
                    self.bodies[number] += event.data or b""
                    size = event.flow_controlled_length or 0
                    if number not in self.reset:
                        self.codec.acknowledge_received_data(size, number)
                case h2.events.StreamEnded():
                    self.ended.add(number)
                case h2.events.StreamReset():
                    self.reset.add(number)
        await self.flush()


@asynccontextmanager
async def http2_client(url: str) -> AsyncIterator[Http2Client]:
    """Run a client of ``url``, without TLS."""
    host, _, port = url.partition("://")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Http2Client(reader, writer)
    finally:
        writer.close()
