"""What detached calls cost: ``python -m loadtests.detached --waiting 10000`` and ``--cpu``.

``--waiting``: memory of the gateway for each call that waits in the queue while nobody holds a
connection for it. ``--cpu``: CPU of gateway and worker agent for a detached call, accepted, run,
stored and fetched, compared with the same call attached, in alternating rounds. ``--idle``: CPU of
the gateway while so many polls wait for calls that wait themselves, and without them.
``--large``: memory of every program for one long response, as it is and as the zip that NVCF's
routes make of it. ``--restart``: so many calls wait in two gateways, then each gateway and each
worker is replaced, and every response is fetched from the new gateways.
"""

import argparse
import asyncio
import json
import re
import signal
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from loadtests.proc import tree
from tests.support.stack import Gateway, Stack

MAX_WAITING_BYTES = 4096
MAX_RATIO = 1.6
MAX_LARGE_MIB = 64
_length = re.compile(rb"(?i)content-length: (\d+)")
_request_id = re.compile(rb"(?i)\r\nnvcf-reqid: ([^\r]+)")
_location = re.compile(rb"(?i)\r\nlocation: ([^\r]+)")
_BODY = json.dumps({"prompt": "x" * 200}).encode()
_ROUND_CALLS = 2000
_CLIENTS = 8
_SETTLE_S = 1.0
_IDLE_S = 20.0
_MAX_IDLE_US = 10.0
"""Of CPU for each poll and second: what the machine's noise is at most."""


class Connection:
    """One connection to a gateway: as cheap as possible, so that it disturbs little."""

    def __init__(self, gateway: Gateway) -> None:
        parts = urlsplit(gateway.url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=60)
        headers = {"host": parts.netloc, **gateway.headers, "content-type": "application/json"}
        self._lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
        """Return the status and the location of the response."""
        self.send(method, path, body, **headers)
        found = self.received()
        location = _location.search(found)
        return int(found[9:12]), location[1].decode() if location else ""

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        """Make a call, and do not wait for its response."""
        own = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\n{self._lines}{own}content-length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)

    def received(self) -> bytes:
        """Read one response; return its head."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._socket.recv(65536)
        head, _, rest = data.partition(b"\r\n\r\n")
        length = _length.search(head)
        left = int(length[1]) - len(rest) if length else 0
        while left > 0:
            left -= len(self._socket.recv(65536))
        return head

    def close(self) -> None:
        self._socket.close()


def rss_bytes(gateway: Gateway) -> int:
    """Return the memory of the gateway's processes."""
    return sum(process.rss_bytes for process in tree((gateway.program.process.pid,)))


def cpu_s(*pids: int) -> float:
    """Return the CPU time of programs."""
    return sum(process.cpu_s for process in tree(pids))


def measure_waiting(gateway: Gateway, count: int) -> bool:
    """Print the memory of each of ``count`` calls that wait; return whether it is low enough."""
    connection = Connection(gateway)

    def accept(number: int) -> None:
        for _ in range(number):
            status, _ = connection.call("POST", "/echo", _BODY, prefer="respond-async")
            assert status == 202, status

    # What the first calls need once for all: modules, buffers, the stream.
    accept(200)
    time.sleep(_SETTLE_S)
    before = rss_bytes(gateway)
    accept(count)
    time.sleep(_SETTLE_S)
    each = (rss_bytes(gateway) - before) / count
    print(f"{count} calls wait: {each:.0f} bytes each (at most {MAX_WAITING_BYTES})")
    return each <= MAX_WAITING_BYTES


def measure_cpu(gateway: Gateway, agent_pid: int, rounds: int) -> bool:
    """Print the CPU of attached and detached calls; return whether the ratio is low enough."""
    connections = [Connection(gateway) for _ in range(_CLIENTS)]
    pids = (gateway.program.process.pid, agent_pid)

    def attached(connection: Connection) -> None:
        status, _ = connection.call("POST", "/echo", _BODY)
        assert status == 200, status

    def detached(connection: Connection) -> None:
        status, location = connection.call("POST", "/echo", _BODY, prefer="respond-async")
        assert status == 202, status
        status, _ = connection.call("GET", f"{location}/response")
        assert status == 200, status

    def run(call: Callable[[Connection], None]) -> None:
        def calls(connection: Connection) -> None:
            for _ in range(_ROUND_CALLS // _CLIENTS):
                call(connection)

        with ThreadPoolExecutor(_CLIENTS) as clients:
            list(clients.map(calls, connections))

    figures: dict[str, list[float]] = {"attached": [], "detached": []}
    for number in range(rounds + 1):
        for name, call in (("attached", attached), ("detached", detached)):
            before = cpu_s(*pids)
            run(call)
            if name == "detached":
                time.sleep(0.2)
            if number:
                figures[name].append((cpu_s(*pids) - before) / _ROUND_CALLS * 1e6)
    attached_us, detached_us = (statistics.median(values) for values in figures.values())
    ratio = detached_us / attached_us
    print(
        f"attached {attached_us:.0f} µs, detached {detached_us:.0f} µs of CPU a call:"
        f" {ratio:.2f} times (at most {MAX_RATIO})"
    )
    return ratio <= MAX_RATIO


def measure_idle(gateway: Gateway, polls: int) -> bool:
    """Print the CPU of so many polls that wait; return whether there is none beside the noise."""

    def used_s() -> float:
        before = cpu_s(gateway.program.pid)
        time.sleep(_IDLE_S)
        return cpu_s(gateway.program.pid) - before

    path = f"/v2/nvcf/pexec/functions/{gateway.headers['function-id']}"
    connections = [Connection(gateway) for _ in range(polls)]
    for connection in connections:
        connection.send("POST", path, _BODY, **{"nvcf-poll-seconds": "1"})
    ids = []
    for connection in connections:
        found = _request_id.search(connection.received())
        assert found is not None
        ids.append(found[1].decode())
    figures: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(3):
        time.sleep(_SETTLE_S)
        figures["without"].append(used_s())
        waiting = [Connection(gateway) for _ in range(polls)]
        for connection, request_id in zip(waiting, ids, strict=True):
            status_path = f"/v2/nvcf/pexec/status/{request_id}"
            connection.send("GET", status_path, **{"nvcf-poll-seconds": "300"})
        time.sleep(_SETTLE_S)
        figures["with"].append(used_s())
        for connection in waiting:
            connection.close()
    without_s, with_s = (statistics.median(values) for values in figures.values())
    each_us = (with_s - without_s) / _IDLE_S / polls * 1e6
    print(
        f"{_IDLE_S:.0f} s of {polls} calls: {without_s:.2f} s of CPU, with a poll that waits for"
        f" each {with_s:.2f} s: {each_us:.1f} µs a poll and second (at most {_MAX_IDLE_US:.0f})"
    )
    return each_us <= _MAX_IDLE_US


def measure_large(gateway: Gateway, body_bytes: int) -> bool:
    """Print how much a long response adds to the gateway's memory while it is kept and fetched."""
    connection = Connection(gateway)
    before = rss_bytes(gateway)
    _, location = connection.call("GET", f"/huge?bytes={body_bytes}", prefer="respond-async")
    most, got = 0, 0
    with httpx.Client(base_url=gateway.url, headers=gateway.headers, timeout=60) as client:
        while client.get(location).json()["state"] not in {"done", "failed"}:
            most = max(most, rss_bytes(gateway))
            time.sleep(0.1)
        with client.stream("GET", f"{location}/response") as response:
            for number, data in enumerate(response.iter_raw()):
                got += len(data)
                if number % 1000 == 0:
                    most = max(most, rss_bytes(gateway))
    mib = (most - before) / 2**20
    print(f"{got} bytes kept and fetched: {mib:.1f} MiB more (at most {MAX_LARGE_MIB})")
    return got == body_bytes and mib <= MAX_LARGE_MIB


def measure_restart(stack: Stack, folder: str, count: int) -> bool:
    """Replace everything while ``count`` calls wait; return whether each response is its own."""
    settings = {"OBJECTS__FOLDER": f"{folder}/restart", "DRAIN__TIMEOUT_S": "600"}
    old = [stack.gateway(**settings) for _ in range(2)]
    locations: list[tuple[str, bytes]] = []
    for number, gateway in enumerate(old):
        connection = Connection(gateway)
        for each in range(number, count, len(old)):
            body = b"call %d" % each
            status, location = connection.call("POST", "/echo", body, prefer="respond-async")
            assert status == 202, status
            locations.append((location, body))
    new, worker, began = [], None, time.monotonic()
    for gateway in old:
        # Its calls wait: no worker runs before the first gateway drains.
        terminated, used_s = time.monotonic(), cpu_s(gateway.program.pid)
        before_s = used_s
        gateway.program.send(signal.SIGTERM)
        new.append(stack.gateway(**settings))
        following = stack.agent()
        if worker is not None:
            worker.send(signal.SIGTERM)
        while gateway.program.process.poll() is None:
            used_s = max(used_s, cpu_s(gateway.program.pid))
            time.sleep(0.05)
        took_s = time.monotonic() - terminated
        print(f"a gateway drained in {took_s:.1f} s, with {used_s - before_s:.1f} s of CPU")
        if gateway.program.process.returncode or (worker is not None and worker.wait_end()):
            print("a program ended with an error")
            return False
        worker = following
    replaced_s = time.monotonic() - began
    wrong, began = 0, time.monotonic()
    with httpx.Client(headers=new[0].headers, timeout=60) as client:
        for number, (location, body) in enumerate(locations):
            found = client.get(f"{new[number % len(new)].url}{location}/response")
            if found.status_code != 200 or found.content != body:
                wrong += 1
                if wrong <= 3:
                    print(f"{location}: {found.status_code} {found.text[:300]}")
    print(
        f"{count} calls waited; all replaced in {replaced_s:.1f} s;"
        f" fetched in {time.monotonic() - began:.1f} s; {wrong} responses missing or wrong"
    )
    return not wrong


async def main() -> int:
    """Print the figures; return 1 if one is above its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=0, metavar="CALLS")
    parser.add_argument("--large", type=int, default=0, metavar="BYTES")
    parser.add_argument("--restart", type=int, default=0, metavar="CALLS")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--idle", type=int, default=0, metavar="POLLS")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    is_good = True
    with tempfile.TemporaryDirectory(prefix="detached-") as folder:
        stack = Stack(Path(folder))
        await stack.start()
        try:
            if options.restart:
                is_good &= await asyncio.to_thread(measure_restart, stack, folder, options.restart)
            gateway = await asyncio.to_thread(stack.gateway, OBJECTS__FOLDER=f"{folder}/objects")
            if options.waiting:
                is_good &= await asyncio.to_thread(measure_waiting, gateway, options.waiting)
            if options.idle:
                is_good &= await asyncio.to_thread(measure_idle, gateway, options.idle)
            if options.cpu or options.large:
                agent = await asyncio.to_thread(stack.agent)
            if options.large:
                is_good &= await asyncio.to_thread(measure_large, gateway, options.large)
            if options.cpu:
                pid = agent.process.pid
                is_good &= await asyncio.to_thread(measure_cpu, gateway, pid, options.rounds)
        finally:
            await stack.stop()
    return int(not is_good)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
