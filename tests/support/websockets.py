"""WebSockets byte by byte: frames, a client's connection, and an inference server that echoes."""

import asyncio
import base64
import os
import struct
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.support.raw_server import HEALTHY, Peer, RawServer
from wire.websocket import accept_of

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_MASK = b"\x11\x22\x33\x44"


class Frame(NamedTuple):
    """One frame as it was read; ``payload`` is unmasked, ``bits`` are FIN and the reserved ones."""

    opcode: int
    payload: bytes
    bits: int = 0x80

    @property
    def code(self) -> int:
        """The status of a close frame, 0 for none."""
        return int.from_bytes(self.payload[:2], "big")


def masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def encode(opcode: int, payload: bytes = b"", *, bits: int = 0x80, masks: bool = True) -> bytes:
    """Return a frame, masked as a client's is unless ``masks`` is false."""
    size, flag = len(payload), 0x80 if masks else 0
    if size < 126:
        head = bytes([bits | opcode, flag | size])
    elif size < 65_536:
        head = bytes([bits | opcode, flag | 126]) + struct.pack("!H", size)
    else:
        head = bytes([bits | opcode, flag | 127]) + struct.pack("!Q", size)
    return head + (_MASK + masked(payload, _MASK) if masks else payload)


def close_frame(code: int, reason: bytes = b"", *, masks: bool = True) -> bytes:
    return encode(CLOSE, struct.pack("!H", code) + reason, masks=masks)


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """Read one frame. Raises `asyncio.IncompleteReadError` at the end."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    mask = await reader.readexactly(4) if second & 0x80 else b""
    payload = await reader.readexactly(size)
    return Frame(first & 0x0F, masked(payload, mask) if mask else payload, first & 0xF0)


class Response(NamedTuple):
    """The head of the response to a handshake."""

    status: int
    headers: dict[str, str]


class Connection:
    """A client's connection; what it sends and reads are bytes or frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, url: str) -> "Connection":
        host, _, port = url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
        return cls(reader, writer)

    async def handshake(self, path: str, headers: dict[str, str]) -> Response:
        """Ask for a WebSocket; check what a client checks of a 101."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = {
            "host": "x",
            "connection": "keep-alive, Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": key,
            **headers,
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        self.writer.write(f"GET {path} HTTP/1.1\r\n{text}\r\n".encode())
        response = await self.head()
        if response.status == 101:
            assert response.headers["upgrade"] == "websocket"
            assert response.headers["connection"].lower() == "upgrade"
            accept = accept_of(lines["sec-websocket-key"].encode()).decode()
            assert response.headers["sec-websocket-accept"] == accept
        return response

    async def head(self) -> Response:
        """Read the head of a response."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        pairs = [line.partition(": ") for line in lines]
        return Response(int(first.split(" ")[1]), {name.lower(): value for name, _, value in pairs})

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def frame(self) -> Frame:
        return await read_frame(self.reader)

    async def echo(self, opcode: int, payload: bytes) -> None:
        """Send a message and check that it comes back."""
        self.writer.write(encode(opcode, payload))
        frame = await self.frame()
        assert frame == Frame(opcode, payload)

    async def end(self) -> bytes:
        """Read what is still to come until the other side's end, which may be a reset."""
        found = bytearray()
        try:
            while data := await self.reader.read(1 << 20):
                found += data
        except ConnectionError:
            pass
        return bytes(found)

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


Talk = Callable[["ServedSocket"], Awaitable[None]]


class ServedSocket:
    """One WebSocket at the inference server, after the handshake.

    ``target`` and ``headers`` are the request's, names lower case.
    """

    def __init__(self, peer: Peer, target: str, headers: dict[str, str]) -> None:
        self.peer = peer
        self.target = target
        self.headers = headers

    async def frame(self) -> Frame:
        return await read_frame(self.peer.reader)

    async def send(self, data: bytes) -> None:
        await self.peer.send(data)

    def abort(self) -> None:
        self.peer.writer.transport.abort()


async def echo(socket: ServedSocket) -> None:
    """Send each frame back as it came, and end after a close frame."""
    while True:
        frame = await socket.frame()
        opcode = PONG if frame.opcode == PING else frame.opcode
        await socket.send(encode(opcode, frame.payload, bits=frame.bits, masks=False))
        if frame.opcode == CLOSE:
            return


class SocketServer:
    """An inference server for WebSockets: ``talk`` serves each, `echo` by default.

    ``running`` counts those that are open, ``begun`` those that were. ``refusal`` is sent in place
    of the agreement, ``protocol`` is the subprotocol that it names. ``ends`` has what ended each:
    ``eof``, ``reset`` or ``talk``, if the server did itself.
    """

    def __init__(self, talk: Talk = echo) -> None:
        self.talk = talk
        self.server = RawServer(self._serve)
        self.running = self.begun = 0
        self.refusal = b""
        self.accept = b""
        self.protocol = ""
        self.sockets: list[ServedSocket] = []
        self.ends: list[str] = []

    @property
    def port(self) -> int:
        return self.server.port

    async def _serve(self, peer: Peer) -> None:
        while True:
            head = (await peer.head()).decode("latin-1")
            first, *lines = head.split("\r\n")[:-2]
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            target = first.split(" ")[1]
            if headers.get("upgrade") != "websocket":
                await peer.send(HEALTHY)
                continue
            if self.refusal:
                await peer.send(self.refusal)
                continue
            break
        accept = self.accept or accept_of(headers["sec-websocket-key"].encode())
        agreed = (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        )
        if self.protocol:
            agreed += b"Sec-WebSocket-Protocol: %b\r\n" % self.protocol.encode()
        socket = ServedSocket(peer, target, headers)
        self.sockets.append(socket)
        self.begun += 1
        self.running += 1
        await peer.send(agreed + b"x-own: 1\r\nSec-WebSocket-Accept: %b\r\n\r\n" % accept)
        try:
            await self.talk(socket)
            self.ends.append("talk")
        except asyncio.IncompleteReadError:
            self.ends.append("eof")
        except ConnectionError:
            self.ends.append("reset")
        finally:
            self.running -= 1
