"""A bare HTTP/2 server that runs a function of the test for each request."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.settings import SettingCodes

from tests.support.waiting import PATIENCE_S, Signal, until

Script = Callable[["ScriptedStream"], Awaitable[None]]


class ScriptedStream:
    """One request. ``ended``: it is complete; ``reset``: the client has reset it."""

    def __init__(
        self, connection: "ScriptedConnection", number: int, fields: list[tuple[bytes, bytes]]
    ) -> None:
        self.connection = connection
        self.id = number
        self.headers = dict(fields)
        self.body = b""
        self.sent_bytes = 0
        self.ended = asyncio.Event()
        self.reset = asyncio.Event()

    @property
    def path(self) -> str:
        return self.headers[b":path"].decode()

    async def head(self, status: int = 200, *fields: tuple[str, str], ends: bool = False) -> None:
        head = [(":status", str(status)), *fields]
        self.connection.codec.send_headers(self.id, head, end_stream=ends)
        await self.connection.flush()

    async def trailers(self, *fields: tuple[str, str]) -> None:
        self.connection.codec.send_headers(self.id, fields, end_stream=True)
        await self.connection.flush()

    async def data(self, data: bytes = b"", *, ends: bool = False) -> None:
        """Send ``data`` as the client's windows allow."""
        codec = self.connection.codec
        while data:
            window = await until(
                lambda: codec.local_flow_control_window(self.id),
                changed=self.connection.changed,
                what="a window of the client",
            )
            size = min(window, 16_384, len(data))
            codec.send_data(self.id, data[:size])
            data = data[size:]
            self.sent_bytes += size
            await self.connection.flush()
        if ends:
            codec.end_stream(self.id)
            await self.connection.flush()

    async def respond(self, body: bytes, status: int = 200) -> None:
        await self.head(status)
        await self.data(body, ends=True)

    async def refuse(self, code: int) -> None:
        self.connection.codec.reset_stream(self.id, code)
        await self.connection.flush()


class ScriptedConnection:
    """One connection. ``pings`` counts PINGs, ``reads_bodies``: windows of requests grow."""

    def __init__(self, server: "ScriptedServer", writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._server = server
        self.codec = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None)
        )
        self.codec.local_settings.update(server.settings)
        self.codec.local_settings.acknowledge()
        self.streams: dict[int, ScriptedStream] = {}
        self.scripts: set[asyncio.Task[None]] = set()
        self.pings = 0
        self.changed = Signal()
        self.closed = asyncio.Event()

    async def flush(self) -> None:
        if not self._writer.is_closing():
            self._writer.write(self.codec.data_to_send())
            await self._writer.drain()

    async def goaway(self, last_stream: int, code: int = 0) -> None:
        """Send GOAWAY by hand, after which h2 would send nothing more."""
        payload = last_stream.to_bytes(4, "big") + code.to_bytes(4, "big")
        await self.raw(b"\0\0\x08\x07\0\0\0\0\0" + payload)

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        self.codec.initiate_connection()
        await self.flush()
        try:
            while data := await reader.read(65_536):
                for event in self.codec.receive_data(data):
                    self._take(event)
                await self.flush()
                self.changed.notify()
        except (OSError, h2.exceptions.ProtocolError):
            pass
        finally:
            self._writer.close()
            for task in self.scripts:
                task.cancel()
            self.closed.set()

    def _take(self, event: h2.events.Event) -> None:
        number = getattr(event, "stream_id", None) or 0
        stream = self.streams.get(number)
        match event:
            case h2.events.RequestReceived():
                stream = self.streams[number] = ScriptedStream(self, number, event.headers)
                self.scripts.add(asyncio.ensure_future(self._server.script(stream)))  # noqa: TID251
            case h2.events.DataReceived() if stream is not None:
                stream.body += event.data
                if self._server.reads_bodies:
                    self.codec.acknowledge_received_data(event.flow_controlled_length, number)
            case h2.events.StreamEnded() if stream is not None:
                stream.ended.set()
            case h2.events.StreamReset() if stream is not None:
                stream.reset.set()
            case h2.events.PingReceived():
                self.pings += 1


class ScriptedServer:
    """``connections`` are all that there were."""

    def __init__(
        self, script: Script, *, settings: dict[SettingCodes, int], reads_bodies: bool
    ) -> None:
        self.script = script
        self.settings = settings
        self.reads_bodies = reads_bodies
        self.connections: list[ScriptedConnection] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = ScriptedConnection(self, writer)
        self.connections.append(connection)
        await connection.serve(reader)


@asynccontextmanager
async def scripted_http2(
    script: Script,
    *,
    settings: dict[SettingCodes, int] | None = None,
    reads_bodies: bool = True,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[ScriptedServer]:
    """Run a server on loopback; ``context``: with TLS."""
    server = ScriptedServer(script, settings=settings or {}, reads_bodies=reads_bodies)
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for connection in server.connections:
            connection.close()
            async with asyncio.timeout(PATIENCE_S):
                await connection.closed.wait()
