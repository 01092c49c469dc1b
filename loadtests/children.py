"""The processes of a run: each in its own session; all are stopped, however the run ends."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from loadtests.proc import Stat, all_stats, argv_of, descendants
from runtime.lifecycle import die_with_parent

_PR_SET_CHILD_SUBREAPER = 36
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_GRACE_S = 15.0
_LOG_TAIL_LINES = 15
_libc = ctypes.CDLL(None, use_errno=True)


class StartError(Exception):
    """A process ended or was not ready in time; the message contains the end of its log."""


def _stop_run(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


class Child:
    """One started process and its log file."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as sink:
            self._log_begins = sink.tell()
            # preexec_fn runs in the child before exec; it is safe because there is one thread.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_logged(self, text: str) -> bool:
        with self._log.open("rb") as log:
            log.seek(self._log_begins)
            return text.encode() in log.read()

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until ``ready()`` is true. Raises StartError."""
        end = time.monotonic() + timeout_s
        while not ready():
            code = self._process.poll()
            if code is not None:
                raise StartError(f"ended with code {code}\n{self._tail()}")
            if time.monotonic() > end:
                raise StartError(f"not ready after {timeout_s:g} s\n{self._tail()}")
            time.sleep(0.02)

    def terminate(self) -> bool:
        """Send SIGTERM, and SIGKILL after the grace period; return False if that was needed."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join([*(f"    {line}" for line in lines), f"    (log: {self._log})"])


class Children:
    """Starts processes; leaving the block stops all of them and all their descendants.

    This process becomes the subreaper of its descendants, so that it can reach a grandchild whose
    parent died. If this process is killed, the kernel sends SIGTERM to its children. Entering the
    block removes the logs of the previous run.
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        for old in self.logs.glob("*.log"):
            old.unlink()
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, _stop_run)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)  # nothing may interrupt the clean-up
        self.stop(self._children)
        for stat in self._left():
            _end(stat.pid)

    def start(self, name: str, command: Sequence[str]) -> Child:
        """Start a process that logs into ``<name>.log``."""
        child = Child(command, self.logs / f"{name}.log")
        self._children.append(child)
        return child

    def stop(self, children: Sequence[Child]) -> list[str]:
        """Stop these and return the problems: processes that were killed or left behind."""
        below = {child.pid: descendants(all_stats(), [child.pid]) for child in children}
        problems = []
        for child in reversed(children):
            if not child.terminate():
                problems.append(f"process {child.pid} did not end within {_GRACE_S:g} s")
            self._children = [each for each in self._children if each is not child]
        left = {stat.pid: stat for stat in self._left()}
        for stats in below.values():
            for pid in (stat.pid for stat in stats if stat.pid in left):
                if left[pid].state != "Z":
                    name = " ".join(argv_of(pid))[:100]
                    problems.append(f"process {pid} was left behind: {name}")
                _end(pid)
        return problems

    def _left(self) -> list[Stat]:
        """Return this process's descendants, deepest first; state Z means only to be reaped."""
        found = descendants(all_stats(), [os.getpid()])
        return [stat for stat in reversed(found) if stat.pid != os.getpid()]


def _end(pid: int) -> None:
    """Kill a descendant, and reap it if it is, or becomes, a child of this process."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return
