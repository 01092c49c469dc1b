"""Invocations that wait in line: 64 clients and 4 slots, so that a call always finds all busy."""

import asyncio
import gc
import time
from typing import Any, Final, cast

import httptools
import uvloop

from loadtests.client import request_bytes
from loadtests.errors import MeasurementError
from loadtests.proc import cpu_between
from loadtests.scenarios.small import BODY, CONNECTIONS, cpu_figures
from loadtests.stats import quantile
from loadtests.systems import Target

SLOTS: Final = 4
WORK_MS: Final = 2
_WARM_UP_S = 1.0
_PATIENCE_S = 30.0
_CPU_KEYS = ("cpu_front", "cpu_agent", "cpu_broker", "cpu_programs", "cpu_all")


class _Client(asyncio.Protocol):
    """One connection in a closed loop: sends its next call when it has the last one's response."""

    def __init__(self, request: bytes, until: float, done: "asyncio.Future[None]") -> None:
        self.times_ns: list[int] = []
        self._request = request
        self._until = until
        self._done = done
        self._sent_ns = 0
        self._parser: Any = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"malformed response: {error}")

    def connection_lost(self, _: Exception | None) -> None:
        self._fail("the connection was closed inside a call")

    def on_message_complete(self) -> None:
        if (status := self._parser.get_status_code()) != 200:
            self._fail(f"status {status}")
            return
        self.times_ns.append(time.perf_counter_ns() - self._sent_ns)
        if time.monotonic() < self._until:
            self._send()
        elif not self._done.done():
            self._done.set_result(None)

    def close(self) -> None:
        self._done.cancel()
        self._transport.close()

    def _send(self) -> None:
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(self._request)

    def _fail(self, reason: str) -> None:
        if not self._done.done():
            self._done.set_exception(MeasurementError(reason))


def queued(target: Target, duration_s: float) -> dict[str, float]:
    """Return the throughput, quantiles in ms, and the CPU per call by process in the same run.

    Needs a gateway whose function has `SLOTS` slots.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_call(target, _WARM_UP_S))
        gc.collect()
        before = target.processes()
        began = time.monotonic()
        times_ns = runner.run(_call(target, duration_s))
        elapsed_s = time.monotonic() - began
        used = cpu_between(before, target.processes())
    cpu = cpu_figures(used, len(times_ns))
    return {
        "queued_throughput": len(times_ns) / elapsed_s,
        "queued_p50": quantile(times_ns, 0.50) / 1e6,
        "queued_p99": quantile(times_ns, 0.99) / 1e6,
        **{f"queued_{key}": cpu[key] for key in _CPU_KEYS},
    }


async def _call(target: Target, duration_s: float) -> list[int]:
    """Keep every client busy; return the times of all calls in nanoseconds, ascending."""
    loop = asyncio.get_running_loop()
    request = request_bytes(target, "POST", f"/wait?ms={WORK_MS}", BODY)
    until = time.monotonic() + duration_s
    finished: list[asyncio.Future[None]] = [loop.create_future() for _ in range(CONNECTIONS)]
    clients: list[_Client] = []
    try:
        async with asyncio.timeout(duration_s + _PATIENCE_S):
            for done in finished:
                _, client = await loop.create_connection(
                    lambda done=done: _Client(request, until, done),  # type: ignore[misc]
                    "127.0.0.1",
                    target.port,
                )
                clients.append(client)
            await asyncio.gather(*finished)
    except TimeoutError as error:
        raise MeasurementError("calls had no response in time") from error
    finally:
        for client in clients:
            client.close()
    return sorted(each for client in clients for each in client.times_ns)
