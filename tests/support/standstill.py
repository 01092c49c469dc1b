"""A loop that stands still, and that runs its timers before it has read its sockets afterwards."""

import asyncio
import socket
import time
from collections.abc import Coroutine
from typing import Any

import uvloop

STANDSTILL_S = 1.0


def stand_still_soon(sends: bytes, to: socket.socket) -> None:
    """Let the running loop stand still for `STANDSTILL_S`; meanwhile ``to`` sends ``sends``.

    It stands still while it reads another socket: uvloop runs its timers after that, before it
    looks at its sockets again, as it does after SIGCONT. asyncio's own loop reads first.
    """
    loop = asyncio.get_running_loop()
    read, wake = socket.socketpair()

    def stand_still() -> None:
        loop.remove_reader(read)
        read.close()
        wake.close()
        to.send(sends)
        time.sleep(STANDSTILL_S)

    loop.add_reader(read, stand_still)
    wake.send(b"now")


def on_uvloop(main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
