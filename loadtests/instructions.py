"""Instructions of one call: ``python -m loadtests.instructions --against REVISION``.

CPU time on a shared machine varies by more than the few percent that matter, so this counts: the
gateway, then the worker agent, runs in valgrind while calls are made one after the other, and ends.
Two such runs of different length are subtracted, so start and end of the program do not count.
What the kernel does is not in the figure, nor are caches. Needs ``valgrind`` on the PATH.
"""

import argparse
import asyncio
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from loadtests.revision import extract
from tests.support.programs import ROOT, Program
from tests.support.stack import LEASE_S, Gateway, Stack

MAX_RATIO = 1.02
_CALLS = (500, 2500)
_WARM_CALLS = 300
_START_S = 300.0
_BODY = b'{"prompt":"' + b"x" * 200 + b'"}'
_count = re.compile(r"I\s+refs:\s+([\d,]+)")
_length = re.compile(rb"(?i)content-length: (\d+)")
_PROGRAMS = ("gateway", "worker agent")


def call(gateway: Gateway, count: int, headers: Sequence[str]) -> None:
    """Make ``count`` calls, one after the other on one connection."""
    parts = urlsplit(gateway.url)
    pairs = {"host": parts.netloc, **gateway.headers, "content-type": "application/json"}
    lines = [f"{name}: {value}" for name, value in pairs.items()]
    head = "\r\n".join(["POST /echo HTTP/1.1", *lines, *headers, f"content-length: {len(_BODY)}"])
    request = head.encode() + b"\r\n\r\n" + _BODY
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        for _ in range(count):
            connection.sendall(request)
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65536)
            head_bytes, _, rest = data.partition(b"\r\n\r\n")
            assert head_bytes[9:12] == b"200", head_bytes
            found = _length.search(head_bytes)
            left = int(found[1]) - len(rest) if found else 0
            while left > 0:
                left -= len(connection.recv(65536))


def started(stack: Stack, tree: Path, name: str, log: Path | None, **settings: str) -> Program:
    """Start a program of the source tree ``tree``, in valgrind if there is a ``log``."""
    command = [sys.executable, "-m", *name.split()]
    if log is not None:
        valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--log-file={log}"]
        command = [*valgrind, "--cachegrind-out-file=/dev/null", *command]
    env = {"PYTHONPATH": str(tree), "PYTHONHASHSEED": "0", **settings}
    program = Program(command, env, tree)
    stack.keep(program)
    return program


def measured(stack: Stack, tree: Path, program: str, count: int, headers: Sequence[str]) -> int:
    """Return the instructions that ``program`` runs from its start to its end, with so many calls.

    Raises:
        AssertionError: a program did not start, or a call failed.
    """
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        log = Path(folder) / "valgrind"
        env = {
            "GATEWAY_EDGE__LISTEN": "127.0.0.1:0",
            "GATEWAY_ATTACH__LISTEN": "127.0.0.1:0",
            "GATEWAY_ADMIN__LISTEN": "127.0.0.1:0",
            "GATEWAY_NATS__URLS": stack.nats.url,
            "GATEWAY_ROLES": "invocation",
            "GATEWAY_DRAIN__GRACE_S": "0",
        }
        front = started(stack, tree, "gateway serve", log if program == "gateway" else None, **env)
        ready = front.wait_event("gateway.ready", _START_S)
        gateway = Gateway(front, ready, stack.demo)
        env = {
            "WORKER_NATS__URLS": stack.nats.url,
            "WORKER_FUNCTION__ID": stack.demo.function_id,
            "WORKER_FUNCTION__VERSION_ID": stack.demo.version_id,
            "WORKER_INFERENCE__PORT": str(stack.inference.port),
            "WORKER_INFERENCE__MAX_CONCURRENCY": "4",
            "WORKER_HEALTH__PATH": "/health",
            "WORKER_QUEUE__PROGRESS_S": str(LEASE_S * 60),
            "WORKER_ADMIN__LISTEN": "127.0.0.1:0",
        }
        agent = started(stack, tree, "worker_agent", None if program == "gateway" else log, **env)
        agent.wait_event("worker.ready", _START_S)
        call(gateway, _WARM_CALLS + count, headers)
        for each in (agent, front):
            each.stop(timeout_s=_START_S)
        found = _count.search(log.read_text())
        assert found is not None, log.read_text()
        return int(found[1].replace(",", ""))


def each_call(stack: Stack, tree: Path, program: str, headers: Sequence[str]) -> float:
    """Return the instructions of ``program`` for one call."""
    few, many = (measured(stack, tree, program, count, headers) for count in _CALLS)
    return (many - few) / (_CALLS[1] - _CALLS[0])


async def main() -> int:
    """Print the figures; return 1 if one is above its bar, 2 if valgrind is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", metavar="REVISION")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--header", action="append", default=[], metavar="LINE")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is missing. On Debian and Ubuntu: apt-get install valgrind")
        return 2
    is_good = True
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        trees = [ROOT]
        if options.against:
            extract(options.against, Path(folder) / "before")
            trees.insert(0, Path(folder) / "before")
        stack = Stack(Path(folder))
        await stack.start()
        try:
            for program in _PROGRAMS:
                figures = [
                    [
                        await asyncio.to_thread(each_call, stack, tree, program, options.header)
                        for tree in trees
                    ]
                    for _ in range(options.rounds)
                ]
                for round_ in figures:
                    ratio = f", {round_[-1] / round_[0]:.4f} times" if options.against else ""
                    values = " before, ".join(f"{value:,.0f}" for value in round_)
                    print(f"{program}: {values} instructions a call{ratio}", flush=True)
                    is_good &= round_[-1] <= round_[0] * MAX_RATIO
        finally:
            await stack.stop()
    return int(not is_good)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
