"""The installed commands as processes, with their output line by line.

A test waits for a line that the program is specified to print, not for a time.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


class Program:
    """One process in its own session; ``lines`` is its output, standard error included."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT
    ) -> None:
        self.lines: list[str] = []
        self._grown = threading.Condition()
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        with self._grown:
            return "".join(self.lines)

    def wait_line(self, has: Callable[[str], bool], timeout_s: float = PATIENCE_S) -> str:
        """Wait for the first line for which ``has`` is true; return it."""
        deadline = time.monotonic() + timeout_s
        checked = 0
        with self._grown:
            while True:
                for line in self.lines[checked:]:
                    if has(line):
                        return line
                checked = len(self.lines)
                left_s = deadline - time.monotonic()
                ended = self.process.poll() is not None and not self._reader.is_alive()
                if left_s <= 0 or ended:
                    raise AssertionError(f"no such line:\n{''.join(self.lines)}")
                self._grown.wait(min(left_s, 0.5))

    def wait_event(self, name: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait for the first JSON log line of the event ``name``; return it parsed."""
        line = self.wait_line(lambda text: f'"event":"{name}"' in text, timeout_s)
        event: dict[str, Any] = json.loads(line)
        return event

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def pause(self) -> None:
        """Stop the process (SIGSTOP) until it gets SIGCONT."""
        self.send(signal.SIGSTOP)
        # The signal takes effect a little after it is sent.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def wait_end(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the end of the process; return its exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(PATIENCE_S)
        return code

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = PATIENCE_S) -> int:
        """Send a signal, wait for the end and return the exit code; it may have ended before."""
        if self.process.poll() is None:
            self.send(number)
        try:
            return self.wait_end(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._grown:
                    self.lines.append(line)
                    self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()


def gateway(*arguments: str, env: Mapping[str, str] | None = None) -> Program:
    """Start the `gateway` command."""
    return Program([sys.executable, "-m", "gateway", *arguments], env)


def worker_agent(env: Mapping[str, str]) -> Program:
    """Start the `worker-agent` command."""
    return Program([sys.executable, "-m", "worker_agent"], env)


def descendants(pid: int) -> dict[int, str]:
    """Return the descendants of the process ``pid``: their command lines by pid."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rsplit(")")[-1].split()[1]
                )
            except (FileNotFoundError, ProcessLookupError):
                continue
    found: dict[int, str] = {}
    frontier = [pid]
    while frontier:
        above = frontier.pop()
        for child, parent in parents.items():
            if parent == above:
                found[child] = command_line(child)
                frontier.append(child)
    return found


def command_line(pid: int) -> str:
    """Return the command line of a process, empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def resident_bytes(pid: int) -> int:
    """Return the resident memory (VmRSS) of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def wait_gone(pids: Sequence[int], timeout_s: float = PATIENCE_S) -> None:
    """Wait until all processes ``pids`` have ended; they need not be our children."""
    deadline = time.monotonic() + timeout_s
    for pid in pids:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            left_s = max(deadline - time.monotonic(), 0.0)
            ended, _, _ = select.select([process], [], [], left_s)
            assert ended, f"still runs: {command_line(pid)}"
        finally:
            os.close(process)
