"""The parent of several processes stands still."""

import os
import signal
import sys
import time

from tests.support.programs import Program
from tests.support.waiting import until_blocking

PROGRAM = """
import os, signal
from gateway.app import supervisor

def run(index, sockets):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print("runs as", os.getpid(), flush=True)
    signal.sigwait([signal.SIGTERM])
    return 0

supervisor.Supervisor(run, [[]]).supervise()
"""
DELAY_S = 0.5
"""Of the next start of a process that died (`gateway.app.supervisor`)."""


def _runs(line: str) -> bool:
    return line.startswith("runs as ")


def test_a_parent_that_stands_still_while_a_start_gets_due_goes_on() -> None:
    parent = Program([sys.executable, "-c", PROGRAM])
    try:
        first = parent.wait_line(_runs)
        os.kill(int(first.split()[2]), signal.SIGKILL)
        parent.wait_line(lambda line: "process.died" in line)
        parent.pause()
        paused_at = time.monotonic()
        until_blocking(
            lambda: time.monotonic() - paused_at,
            lambda passed_s: passed_s > 2 * DELAY_S,
            what="the end of the pause",
        )
        parent.send(signal.SIGCONT)
        second = parent.wait_line(lambda line: _runs(line) and line != first)
        # It still notices the end of a process, and starts another.
        os.kill(int(second.split()[2]), signal.SIGTERM)
        parent.wait_line(lambda line: _runs(line) and line not in {first, second})
    finally:
        assert parent.stop() == 0
