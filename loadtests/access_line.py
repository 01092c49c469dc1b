"""What the access line of one invocation costs: ``python -m loadtests.access_line``.

The figure is the CPU time of the thread that serves clients, per line: to format the line and to
hand it to the writer. The writing itself is that of another thread, shown as well. Short batches
are measured many times and the least is taken: other programs of the machine only make it longer.
"""

import asyncio
import os
import time

from gateway.telemetry.access_log import AccessLog
from runtime.logs import LineWriter
from tests.support.invocation_world import World
from tests.support.recorder import RecordedPost
from wire.source import Source

BAR_US = 3.0
_LINES = 100
_ROUNDS = 3000
_IDS = [
    (b"host", b"f.example"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    (b"x-request-id", b"4f9619ff-8b86-4011-b42d-00c04fc964ff"),
]
CASES = {"no trace, no x-request-id": None, "with both": _IDS}


def finished(headers: list[tuple[bytes, bytes]] | None) -> World:
    """Return an invocation that was answered."""
    world = World(
        headers=headers,
        source=Source("192.0.2.7", b"http", b"f.example"),
        key_id="0b9e0f5a-3f4b-4d0e",
    )
    world.publish()
    world.now = 100.002
    world.invocation.attached(RecordedPost(world.script), world.now, 0.001, b"instance-1")
    world.head()
    world.invocation.response_data(b"x" * 250)
    world.invocation.response_end()
    return world


def line_us(log: AccessLog, writer: LineWriter, world: World) -> float:
    """Return the microseconds of one line."""
    invocation = world.invocation
    least_s = float("inf")
    for _ in range(_ROUNDS):
        begin = time.thread_time()
        for _ in range(_LINES):
            log.write(invocation, 100.01)
        least_s = min(least_s, time.thread_time() - begin)
        writer.flush()
    return least_s / _LINES * 1e6


async def main() -> int:
    """Print the figures; return 1 if one is above the bar."""
    is_missed = False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for name, headers in CASES.items():
        writer = LineWriter(nowhere, max_buffer_bytes=1 << 30)
        spent_s = time.process_time() - time.thread_time()
        cost_us = line_us(AccessLog(writer, time.time), writer, finished(headers))
        writer.close(10.0)
        spent_s = time.process_time() - time.thread_time() - spent_s
        others_us = spent_s / (_LINES * _ROUNDS) * 1e6
        is_missed = is_missed or cost_us > BAR_US
        print(f"{name:28} {cost_us:5.2f} µs a line (at most {BAR_US}), ", end="")
        print(f"and {others_us:.2f} µs in the thread that writes")
    return int(is_missed)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
