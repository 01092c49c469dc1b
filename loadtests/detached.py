"""What detached calls cost: ``python -m loadtests.detached --waiting 10000`` and ``--cpu``.

``--waiting``: memory of the gateway for each call that waits in the queue while nobody holds a
connection for it. ``--cpu``: CPU of gateway and worker agent for a detached call, accepted, run,
stored and fetched, compared with the same call attached, in alternating rounds.
"""

import argparse
import asyncio
import http.client
import json
import statistics
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from loadtests.proc import tree
from tests.support.stack import Gateway, Stack

MAX_WAITING_BYTES = 4096
MAX_RATIO = 1.6
_BODY = json.dumps({"prompt": "x" * 200}).encode()
_ROUND_CALLS = 1000
_SETTLE_S = 1.0


class Connection:
    """One connection to a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._headers = {**gateway.headers, "content-type": "application/json"}
        self._http = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=60)

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
        """Return the status and the location of the response."""
        self._http.request(method, path, body or None, {**self._headers, **headers})
        response = self._http.getresponse()
        response.read()
        return response.status, response.headers.get("location", "")


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
    connection = Connection(gateway)
    pids = (gateway.program.process.pid, agent_pid)

    def attached() -> None:
        status, _ = connection.call("POST", "/echo", _BODY)
        assert status == 200, status

    def detached() -> None:
        status, location = connection.call("POST", "/echo", _BODY, prefer="respond-async")
        assert status == 202, status
        status, _ = connection.call("GET", f"{location}/response")
        assert status == 200, status

    figures: dict[str, list[float]] = {"attached": [], "detached": []}
    for number in range(rounds + 1):
        for name, call in (("attached", attached), ("detached", detached)):
            before = cpu_s(*pids)
            for _ in range(_ROUND_CALLS):
                call()
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


async def main() -> int:
    """Print the figures; return 1 if one is above its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=0, metavar="CALLS")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    is_good = True
    with tempfile.TemporaryDirectory(prefix="detached-") as folder:
        stack = Stack(Path(folder))
        await stack.start()
        try:
            gateway = await asyncio.to_thread(stack.gateway, OBJECTS__FOLDER=f"{folder}/objects")
            if options.waiting:
                is_good &= await asyncio.to_thread(measure_waiting, gateway, options.waiting)
            if options.cpu:
                agent = await asyncio.to_thread(stack.agent)
                pid = agent.process.pid
                is_good &= await asyncio.to_thread(measure_cpu, gateway, pid, options.rounds)
        finally:
            await stack.stop()
    return int(not is_good)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
