"""A blocking HTTP/1.1 client on one connection: cheap, and strict about responses.

Blocking calls cost the client less CPU than an event loop, and a round trip is timed by two clock
readings with nothing else between them.
"""

import socket
import struct
import time
from typing import Any, Self

import httptools

from loadtests.errors import MeasurementError
from loadtests.systems import Target

_READ_BYTES = 1024 * 1024
_KEPT_BYTES = 4096


def request_bytes(
    target: Target, method: str, path: str, body: bytes = b"", body_bytes: int | None = None
) -> bytes:
    """Return a request with ``body``; with ``body_bytes`` only its head, for a body sent later."""
    length = len(body) if body_bytes is None else body_bytes
    pairs = [("host", target.authority), ("content-type", "application/json"), *target.headers]
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in pairs)
    return f"{head}content-length: {length}\r\n\r\n".encode() + body


class ClientConnection:
    """One connection, used for one request at a time.

    After `exchange`, ``body_bytes`` is the size of the response body and ``body`` its first 4 KiB.
    """

    def __init__(self, target: Target, timeout_s: int = 30) -> None:
        self._socket = socket.create_connection(("127.0.0.1", target.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Timeouts in the kernel, because settimeout() would add a poll() to each read.
        limit = struct.pack("ll", timeout_s, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._parser: Any = httptools.HttpResponseParser(self)
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._done = False
        self.body_bytes = 0
        self.body = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exchange(self, request: bytes) -> None:
        """Send a request and read its response. Raises MeasurementError if that is not a 200."""
        self.send(request)
        self.receive()

    def send(self, data: bytes | memoryview) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise MeasurementError(f"sending: {error}") from error

    def receive(self) -> None:
        self._done = False
        self.body_bytes = 0
        self.body = b""
        while not self._done:
            try:
                count = self._socket.recv_into(self._buffer)
            except BlockingIOError as error:
                raise MeasurementError("no response within the time limit") from error
            except OSError as error:
                raise MeasurementError(f"receiving: {error}") from error
            if count == 0:
                raise MeasurementError("the connection was closed inside a response")
            try:
                self._parser.feed_data(self._buffer[:count])
            except httptools.HttpParserError as error:
                raise MeasurementError(f"malformed response: {error}") from error
        status = self._parser.get_status_code()
        if status != 200:
            raise MeasurementError(f"status {status}: {self.body[:300]!r}")

    # Called by httptools

    def on_body(self, data: bytes) -> None:
        self.body_bytes += len(data)
        if len(self.body) < _KEPT_BYTES:
            self.body += data[:_KEPT_BYTES]

    def on_message_complete(self) -> None:
        self._done = True


def ask_inference(target: Target, path: str) -> bytes:
    """Send a request directly to the inference server; return the begin of the response's body."""
    inference = target.inference()
    with ClientConnection(inference) as connection:
        connection.exchange(request_bytes(inference, "POST", path))
        return connection.body


def repeat(connection: ClientConnection, request: bytes, duration_s: float) -> list[int]:
    """Repeat an exchange for ``duration_s``; return the round trips in nanoseconds, ascending."""
    clock = time.perf_counter_ns
    times_ns = []
    end_ns = clock() + int(duration_s * 1e9)
    started_ns = clock()
    while started_ns < end_ns:
        connection.exchange(request)
        done_ns = clock()
        times_ns.append(done_ns - started_ns)
        started_ns = done_ns
    return sorted(times_ns)
