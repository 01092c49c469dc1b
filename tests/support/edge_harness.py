"""One server connection with a recording transport, loop and dispatch in place of real ones."""

import os
import socket
from collections.abc import Callable
from typing import Any

from http1.server.connections import Connections
from http1.server.limits import ServerLimits
from http1.server.protocol import Http1Protocol
from http1.stream import Headers, Request, ResponseWriter

PEER = "192.0.2.7"
_NOTHING_TO_READ, _ = os.pipe()


class FakeSocket:
    family = socket.AF_INET

    def __init__(self) -> None:
        self.error = 0
        self.tcp_state = 1
        self.resets = False

    def getsockopt(self, _: int, name: int, *size: int) -> int | bytes:
        if name == socket.TCP_INFO and size:
            return bytes([self.tcp_state]).ljust(size[0], b"\0")
        return self.error

    def fileno(self) -> int:
        return _NOTHING_TO_READ

    def setsockopt(self, *_: object) -> None:
        self.resets = True


class FakeTransport:
    """Records what is written; ``is_stuck``: the client reads nothing."""

    def __init__(self, loop: "FakeLoop") -> None:
        self._loop = loop
        self.written = b""
        self.writes = 0
        self.buffered = 0
        self.high_water = 0
        self.is_stuck = False
        self.is_reading = True
        self.eof_written = False
        self.aborted = False
        self.socket = FakeSocket()
        self.protocol: Any = None
        self._closing = False

    def write(self, data: bytes) -> None:
        if self._closing:
            return  # as uvloop: what comes after close is lost
        self.written += data
        self.writes += 1
        if self.is_stuck:
            before, self.buffered = self.buffered, self.buffered + len(data)
            if before <= self.high_water < self.buffered:
                self.protocol.pause_writing()

    def drain(self) -> None:
        self.is_stuck = False
        was_paused, self.buffered = self.buffered > self.high_water, 0
        if was_paused:
            self.protocol.resume_writing()

    def set_write_buffer_limits(self, high: int) -> None:
        self.high_water = high

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def can_write_eof(self) -> bool:
        return True

    def get_extra_info(self, name: str) -> FakeSocket | tuple[str, int] | None:
        if name == "sslcontext":
            return None
        assert name in {"socket", "peername"}
        return self.socket if name == "socket" else (PEER, 4711)

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def write_eof(self) -> None:
        self.eof_written = True

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def is_closing(self) -> bool:
        return self._closing


class FakeLoop:
    """Time that moves, and callbacks that run, only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._ready: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        self._ready.append((callback, arguments))

    def call_later(self, _: float, callback: Callable[..., object], *arguments: object) -> None:
        self.call_soon(callback, *arguments)

    def run(self) -> None:
        while self._ready:
            ready, self._ready = self._ready, []
            for callback, arguments in ready:
                callback(*arguments)


class Exchange:
    """A request's stream that records its events. ``on`` may act on an event."""

    def __init__(self, request: Request, writer: ResponseWriter) -> None:
        self.request = request
        self.writer = writer
        self.body_bytes = b""
        self.events: list[str] = []
        self.on: Callable[[str, Exchange], None] = lambda event, exchange: None
        self.is_over = False
        self.trailers: Headers = []

    def _happened(self, event: str) -> None:
        assert not self.is_over, f"{event} after the end"
        self.events.append(event)
        self.on(event, self)

    def request_data(self, data: bytes) -> None:
        assert data
        self.body_bytes += data
        self._happened("data")

    def first_part_end(self) -> None:
        self._happened("first_part_end")

    def request_trailers(self, trailers: Headers) -> None:
        self.trailers = trailers

    def request_end(self) -> None:
        self._happened("end")

    def request_broken(self) -> None:
        self._happened("broken")
        self.is_over = True

    def pause_writing(self) -> None:
        self._happened("pause_writing")

    def resume_writing(self) -> None:
        self._happened("resume_writing")

    def answer(
        self, body: bytes = b"ok", status: int = 200, headers: Headers | None = None
    ) -> None:
        self.writer.send_head(status, headers or [], len(body))
        self.writer.send_data(body)
        self.is_over = True
        self.writer.send_end()


class Harness:
    """A connection with all that it calls and is called by."""

    def __init__(
        self,
        limits: ServerLimits | None = None,
        on: Callable[[str, Exchange], None] = lambda event, exchange: None,
    ) -> None:
        self.exchanges: list[Exchange] = []
        self.has_eof = False
        self.on = on
        self.loop = FakeLoop()
        self.connections = Connections(self._dispatch, limits or ServerLimits(), self.loop)  # type: ignore[arg-type]  # stands in
        self.transport = FakeTransport(self.loop)
        self.protocol: Any = self._make_protocol()
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)  # type: ignore[arg-type]  # stands in

    def _make_protocol(self) -> Any:
        return Http1Protocol(self.connections)

    def _dispatch(self, request: Request, writer: ResponseWriter) -> Exchange:
        exchange = Exchange(request, writer)
        exchange.on = self.on
        self.exchanges.append(exchange)
        self.on("dispatch", exchange)
        return exchange

    def feed(self, *pieces: bytes) -> None:
        """Each piece is one read; as with a real transport, nothing is read while paused."""
        for piece in pieces:
            if piece and not self.transport.is_closing():
                self.protocol.data_received(piece)
                if not self.transport.is_reading:
                    self.loop.run()
                    assert self.transport.is_reading, "paused for good"
        self.loop.run()

    def eof(self) -> None:
        self.has_eof = True
        if not self.protocol.eof_received():
            self.transport.close()
        self.loop.run()

    def pass_time(self, seconds: float) -> None:
        until = self.loop.now + seconds
        while self.loop.now < until:
            self.loop.now = min(until, self.loop.now + self.connections.slack_s)
            self.connections.check()
            self.loop.run()

    def stand_still(self, seconds: float) -> None:
        """Let the process stand still: the next check of the limits is as much too late."""
        self.loop.now += seconds
        self.connections.check()
        self.loop.run()

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]

    def status(self) -> bytes:
        """Return the status of the first answer on the wire, empty when there is none."""
        return self.transport.written[9:12]


def answering(event: str, exchange: Exchange) -> None:
    """Answer every request as soon as it is complete."""
    if event == "end":
        exchange.answer(exchange.request.target + b" " + exchange.body_bytes)
