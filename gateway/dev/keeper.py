"""`gateway dev` once everything runs: this module takes over its process, by exec, and stays small.

What starts the system (command line, HTTP client, store) is not needed any more and would take 60
MiB. The process and its children stay the same: `hand_over` passes on what is known of them, with
the stop signals blocked, so that one that arrives meanwhile is seen here. No event loop: the keeper
waits for a signal, and for the end of a child, which is one too.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from gateway.dev.log_ends import exit_report
from runtime.interrupts import REPEAT_S

_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_SIGNALS = _STOP_SIGNALS | {signal.SIGCHLD, signal.SIGALRM}
_SOONEST_S = 0.001
"""The shortest alarm: 0 would be none."""


class Kept(NamedTuple):
    """A child process: its name, process id and log file."""

    name: str
    pid: int
    log: str


class Handover(NamedTuple):
    """What the keeper knows. Paths are texts; an empty one is none.

    ``document`` is written to ``ready_file``, ``text`` is printed. ``grace_s`` is the time for
    running requests, ``stop_s`` that for each child to end. ``instances`` is the folder of the
    inference servers' records, ``temporary`` a folder to remove at the end.
    """

    children: tuple[Kept, ...]
    text: str
    document: str
    ready_file: str
    grace_s: float
    stop_s: float
    instances: str
    temporary: str


def block_signals() -> None:
    """Block what the keeper waits for: to be called some time before `hand_over`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def hand_over(known: Handover, locks: Sequence[int]) -> NoReturn:
    """Replace this program by the keeper, which inherits the file descriptors ``locks``."""
    state = os.memfd_create("gateway-dev", 0)
    os.write(state, json.dumps(known).encode())
    for lock in locks:
        os.set_inheritable(lock, True)
    sys.stdout.flush()
    # Then the words by which people, and `ps`, know the program.
    words = [sys.executable, "-P", "-m", "gateway.dev.keeper", str(state), "gateway", *sys.argv[1:]]
    os.execv(sys.executable, words)  # noqa: S606


class Keeper:
    """Watches the children, and stops them at the end."""

    def __init__(self, known: Handover) -> None:
        self._known = known
        self._running = {child.pid: child for child in known.children}
        self._first_at: float | None = None

    def keep(self) -> int:
        """Keep everything until the first stop signal, or until a child ends; return the code."""
        self._announce()
        ended = self._reap()
        while ended is None:
            received = signal.sigwaitinfo(_SIGNALS)
            if received.si_signo in _STOP_SIGNALS:
                self._first_at = time.monotonic()
                say(f"stopping; running requests may take {self._known.grace_s:g} s")
                break
            ended = self._reap()
        code = self._stop_all()
        self._clean_up()
        if code:
            return code
        say("stopped" if ended is None else ended)
        return 0 if ended is None else 1

    def _announce(self) -> None:
        known = self._known
        if known.ready_file:
            unfinished = Path(f"{known.ready_file}.part")
            unfinished.write_text(known.document)
            unfinished.replace(known.ready_file)
        print(known.text, flush=True)  # noqa: T201

    def _reap(self) -> str | None:
        """Return the report of the first child that has ended, `None` if all run."""
        report = None
        for pid, child in list(self._running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._running[pid]
                code = os.waitstatus_to_exitcode(status)
                report = report or exit_report(child.name, code, Path(child.log))
        return report

    def _stop_all(self) -> int:
        """Stop the children, the last one first; return the exit code of a second signal, or 0."""
        for child in reversed(self._known.children):
            if child.pid in self._running:
                os.kill(child.pid, signal.SIGTERM)
                if code := self._wait_end(child.pid):
                    return code
        return 0

    def _wait_end(self, pid: int) -> int:
        due = time.monotonic() + self._known.stop_s
        while pid in self._running:
            # An alarm, because sigtimedwait invents a signal when its time runs out during a
            # standstill (findings/python_sigtimedwait_invents_signals.sh).
            signal.setitimer(signal.ITIMER_REAL, max(due - time.monotonic(), _SOONEST_S))
            received = signal.sigwaitinfo(_SIGNALS)
            now = time.monotonic()
            if received.si_signo in _STOP_SIGNALS:
                # The same request arrives twice, directly and from a parent that forwards it.
                if self._first_at is not None and now - self._first_at >= REPEAT_S:
                    return 128 + received.si_signo
                self._first_at = self._first_at or now
            self._reap()
            if now >= due and pid in self._running:
                os.kill(pid, signal.SIGKILL)
                due = now + self._known.stop_s
        return 0

    def _clean_up(self) -> None:
        """Remove what belongs to this run; a further signal ends the process at once."""
        for number in _STOP_SIGNALS:
            signal.signal(number, _end_at_once)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        # Only now: an idle keeper does not need it.
        from gateway.provision.local.orphans import kill_orphans  # noqa: PLC0415

        if self._known.ready_file:
            Path(self._known.ready_file).unlink(missing_ok=True)
        kill_orphans(Path(self._known.instances))
        if self._known.temporary:
            shutil.rmtree(self._known.temporary, ignore_errors=True)


def _end_at_once(number: int, _frame: object) -> None:
    os._exit(128 + number)


def say(text: str) -> None:
    """Tell the user."""
    print(f"gateway dev: {text}", file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    """Run the keeper in a process that `hand_over` has replaced."""
    with open(int(sys.argv[1]), "rb") as state:
        state.seek(0)
        children, *rest = json.load(state)
    known = Handover(tuple(Kept(*child) for child in children), *rest)
    sys.exit(Keeper(known).keep())


if __name__ == "__main__":
    main()
