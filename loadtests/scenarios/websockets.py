"""Memory of idle WebSockets: a thousand are open, each with a worker's slot, and carry nothing."""

import asyncio
from typing import Final

import uvloop

from loadtests.errors import MeasurementError
from loadtests.proc import Role, rss_bytes
from loadtests.scenarios import small
from loadtests.systems import Target

WEBSOCKETS: Final = 1000
_AT_ONCE = 50
_SETTLE_S = 1.0
_PATIENCE_S = 60.0
_PING = b"\x89\x80\0\0\0\0"
_PONG = b"\x8a\x00"
_ROLES = (Role.FRONT, Role.AGENT)


def websockets(target: Target) -> dict[str, float]:
    """Return the growth of gateway and agent together per open WebSocket, in KiB.

    Needs a freshly started system with a slot for each. Afterwards each must carry a ping and its
    pong (RFC 6455, section 5.5), so that none had ended.
    """
    small.warm_up(target)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            grown_bytes = runner.run(_open_all(target))
        except (OSError, EOFError, TimeoutError) as error:
            raise MeasurementError(f"a WebSocket: {error!r}") from error
    return {"websocket_kib": grown_bytes / WEBSOCKETS / 1024}


async def _open_all(target: Target) -> int:
    before = _memory(target)
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        async with asyncio.timeout(_PATIENCE_S):
            for _ in range(0, WEBSOCKETS, _AT_ONCE):
                opened += await asyncio.gather(*(_open(target) for _ in range(_AT_ONCE)))
            # What the openings needed for a moment is freed.
            await asyncio.sleep(_SETTLE_S)
            after = _memory(target)
            await asyncio.gather(*(_ping(*each) for each in opened))
    finally:
        for _, writer in opened:
            writer.transport.abort()
    return after - before


def _memory(target: Target) -> int:
    processes = target.processes()
    return sum(rss_bytes(processes, role) for role in _ROLES)


async def _open(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    pairs = [
        ("host", target.authority),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        *target.headers,
    ]
    writer.write(
        b"GET /ws HTTP/1.1\r\n%b\r\n" % "".join(f"{n}: {v}\r\n" for n, v in pairs).encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in head.partition(b"\r\n")[0]:
        raise MeasurementError(f"a WebSocket was refused: {head[:300]!r}")
    return reader, writer


async def _ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_PING)
    received = await reader.readexactly(len(_PONG))
    if received != _PONG:
        raise MeasurementError(f"not the pong of a WebSocket: {received!r}")
