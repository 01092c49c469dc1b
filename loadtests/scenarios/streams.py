"""Many streams on few HTTP/2 connections: memory while calls wait, and events on 100 streams."""

import asyncio
import time
from typing import Any, Final, cast

import h2.config
import h2.connection
import h2.events
import uvloop

from loadtests.client import ask_inference
from loadtests.errors import MeasurementError
from loadtests.events import EventReader, StreamError
from loadtests.proc import Role, rss_bytes
from loadtests.scenarios import small
from loadtests.scenarios.held import counting
from loadtests.systems import Target

CONNECTIONS: Final = 100
STREAMS: Final = 100
EVENTS_PER_S: Final = 25
_WAITING_S = 120.0
_PATIENCE_S = 60.0
_POLL_S = 0.5
_SETTLE_S = 1.0


class _Client(asyncio.Protocol):
    """One connection. ``bodies`` takes what arrives, by stream."""

    def __init__(self, target: Target) -> None:
        self._target = target
        config = h2.config.H2Configuration(header_encoding=None, validate_inbound_headers=False)
        self._codec = h2.connection.H2Connection(config)
        self.readers: dict[int, EventReader] = {}
        self.last_read_ns = 0
        self.good = 0
        self.bad: list[str] = []
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._codec.initiate_connection()
        self._codec.increment_flow_control_window(1 << 30)
        self.flush()

    def send(self, method: str, path: str, body: bytes) -> int:
        number: int = self._codec.get_next_available_stream_id()
        headers: list[Any] = [
            (":method", method),
            (":scheme", "http"),
            (":authority", self._target.authority),
            (":path", path),
            *self._target.headers,
        ]
        self._codec.send_headers(number, headers, end_stream=not body)
        if body:
            self._codec.send_data(number, body, end_stream=True)
        return number

    def flush(self) -> None:
        self.transport.write(self._codec.data_to_send())

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        try:
            for event in self._codec.receive_data(data):
                self._take(event, now_ns)
        except StreamError as error:
            self.bad.append(str(error))
        self.flush()
        self.changed.set()

    def _take(self, event: h2.events.Event, now_ns: int) -> None:
        match event:
            case h2.events.ResponseReceived():
                status = dict(event.headers or [])[b":status"]
                if status != b"200":
                    self.bad.append(f"status {status!r}")
            case h2.events.DataReceived():
                number = event.stream_id or 0
                if number in self.readers:
                    self.last_read_ns = now_ns
                    self.readers[number].feed(event.data or b"", now_ns)
                if event.flow_controlled_length:
                    self._codec.acknowledge_received_data(event.flow_controlled_length, number)
            case h2.events.StreamEnded():
                self.good += 1
            case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                self.bad.append(repr(event))

    def connection_lost(self, _: Exception | None) -> None:
        self.bad.append("the connection was closed")
        self.changed.set()


def streams(target: Target, duration_s: float) -> dict[str, float]:
    """Return the gateway's memory with all streams waiting, and the share of the events' rate.

    Needs a freshly started system.
    """
    small.warm_up(target)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        share = runner.run(_events(target, duration_s))
        ask_inference(target, "/gate/shut")
        try:
            resident_bytes = runner.run(_waiting(target))
        finally:
            ask_inference(target, "/gate/open")
    return {"streams_mb": resident_bytes / 1e6, "streams_share": share}


async def _connect(target: Target) -> _Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: _Client(target), "127.0.0.1", target.port)
    return client


async def _waiting(target: Target) -> int:
    clients: list[_Client] = []
    try:
        for _ in range(CONNECTIONS):
            client = await _connect(target)
            clients.append(client)
            for _ in range(STREAMS):
                client.send("POST", "/hold", small.BODY)
            client.flush()
        await _wait_for_all(target, clients)
        await asyncio.sleep(_SETTLE_S)
        resident_bytes = rss_bytes(target.processes(), Role.FRONT)
        ask_inference(target, "/gate/open")
        await asyncio.gather(*[_until_all(client) for client in clients])
    finally:
        for client in clients:
            client.transport.abort()
    return resident_bytes


async def _wait_for_all(target: Target, clients: list[_Client]) -> None:
    end = time.monotonic() + _WAITING_S
    async with counting(target) as count:
        while (waiting := await count()) < CONNECTIONS * STREAMS:
            bad = [reason for client in clients for reason in client.bad]
            if bad:
                raise MeasurementError(f"{len(bad)} calls failed: {bad[0]}")
            if time.monotonic() > end:
                raise MeasurementError(f"{waiting} calls wait")
            await asyncio.sleep(_POLL_S)


async def _until_all(client: _Client) -> None:
    """Wait until every stream of a client has ended well. Raises MeasurementError."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while client.good < STREAMS and not client.bad:
                client.changed.clear()
                await client.changed.wait()
    except TimeoutError as error:
        raise MeasurementError(f"{client.good} of {STREAMS} streams have ended") from error
    if client.bad:
        raise MeasurementError(client.bad[0])


async def _events(target: Target, duration_s: float) -> float:
    """Return the share of the asked rate on the slowest of 100 streams of one connection, in %."""
    client = await _connect(target)
    events = int(duration_s * EVENTS_PER_S)
    try:
        for _ in range(STREAMS):
            number = client.send("GET", f"/sse?events={events}&rate={EVENTS_PER_S}", b"")
            client.readers[number] = EventReader()
        client.flush()
        await _until_all(client)
        for reader in client.readers.values():
            reader.finish(events)
    except StreamError as error:
        raise MeasurementError(str(error)) from error
    finally:
        client.transport.abort()
    first_ns = max(reader.first_sent_ns for reader in client.readers.values())
    return (events - 1) / ((client.last_read_ns - first_ns) / 1e9) / EVENTS_PER_S * 100
