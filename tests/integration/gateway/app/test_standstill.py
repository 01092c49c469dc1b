"""The parent of several processes stands still."""

import os
import signal
import sys
import time

from tests.support.programs import Program
from tests.support.waiting import until_blocking

WAIT_S = 0.5
PROGRAM = f"""
import os, signal
from gateway.app import supervisor

supervisor._STEADY_S = {WAIT_S}

def run(index, sockets):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print("runs as", os.getpid(), flush=True)
    signal.sigwait([signal.SIGTERM])
    return 0

supervisor.Supervisor(run, [[]]).supervise()
"""


def test_a_parent_whose_wait_ended_while_it_stood_still_goes_on() -> None:
    parent = Program([sys.executable, "-c", PROGRAM])
    try:
        first = parent.wait_line(lambda line: line.startswith("runs as "))
        parent.pause()
        paused_at = time.monotonic()
        until_blocking(
            lambda: time.monotonic() - paused_at,
            lambda passed_s: passed_s > 2 * WAIT_S,
            what="the end of the pause",
        )
        parent.send(signal.SIGCONT)
        os.kill(int(first.split()[2]), signal.SIGTERM)
        # It has noticed the end of its child, and started another.
        parent.wait_line(lambda line: line.startswith("runs as ") and line != first)
    finally:
        assert parent.stop() == 0
