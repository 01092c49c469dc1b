"""The machines and networks that tests cut."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.network import Link, Machine, Network, why_not_permitted
from tests.support.programs import ROOT, Program, wait_gone

pytestmark = pytest.mark.skipif(bool(why_not_permitted()), reason=why_not_permitted() or "-")

_SERVE = """
import socket, sys
from contextlib import suppress
with socket.create_server((sys.argv[1], 9000)) as listening:
    print("listening", flush=True)
    while True:
        accepted, _ = listening.accept()
        with accepted, suppress(OSError):
            while data := accepted.recv(1):
                accepted.sendall(data)
"""
_MAKE = """
import sys
from tests.support.network import Machine, Network
from tests.support.programs import Program
network, machine = Network(), Machine()
network.join_here()
machine.join(network)
sleeper = Program([*machine.prefix, "sh", "-c", "echo runs; exec sleep 600"])
sleeper.wait_line(lambda line: line == "runs\\n")
print(network.pid, machine.pid, sleeper.pid, flush=True)
sys.stdin.read()
"""


def echoed(connection: socket.socket) -> bytes:
    connection.sendall(b"x")
    return connection.recv(1)


def reconnected(link: Link) -> socket.socket:
    return socket.create_connection((link.address, 9000), timeout=20)


def test_a_cut_link_loses_everything_silently_and_a_restored_one_delivers_it() -> None:
    with Network() as network, Machine() as machine:
        network.join_here()
        link = machine.join(network)
        server = Program([*machine.prefix, sys.executable, "-c", _SERVE, link.address])
        try:
            server.wait_line(lambda line: line == "listening\n")
            with reconnected(link) as connection:
                assert echoed(connection) == b"x"
                link.cut()
                connection.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    echoed(connection)
                link.restore()
                connection.settimeout(20)
                assert connection.recv(1) == b"x"
        finally:
            server.stop(signal.SIGKILL)


def test_nothing_remains_when_the_process_that_made_them_is_killed(tmp_path: Path) -> None:
    maker = subprocess.Popen(
        [sys.executable, "-c", _MAKE],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert maker.stdout is not None
    assert maker.stdin is not None
    with maker.stdout, maker.stdin:
        pids = [int(word) for word in maker.stdout.readline().split()]
        assert [os.path.exists(f"/proc/{pid}") for pid in pids] == [True] * 3
        maker.kill()
        maker.wait()
    wait_gone(pids)
