#!/usr/bin/env bash
# uvloop: one fast sender is read up to 32 times, 8 MB, before any other connection gets its turn.
#
# Versions   uvloop 0.23.0 and Python 3.11's asyncio, on Linux (loopback).
# Set-up     One event loop with two listeners. A thread sends 64 MiB to the first one as fast as
#            it can; the protocol there takes 2 ms for each call of data_received, as a parser
#            might. Another thread sends single bytes to the second listener, which sends them back
#            at once.
# Input      The same program on asyncio's own loop and on uvloop's.
# Expected   What asyncio does: one read for each ready connection, then callbacks and the other
#            connections. An echo waits for about one slow read.
# Seen       asyncio: 1 read of 256 KiB in a turn; 65 to 68 echoes, the slowest after 5 to 19 ms.
#            uvloop: 32 reads of 256,000 bytes in a row, without a call_soon callback, a timer or
#            another connection between them; 6 echoes, the slowest after 137 to 212 ms. Eight
#            runs.
# Known      libuv reads a stream until it is empty, 32 times at most; that number is meant as the
#            protection (libuv/libuv PR 2049 brought it to Windows). uvloop does not mention it.
# So         A bound on the work for one read bounds no turn of the loop: 32 times as long may
#            pass. The gateway bounds what it parses of a connection in a turn and leaves the rest
#            for later.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about 10 seconds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uvloop==0.23.0
cat > "$work/probe.py" <<'PY'
import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable

import uvloop

READ_S, BLOCK, BLOCKS = 0.002, bytes(2**20), 64


class Turns:
    """Counts the reads of the fast connection between two turns of the loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_over = self.loop.create_future()
        self.reads = self.size = self.most_reads = self.most_bytes = 0

    def turn(self) -> None:
        self.most_reads = max(self.most_reads, self.reads)
        self.most_bytes = max(self.most_bytes, self.size)
        self.reads = self.size = 0
        if not self.is_over.done():
            self.loop.call_soon(self.turn)


class Slow(asyncio.Protocol):
    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def data_received(self, data: bytes) -> None:
        self.turns.reads += 1
        self.turns.size += len(data)
        time.sleep(READ_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self.turns.is_over.set_result(None)


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def send(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(BLOCKS):
            connection.sendall(BLOCK)


def ping(port: int, is_over: threading.Event, times: list[float]) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while not is_over.is_set():
            began = time.perf_counter()
            connection.sendall(b"x")
            connection.recv(1)
            times.append(time.perf_counter() - began)
            is_over.wait(0.005)


async def measure() -> tuple[int, int, list[float]]:
    turns, is_over, times = Turns(), threading.Event(), []
    loop = asyncio.get_running_loop()
    slow = await loop.create_server(lambda: Slow(turns), "127.0.0.1", 0)
    echo = await loop.create_server(Echo, "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1] for server in (slow, echo)]
    turns.turn()
    pinging = asyncio.create_task(asyncio.to_thread(ping, ports[1], is_over, times))
    await asyncio.gather(asyncio.to_thread(send, ports[0]), turns.is_over)
    is_over.set()
    await pinging
    return turns.most_reads, turns.most_bytes, times


def run(name: str, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> int:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        reads, size, times = runner.run(measure())
    slowest = max(times) * 1000
    print(f"{name}: at most {reads} reads, {size} bytes in a turn; "
          f"{len(times)} echoes, slowest {slowest:.1f} ms")
    return reads


print(f"Python {sys.version.split()[0]}, uvloop {uvloop.__version__}")
reads = run("asyncio", asyncio.new_event_loop), run("uvloop", uvloop.new_event_loop)
sys.exit(0 if reads == (1, 32) else 1)
PY
"$work/venv/bin/python" "$work/probe.py"
