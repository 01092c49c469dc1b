"""What a WebSocket server sends back is the same through the gateway, byte for byte.

The cases are of the kind of the Autobahn test suite: sizes around the limits of each length field,
fragments with control frames between them, and what no client may send. The server is aiohttp's,
which checks what it reads.
"""

import asyncio
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import WSMsgType, web

from tests.support.stack import Stack, start
from tests.support.waiting import PATIENCE_S
from tests.support.websockets import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Connection,
    close_frame,
    encode,
)

_END = close_frame(1000)
_EURO = "€".encode()


def _split(opcode: int, payload: bytes, size: int, between: bytes = b"") -> bytes:
    """Return a message in fragments of ``size`` bytes, with frames ``between`` them."""
    parts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    frames = [encode(opcode, parts[0], bits=0x80 if len(parts) == 1 else 0)]
    for number, part in enumerate(parts[1:], 2):
        frames.append(encode(CONTINUATION, part, bits=0x80 if number == len(parts) else 0))
    return between.join(frames)


CASES: dict[str, list[bytes]] = {
    **{
        f"{name} of {size}": [encode(opcode, b"*" * size), _END]
        for name, opcode in (("text", TEXT), ("binary", BINARY))
        for size in (0, 1, 125, 126, 127, 128, 65_535, 65_536, 1_000_000)
    },
    **{f"ping of {size}": [encode(PING, b"p" * size), _END] for size in (0, 8, 125)},
    "ping too long": [encode(PING, b"p" * 126)],
    "pongs that nobody asked for": [encode(PONG, b"1") + encode(PONG), encode(PING, b"2"), _END],
    "ten pings in one read": [b"".join(encode(PING, b"%d" % n) for n in range(10)), _END],
    "fragments": [_split(TEXT, b"hello", 1), _END],
    "fragments with pings": [_split(BINARY, b"x" * 1000, 100, encode(PING, b"?")), _END],
    "many fragments": [_split(BINARY, b"y" * 65_536, 64), _END],
    "a character over two fragments": [_split(TEXT, _EURO * 3, 2), _END],
    "byte by byte": [bytes([one]) for one in encode(TEXT, b"slow") + _END],
    "a fragmented ping": [encode(PING, b"x", bits=0)],
    "a continuation of nothing": [encode(CONTINUATION, b"x")],
    "a message within a message": [encode(TEXT, b"a", bits=0) + encode(TEXT, b"b")],
    **{f"reserved bit {bit:x}": [encode(TEXT, b"x", bits=0x80 | bit)] for bit in (64, 32, 16)},
    **{f"opcode {opcode:x}": [encode(opcode, b"x")] for opcode in (3, 4, 7, 11, 12, 15)},
    "invalid UTF-8": [encode(TEXT, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80")],
    "invalid UTF-8 in the end": [_split(TEXT, b"abc\xff", 2)],
    "an unmasked frame": [encode(TEXT, b"x", masks=False), _END],
    "a length that goes on": [b"\x82\xff" + struct.pack("!Q", 1 << 62) + b"\x11\x22\x33\x44"],
    "no bytes of a WebSocket": [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 2],
    **{f"close {code}": [close_frame(code, b"why")] for code in (1000, 1001, 1011, 3000, 4999)},
    **{f"close {code}": [close_frame(code)] for code in (0, 999, 1004, 1005, 1006, 5000)},
    "close without a code": [encode(CLOSE)],
    "close with half a code": [encode(CLOSE, b"\x03")],
    "close with a long reason": [close_frame(1000, b"r" * 123)],
    "close with invalid UTF-8": [close_frame(1000, b"\xff\xfe")],
    "a message after the close": [_END + encode(TEXT, b"late")],
    "a message and the close at once": [encode(TEXT, b"early") + _END],
}


async def _echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False, max_msg_size=1 << 24)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def _healthy(_: web.Request) -> web.Response:
    return web.Response()


@asynccontextmanager
async def _running_server() -> AsyncIterator[int]:
    application = web.Application()
    application.add_routes([web.get("/ws", _echo), web.get("/health", _healthy)])
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _play(url: str, headers: dict[str, str], parts: list[bytes]) -> bytes:
    """Open a WebSocket, send a case's parts, and return all that comes until the end."""
    connection = await Connection.open(url)
    try:
        async with asyncio.timeout(PATIENCE_S):
            response = await connection.handshake("/ws", headers)
            assert response.status == 101
            reading = start(connection.end())
            try:
                for part in parts:
                    await connection.send(part)
            except ConnectionError:
                pass
            return await reading
    finally:
        connection.abort()


async def test_a_server_behind_the_gateway_sends_what_it_sends_without() -> None:
    with tempfile.TemporaryDirectory(prefix="stack-") as folder:
        async with _running_server() as port:
            stack = Stack(Path(folder))
            try:
                await stack.start()
                gateway = await asyncio.to_thread(stack.gateway)
                await asyncio.to_thread(stack.agent, INFERENCE__PORT=str(port))
                for name, parts in CASES.items():
                    direct, through = await asyncio.gather(
                        _play(f"http://127.0.0.1:{port}", {}, parts),
                        _play(gateway.url, gateway.headers, parts),
                    )
                    assert (name, through) == (name, direct)
                    assert direct, name
            finally:
                await stack.stop()
