#!/usr/bin/env bash
# uvloop: after a slow read or SIGCONT a timeout fires though its data came in time and can be read.
#
# Versions   uvloop 0.23.0 (with libuv 1.52.1) and Python 3.11.7's asyncio, on Linux 6.18.
# Set-up     A server process with two connections. The idle one has a timer (call_later) of 0.5 s
#            that its data_received cancels, as idle timeouts have.
# Input      The server stands still for 1 s: it is stopped (SIGSTOP, SIGCONT); or data_received of
#            the other connection takes that long; or a timer's callback does. When the standstill
#            has begun, well before the 0.5 s are over, the idle connection's data is sent. The same
#            program on asyncio's own loop and on uvloop's.
# Expected   Data that waits in the socket is read before the timer that it cancels: after a
#            standstill the loop looks at its sockets, then at the clock.
# Seen       Slow read: asyncio reads the data; uvloop runs the timer, then reads the data.
#            SIGSTOP: both run the timer first. Slow timer: both read the data. The same in each of
#            ten runs.
#            libuv takes the time anew and runs the timers after the readers, before it polls again.
#            SIGCONT ends epoll_wait with EINTR; if no time is left by then, neither libuv nor
#            CPython's epoll.poll asks the kernel once more.
# Known      libuv 1.45 moved the timers behind the poll (libuv/libuv PR 3927); uvloop does not
#            mention it. For select() CPython chose no last look, but empty lists (python/cpython
#            PR 10877, against PR 10700).
# So         A timer that comes late says nothing about a peer's silence. Here one that ends a wait
#            for a peer, and is half a second late, waits until the sockets have been read.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about 20 seconds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uvloop==0.23.0
cat > "$work/probe.py" <<'PY'
import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import uvloop

LIMIT_S, EARLY_S, PAUSE_S, END_S = 0.5, 0.1, 1.0, 2.0
NewLoop = Callable[[], asyncio.AbstractEventLoop]


class Reader(asyncio.Protocol):
    def __init__(self, on_data: Callable[[], None]) -> None:
        self.on_data = on_data

    def data_received(self, data: bytes) -> None:
        self.on_data()


async def serve(pause: str, idle: socket.socket, slow: socket.socket, tell: socket.socket) -> None:
    """Tell what came first on ``idle``: data or the end of the time in which it should come."""
    events: list[str] = []
    loop = asyncio.get_running_loop()
    timer = loop.call_later(LIMIT_S, events.append, "timer")

    def come() -> None:
        timer.cancel()
        events.append("data")

    def block() -> None:
        tell.send(b"blocked")
        time.sleep(PAUSE_S)

    await loop.create_unix_connection(lambda: Reader(block), sock=slow)
    await loop.create_unix_connection(lambda: Reader(come), sock=idle)
    if pause == "timer":
        loop.call_later(EARLY_S, block)
    tell.send(b"ready")
    await asyncio.sleep(END_S)
    tell.send(" ".join(events).encode())


def attempt(pause: str, new_loop: NewLoop) -> str:
    """Return what the server tells when data is sent during ``pause``, before the limit."""
    (idle, client), (slow, other), (tell, told) = (socket.socketpair() for _ in range(3))
    server = os.fork()
    if not server:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(serve(pause, idle, slow, tell))
        finally:
            os._exit(0)
    tell.close()
    told.recv(100)
    began = time.monotonic()
    if pause == "SIGSTOP":
        time.sleep(EARLY_S)
        os.kill(server, signal.SIGSTOP)
        os.waitpid(server, os.WUNTRACED)
    elif pause == "read":
        other.send(b"x")
    if pause != "SIGSTOP":
        assert told.recv(100) == b"blocked"
    client.send(b"in time")
    assert time.monotonic() - began < LIMIT_S
    if pause == "SIGSTOP":
        time.sleep(PAUSE_S)
        os.kill(server, signal.SIGCONT)
    events = told.recv(100).decode()
    os.waitpid(server, 0)
    return events


def main() -> int:
    print(f"Python {sys.version.split()[0]}, uvloop {uvloop.__version__}")
    as_described = True
    timer_first = {("asyncio", "SIGSTOP"), ("uvloop", "SIGSTOP"), ("uvloop", "read")}
    for name, new_loop in ("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop):
        for pause in ("SIGSTOP", "read", "timer"):
            seen = attempt(pause, new_loop)
            print(f"{name}, {pause}: {seen}")
            as_described &= seen == ("timer data" if (name, pause) in timer_first else "data")
    return 0 if as_described else 1


sys.exit(main())
PY
"$work/venv/bin/python" "$work/probe.py"
