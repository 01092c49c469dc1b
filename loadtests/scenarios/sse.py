"""Server-sent events: the rate and the delay of fast token streams."""

import asyncio
import gc
import time
from typing import Any, Final, cast

import httptools
import uvloop

from loadtests.client import request_bytes
from loadtests.errors import MeasurementError
from loadtests.events import EventReader, StreamError
from loadtests.proc import Role, cpu_between
from loadtests.stats import quantile
from loadtests.systems import Target

STREAMS: Final = 4
RATE: Final = 2_500
_WARM_UP_EVENTS = RATE // 4
_PATIENCE_S = 30.0


class _Stream(asyncio.Protocol):
    """One connection with one event stream."""

    def __init__(self, request: bytes, finished: "asyncio.Future[None]") -> None:
        self.reader = EventReader()
        self.reads = 0
        self.last_read_ns = 0
        self._request = request
        self._finished = finished
        self._now_ns = 0
        self._parser: Any = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._now_ns = time.monotonic_ns()
        self.reads += 1
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, StreamError) as error:
            self._fail(f"{error.__context__ or error}")

    def connection_lost(self, _: Exception | None) -> None:
        self._fail("the connection was closed inside the stream")

    def on_body(self, data: bytes) -> None:
        if self._parser.get_status_code() != 200:
            self._fail(f"status {self._parser.get_status_code()}: {data[:300]!r}")
            return
        self.reader.feed(data, self._now_ns)

    def on_message_complete(self) -> None:
        self.last_read_ns = self._now_ns
        if not self._finished.done():
            self._finished.set_result(None)

    def _fail(self, reason: str) -> None:
        if not self._finished.done():
            self._finished.set_exception(MeasurementError(reason))


def sse(target: Target, duration_s: float) -> dict[str, float]:
    """Read all streams concurrently. Raises MeasurementError for a missing or repeated event."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_read_streams(target, _WARM_UP_EVENTS))
        gc.collect()
        gc.disable()
        before = target.processes()
        try:
            streams = runner.run(_read_streams(target, int(duration_s * RATE)))
        finally:
            gc.enable()
    used = cpu_between(before, target.processes())
    return _figures(streams, used.get(Role.FRONT), used.get(Role.AGENT))


async def _read_streams(target: Target, events: int) -> list[_Stream]:
    loop = asyncio.get_running_loop()
    request = request_bytes(target, "GET", f"/sse?events={events}&rate={RATE}")
    finished: list[asyncio.Future[None]] = [loop.create_future() for _ in range(STREAMS)]
    streams: list[_Stream] = []
    transports: list[asyncio.Transport] = []
    try:
        for future in finished:
            transport, stream = await loop.create_connection(
                lambda future=future: _Stream(request, future),  # type: ignore[misc]
                "127.0.0.1",
                target.port,
            )
            transports.append(transport)
            streams.append(stream)
        async with asyncio.timeout(events / RATE + _PATIENCE_S):
            await asyncio.gather(*finished)
        for stream in streams:
            stream.reader.finish(events)
    except TimeoutError as error:
        counts = [len(stream.reader.delays_ns) for stream in streams]
        raise MeasurementError(f"streams of {events} events stalled at {counts}") from error
    except StreamError as error:
        raise MeasurementError(str(error)) from error
    finally:
        for transport in transports:
            transport.abort()
    return streams


def _figures(
    streams: list[_Stream], front_s: float | None, agent_s: float | None
) -> dict[str, float]:
    delays_ns = sorted(delay for stream in streams for delay in stream.reader.delays_ns)
    # Measured from the first sending to the last receipt, so that a stream that is held back and
    # then delivered at once does not look fast.
    rate = min(
        (len(stream.reader.delays_ns) - 1)
        / ((stream.last_read_ns - stream.reader.first_sent_ns) / 1e9)
        for stream in streams
    )
    figures = {
        "sse_rate": rate,
        "sse_share": rate / RATE * 100,
        "sse_p50": quantile(delays_ns, 0.50) / 1e3,
        "sse_p99": quantile(delays_ns, 0.99) / 1e3,
        "sse_merged": len(delays_ns) / sum(stream.reads for stream in streams),
    }
    for key, used_s in (("sse_cpu_front", front_s), ("sse_cpu_agent", agent_s)):
        if used_s is not None:
            figures[key] = used_s / len(delays_ns) * 1e6
    if front_s is not None and agent_s is not None:
        figures["sse_cpu_all"] = (front_s + agent_s) / len(delays_ns) * 1e6
    return figures
