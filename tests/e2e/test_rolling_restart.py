"""Every gateway process and every worker is replaced while plain clients call: no call fails.

A plain client keeps its connection while the server lets it, and repeats nothing.
"""

import asyncio
import http.client
import os
import signal
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.programs import Program, descendants
from tests.support.stack import Demo, Stack
from tests.support.waiting import PATIENCE_S, until

CALLERS = 6
DETACHED = 100
_LISTEN = "0A"
UPLOAD = bytes(100_000)
"""More than an envelope holds: the worker comes back for the rest."""


class Caller:
    """Calls in a thread until `stop`; ``failures`` are the calls that had no full response."""

    def __init__(self, url: str, demo: Demo, method: str, target: str, body: bytes) -> None:
        self._authority = urlsplit(url).netloc
        self._headers = {
            "authorization": f"Bearer {demo.api_key}",
            "function-id": demo.function_id,
        }
        self._call = method, target, body
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.calls = 0
        self.failures: list[str] = []
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def join(self) -> None:
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._authority, timeout=PATIENCE_S)
        while not self._stopped.is_set():
            try:
                connection.request(*self._call, self._headers)
                with connection.getresponse() as response:
                    body = response.read()
                if response.status != 200:
                    self.failures.append(f"{response.status} {body[:200]!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            self.calls += 1
        connection.close()


def ready_processes(program: Program) -> int:
    return program.output.count('"event":"gateway.ready"')


def listeners(url: str) -> int:
    """Return how many sockets listen on the port of ``url`` (proc_net_tcp.txt of the kernel)."""
    port = f":{urlsplit(url).port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == _LISTEN for row in rows)


async def called_again(callers: list[Caller]) -> None:
    """Wait until each caller has had three more responses."""
    before = [caller.calls for caller in callers]
    await until(
        lambda: [caller.calls - calls for caller, calls in zip(callers, before, strict=True)],
        lambda more: min(more) >= 3,
    )


@pytest.mark.timeout(150)
async def test_no_call_fails_while_gateway_processes_and_workers_are_replaced(
    stack: Stack,
) -> None:
    gateway = stack.gateway("--processes", "2", DRAIN__GRACE_S="0.5")
    await until(lambda: ready_processes(gateway.program), lambda count: count == 2)
    workers = await asyncio.gather(*(asyncio.to_thread(stack.agent) for _ in range(2)))
    calls = [("POST", "/echo", b"x")] * (CALLERS - 2)
    calls += [("POST", "/echo", UPLOAD), ("GET", "/sse?events=10&interval_ms=20", b"")]
    callers = [Caller(gateway.url, stack.demo, *call) for call in calls]
    try:
        for index, process in enumerate(descendants(gateway.program.pid)):
            await called_again(callers)
            os.kill(process, signal.SIGTERM)
            await until(
                lambda: ready_processes(gateway.program),
                lambda count, want=3 + index: count == want,
            )
        await asyncio.gather(*(asyncio.to_thread(stack.agent) for _ in workers))
        for worker in workers:
            await called_again(callers)
            worker.send(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait_end) == 0
        await called_again(callers)
    finally:
        for caller in callers:
            caller.stop()
        for caller in callers:
            await asyncio.to_thread(caller.join)
    assert [failure for caller in callers for failure in caller.failures] == []
    assert gateway.program.stop() == 0


async def test_only_processes_that_are_ready_listen_on_a_shared_port(stack: Stack) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    await stack.nats.stop()
    program = stack.starting_gateway("--processes", "2", EDGE__LISTEN=urlsplit(url).netloc)
    program.wait_event("nats.connect_failed")
    assert listeners(url) == 0
    await stack.nats.start()
    await until(lambda: ready_processes(program), lambda count: count == 2)
    assert listeners(url) == 2
    os.kill(next(iter(descendants(program.pid))), signal.SIGKILL)
    await until(lambda: listeners(url), lambda count: count == 1)
    await until(lambda: ready_processes(program), lambda count: count == 3)
    assert listeners(url) == 2
    assert program.stop() == 0


async def test_detached_calls_outlive_every_process(stack: Stack, tmp_path: Path) -> None:
    """They wait while the first gateway drains, and run while workers are replaced too."""
    settings = {"OBJECTS__FOLDER": str(tmp_path), "DRAIN__TIMEOUT_S": str(PATIENCE_S)}
    old = await asyncio.gather(*(asyncio.to_thread(stack.gateway, **settings) for _ in range(2)))
    detached = {"prefer": "respond-async"}
    locations: list[tuple[str, bytes]] = []
    for gateway in old:
        async with gateway.client(**detached) as client:
            for number in range(DETACHED // 2):
                body = b"%d of %d" % (number, len(locations))
                accepted = await client.post("/echo", content=body)
                locations.append((accepted.headers["location"], body))
    new = []
    workers: list[Program] = []
    for gateway in old:
        gateway.program.send(signal.SIGTERM)
        new.append(await asyncio.to_thread(stack.gateway, **settings))
        workers.append(await asyncio.to_thread(stack.agent))
        if len(workers) > 1:
            workers[0].send(signal.SIGTERM)
            assert await asyncio.to_thread(workers[0].wait_end) == 0
        assert await asyncio.to_thread(gateway.program.wait_end) == 0
    async with new[0].client() as one, new[1].client() as other:
        for number, (location, body) in enumerate(locations):
            found = await (one, other)[number % 2].get(f"{location}/response")
            assert (found.status_code, found.content) == (200, body)
