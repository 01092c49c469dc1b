"""The parts of the system as processes that a fault kills, pauses, restarts or cuts off."""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.network import Link
from tests.support.programs import Program, descendants, resident_bytes, wait_gone
from tests.support.waiting import until

END_S = 60.0
"""After SIGTERM a part is killed after this time."""


class Part:
    """One program, which keeps its name, address and settings over its restarts.

    ``is_ready_line`` recognises the line of output that says that it serves; it appears
    ``processes`` times. ``links`` are its links by name, empty where no network is simulated.
    ``starts`` and ``deaths`` are monotonic times, the deaths by process id.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str],
        is_ready_line: Callable[[str], bool],
        links: Mapping[str, Link],
        processes: int = 1,
    ) -> None:
        self.name = name
        self.links = links
        self.processes = processes
        self.programs: list[Program] = []
        self.starts: list[float] = []
        self.deaths: dict[int, float] = {}
        self._argv = [str(word) for word in argv]
        self._env = env
        self._is_ready_line = is_ready_line
        self._ready_lines = processes

    @property
    def program(self) -> Program:
        return self.programs[-1]

    @property
    def is_running(self) -> bool:
        return self.program.process.poll() is None

    def start(self) -> None:
        self.starts.append(time.monotonic())
        self._ready_lines = self.processes
        self.programs.append(Program(self._argv, self._env))

    async def ready(self, timeout_s: float) -> bool:
        """Wait until it serves; return False if that takes longer."""
        program = self.program
        checked = 0
        found = 0

        def is_ready() -> bool:
            nonlocal checked, found
            lines = program.lines
            while checked < len(lines):
                found += self._is_ready_line(lines[checked])
                checked += 1
            return found >= self._ready_lines

        with suppress(AssertionError):
            await until(is_ready, timeout_s=timeout_s)
        return is_ready()

    def kill(self) -> None:
        """End it and its children at once (SIGKILL)."""
        children = list(descendants(self.program.pid))
        self.program.process.kill()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._ended()
        wait_gone(children)

    def kill_one_process(self, index: int) -> None:
        """Kill one of the processes that it supervises; it starts another."""
        children = sorted(descendants(self.program.pid))
        if children:
            self._ready_lines += 1
            os.kill(children[index % len(children)], signal.SIGKILL)

    def pause(self) -> None:
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    async def stop(self) -> bool:
        """End it gracefully (SIGTERM); return False if it had to be killed."""
        process = self.program.process
        process.terminate()
        with suppress(AssertionError):
            await until(lambda: process.poll() is not None, timeout_s=END_S)
        is_graceful = process.poll() is not None
        process.kill()
        self._ended()
        return is_graceful

    def pids(self) -> list[int]:
        """Return the processes that serve: its children if it has any, else itself."""
        return sorted(descendants(self.program.pid)) or [self.program.pid]

    def descriptors(self) -> int:
        """Return the open file descriptors of the process that has most."""
        return max(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids())

    def resident_bytes(self) -> int:
        """Return the resident memory of the process that has most."""
        return max(resident_bytes(pid) for pid in self.pids())

    def lines_with(self, text: str) -> list[str]:
        """Return the lines of output that contain ``text``."""
        return [
            line.rstrip() for program in self.programs for line in program.lines if text in line
        ]

    def _signal_all(self, number: int) -> None:
        for pid in (self.program.pid, *descendants(self.program.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _ended(self) -> None:
        self.program.process.wait()
        self.deaths[self.program.pid] = time.monotonic()
