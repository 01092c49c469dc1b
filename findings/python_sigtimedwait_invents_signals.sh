#!/usr/bin/env bash
# CPython: sigtimedwait whose time ran out during a standstill returns a signal that nobody sent.
#
# Versions   Python 3.11.7 (standard library only) on Linux 6.18; no package is needed. The same
#            with 3.9.18, 3.10.13, 3.11.2, 3.12.1 and 3.13.0.
# Set-up     A process blocks SIGTERM and SIGINT and waits for them with signal.sigtimedwait, for
#            1 s at most. Nobody sends one.
# Input      The wait alone; with a stop (SIGSTOP, SIGCONT) of 0.3 s in it; with one of 1.5 s; the
#            same after a SIGTERM that was received earlier; with a Python handler of SIGALRM that
#            takes 1.5 s.
# Expected   None each time: "Returns None if a timeout occurs" (the library's documentation).
# Seen       None for the first two. A struct_siginfo for the other three, with numbers that nobody
#            set (si_signo 778419168); after the earlier SIGTERM with si_signo 15, to all appearance
#            a second one. The same in each of six runs, but for the numbers. Other versions show
#            other numbers than 15 there, 3.12.1 shows 0.
#            SIGCONT, like a handler, ends the system call with EINTR. CPython then computes the
#            time that is left and, if there is none, leaves the loop as if a signal had come: it
#            converts a siginfo_t that the kernel has not filled.
# Known      We found no report. The retry came with Python 3.5 (PEP 475). The sources with the
#            change for python/cpython issue 137490 (2025, sigwaitinfo) still have the fault.
# So         A result means something only if its si_signo is one of those waited for, and even
#            that may be an old one. The gateway's parent process ignores all other numbers.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about 10 seconds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/probe.py" <<'PY'
import os
import signal
import sys
import time
from collections.abc import Callable

LIMIT_S, SHORT_S, LONG_S, EARLY_S = 1.0, 0.3, 1.5, 0.3
WAITED_FOR = {signal.SIGTERM, signal.SIGINT}


def nothing() -> None:
    """Nobody has sent a signal before."""


def terminate() -> None:
    """Receive a SIGTERM, as a process does that is told to end."""
    os.kill(os.getpid(), signal.SIGTERM)
    received = signal.sigtimedwait(WAITED_FOR, LIMIT_S)
    assert received is not None and received.si_signo == signal.SIGTERM


def handle_long() -> None:
    """Let a handler of another signal run into the wait, for longer than the wait may last."""
    signal.signal(signal.SIGALRM, lambda *_: time.sleep(LONG_S))
    signal.setitimer(signal.ITIMER_REAL, EARLY_S)


def wait(before: Callable[[], None], says: int) -> None:
    """Wait for a signal that nobody sends; write what came and after how many seconds."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    before()
    os.write(says, b".")
    began = time.monotonic()
    received = signal.sigtimedwait(WAITED_FOR, LIMIT_S)
    after_s = time.monotonic() - began
    os.write(says, f"{after_s:.1f} {received and tuple(received)}".encode())


def attempt(before: Callable[[], None], stopped_s: float) -> str:
    """Run `wait` in a process that is stopped for ``stopped_s``; return what it wrote."""
    listens, says = os.pipe()
    child = os.fork()
    if not child:
        try:
            wait(before, says)
        finally:
            os._exit(0)
    os.close(says)
    os.read(listens, 1)
    if stopped_s:
        time.sleep(EARLY_S)
        os.kill(child, signal.SIGSTOP)
        os.waitpid(child, os.WUNTRACED)
        time.sleep(stopped_s)
        os.kill(child, signal.SIGCONT)
    os.waitpid(child, 0)
    with open(listens) as pipe:
        return pipe.read()


def main() -> int:
    print(f"Linux {os.uname().release}, Python {sys.version.split()[0]}")
    as_described = True
    for name, before, stopped_s, is_none in (
        ("not stopped", nothing, 0.0, True),
        ("stopped, time is left", nothing, SHORT_S, True),
        ("stopped, time runs out", nothing, LONG_S, False),
        ("the same after an earlier SIGTERM", terminate, LONG_S, False),
        ("a handler runs, time runs out", handle_long, 0.0, False),
    ):
        seen = attempt(before, stopped_s)
        print(f"{name}: after {seen}")
        as_described &= seen != "" and seen.endswith("None") is is_none
    return 0 if as_described else 1


sys.exit(main())
PY
python3 "$work/probe.py"
