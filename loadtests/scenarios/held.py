"""Memory per waiting invocation: thousands of requests are held open, then all get a response.

Behind the gateway, a full worker holds a few requests and the rest wait in the queue. Behind a
plain proxy, all wait at the inference server. Memory is read once the queue or the inference server
confirms that every request waits. The responses afterwards prove that none was lost.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import httptools
import nats
import uvloop

from loadtests.client import ask_inference, request_bytes
from loadtests.errors import MeasurementError
from loadtests.proc import Role, rss_bytes
from loadtests.scenarios import small
from loadtests.systems import Target

_AT_ONCE = 50
_WAITING_S = 60.0
_ANSWERED_S = 60.0
_SETTLE_S = 1.0
_POLL_S = 0.5
_QUEUE_STREAMS = "rq_"


class _Tally:
    """Counts the outcomes of the held requests."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.good = 0
        self.bad: list[str] = []
        self.all_answered = asyncio.Event()

    def count(self, problem: str) -> None:
        if problem:
            self.bad.append(problem)
        else:
            self.good += 1
        if self.good + len(self.bad) == self.expected:
            self.all_answered.set()


class _Held(asyncio.Protocol):
    """One connection with one request, with as little memory as possible."""

    __slots__ = ("_answered", "_parser", "_request", "_tally", "transport")

    def __init__(self, request: bytes, tally: _Tally) -> None:
        self._request = request
        self._tally = tally
        self._answered = False
        self._parser: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"malformed response: {error}")

    def connection_lost(self, _: Exception | None) -> None:
        self._end("closed without a response")

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._end("" if status == 200 else f"status {status}")

    def _end(self, problem: str) -> None:
        if not self._answered:
            self._answered = True
            self._tally.count(problem)


def held(target: Target, requests: int) -> dict[str, float]:
    """Return the growth of the gateway's or proxy's resident memory per waiting request, in KiB.

    Needs a freshly started system: memory freed after earlier load would hide the growth.
    """
    small.warm_up(target)
    ask_inference(target, "/gate/shut")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            grown_bytes = runner.run(_hold(target, requests))
    finally:
        ask_inference(target, "/gate/open")
    return {"held_kib": grown_bytes / requests / 1024}


async def _hold(target: Target, requests: int) -> int:
    tally = _Tally(requests)
    before = rss_bytes(target.processes(), Role.FRONT)
    clients: list[_Held] = []
    try:
        await _connect(target, requests, tally, clients)
        await _wait_for_all(target, requests, tally)
        await asyncio.sleep(_SETTLE_S)
        after = rss_bytes(target.processes(), Role.FRONT)
        ask_inference(target, "/gate/open")
        try:
            async with asyncio.timeout(_ANSWERED_S):
                await tally.all_answered.wait()
        except TimeoutError as error:
            raise MeasurementError(
                f"after the release {tally.good} of {requests} were answered"
            ) from error
        _check(tally)
    finally:
        for client in clients:
            client.transport.abort()
    return after - before


async def _connect(target: Target, requests: int, tally: _Tally, clients: list[_Held]) -> None:
    loop = asyncio.get_running_loop()
    request = request_bytes(target, "POST", "/hold", small.BODY)
    for first in range(0, requests, _AT_ONCE):
        connecting: list[Awaitable[tuple[asyncio.Transport, _Held]]] = [
            loop.create_connection(lambda: _Held(request, tally), "127.0.0.1", target.port)
            for _ in range(min(_AT_ONCE, requests - first))
        ]
        try:
            connected = await asyncio.gather(*connecting)
        except OSError as error:
            raise MeasurementError(f"connecting after {len(clients)}: {error}") from error
        clients += [client for _, client in connected]


async def _wait_for_all(target: Target, requests: int, tally: _Tally) -> None:
    """Wait until all requests wait. Raises MeasurementError after a response or `_WAITING_S`."""
    end = time.monotonic() + _WAITING_S
    async with counting(target) as count:
        before = 0
        # Nothing moves any more: some requests may be counted twice.
        while (waiting := await count()) < requests or waiting != before:
            before = waiting
            _check(tally)
            if time.monotonic() > end:
                raise MeasurementError(f"{waiting} of {requests} requests wait")
            await asyncio.sleep(_POLL_S)
    if tally.good or tally.bad:
        _check(tally)
        raise MeasurementError(f"{tally.good} requests were answered at a shut gate")


@asynccontextmanager
async def counting(target: Target) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Yield a counter of waiting requests: in the queue if there is one, else at the server."""

    async def at_inference_server() -> int:
        return int(json.loads(ask_inference(target, "/gate"))["waiting"])

    async def in_queue_or_at_work() -> int:
        # Calls that a worker got over a channel are at the inference server alone, those that it
        # leased from the queue in both.
        streams = await connection.jetstream().streams_info()
        queues = [each for each in streams if (each.config.name or "").startswith(_QUEUE_STREAMS)]
        queued = sum(each.state.messages for each in queues)
        return queued + await at_inference_server()

    if not target.nats_url:
        yield at_inference_server
        return
    connection = await nats.connect(target.nats_url)
    try:
        yield in_queue_or_at_work
    finally:
        await connection.close()


def _check(tally: _Tally) -> None:
    if tally.bad:
        raise MeasurementError(f"{len(tally.bad)} of {tally.expected} failed: {tally.bad[0]}")
