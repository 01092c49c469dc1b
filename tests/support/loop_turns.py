"""How long one turn of a program's event loop takes, measured inside the program.

``python -m tests.support.loop_turns FILE MODULE ARGUMENT...`` runs a program as
``python -m MODULE ARGUMENT...`` does, with a timer in its loop that ticks every millisecond. The
longest turn is the most CPU time that the loop's thread used between two ticks, so a machine that
is busy with other programs does not make a turn longer. It is written to FILE, which `LoopTurns`
reads and resets while the program runs.

The limit of a turn is in units of a fixed piece of work (`unit_s`), so it holds on a machine of any
speed.
"""

import asyncio
import mmap
import runpy
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from tests.support.programs import Program
from tests.support.waiting import until_blocking

TICK_S = 0.001
UNITS = 50
"""The limit of one turn. A unit takes 1 ms on the machine that the figures were made on."""
_WORK = 4_200
_LONGEST = struct.Struct("d")
_TICKS = struct.Struct("Q")
_BYTES = _LONGEST.size + _TICKS.size


class LoopTurns:
    """A program's longest turn since the last `reset`."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(bytes(_BYTES))
        self.file = file
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), _BYTES)

    def reset(self) -> None:
        _LONGEST.pack_into(self._memory, 0, 0.0)

    def longest_s(self) -> float:
        """Return the longest turn, the present one included: wait until it is over."""
        now = self._ticks()
        until_blocking(self._ticks, lambda ticks: ticks > now + 1, what="two ticks of the loop")
        return self._longest_s()

    def tick(self, turn_s: float) -> None:
        """Record a turn; called in the program itself."""
        if turn_s > self._longest_s():
            _LONGEST.pack_into(self._memory, 0, turn_s)
        _TICKS.pack_into(self._memory, _LONGEST.size, self._ticks() + 1)

    def _longest_s(self) -> float:
        longest: float = _LONGEST.unpack_from(self._memory)[0]
        return longest

    def _ticks(self) -> int:
        ticks: int = _TICKS.unpack_from(self._memory, _LONGEST.size)[0]
        return ticks

    def program(self, module: str, *arguments: str, env: dict[str, str]) -> Program:
        """Start a program whose turns are measured."""
        argv = [sys.executable, "-m", __name__, str(self.file), module, *arguments]
        return Program(argv, env)


def unit_s() -> float:
    """Return the CPU time of the piece of work, in seconds: the least of several runs."""
    return min(_work_s() for _ in range(20))


def _work_s() -> float:
    begin = time.thread_time()
    table: dict[bytes, int] = {}
    for number in range(_WORK):
        name = b"%x" % number
        table[name] = len(name) + table.get(name[1:], 0)
    return time.thread_time() - begin


def _measured(make_loop: Callable[[], asyncio.AbstractEventLoop], file: Path) -> object:
    def make() -> asyncio.AbstractEventLoop:
        loop = make_loop()
        turns = LoopTurns(file)
        before = time.thread_time()

        def tick() -> None:
            nonlocal before
            now = time.thread_time()
            turns.tick(now - before)
            before = now
            loop.call_later(TICK_S, tick)

        loop.call_soon(tick)
        return loop

    return make


def main() -> None:
    """Run the program that the command line names."""
    file, module = Path(sys.argv[1]), sys.argv[2]
    uvloop.new_event_loop = _measured(uvloop.new_event_loop, file)  # type: ignore[assignment]
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
