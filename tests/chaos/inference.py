"""An inference server that records what it runs.

``python -m tests.chaos.inference NAME ADDRESS LOG``. HTTP/1.1. The path is
``/BEHAVIOUR/NUMBER?PARAMETERS``; the number must be that of the header x-call, and the request's
body must be made of it. The header x-target takes the place of the path ``/``.

==========  ================================================================================
small       responds with a receipt of the body, after ``ms``
slow        the same, and does not notice before that its caller has left
stream      sends ``events`` server-sent events, one each ``ms``
download    sends ``bytes`` of the call's payload, in chunks if its number is odd
error       responds 422
polled      202 to a POST, and to each GET until ``ms`` later; then as small. A GET is no run
==========  ================================================================================

The log has one line of JSON per event of a run: ``start`` (its head was read), ``first`` (the
response begins), ``end`` (just before its last byte is sent) or ``abort``, each with the monotonic
and the wall time. Each line is one write, so that a killed server loses none.
"""

import asyncio
import itertools
import json
import os
import socket
import sys
import time
from typing import NoReturn
from urllib.parse import parse_qsl, urlsplit

from tests.chaos.payloads import CALL, TARGET, event, foreign_part, payload, receipt

_CHUNK_BYTES = 16 << 10
_READ_LIMIT = 1 << 20
_ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


class RunLog:
    """Appends to a file that servers share in turn."""

    def __init__(self, server: str, path: str) -> None:
        self._server = server
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._runs = itertools.count(1)

    def new_run(self) -> int:
        return next(self._runs)

    def write(self, what: str, run: int, number: int, **more: str) -> None:
        line = {
            "event": what,
            "run": run,
            "number": number,
            "server": self._server,
            "pid": os.getpid(),
            "at": time.monotonic(),
            "wall": time.time(),
            **more,
        }
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Exchange:
    """One request and what its response needs."""

    def __init__(self, method: str, path: str, headers: dict[str, str]) -> None:
        parts = urlsplit(headers[TARGET] if path == "/" else path)
        _, self.behaviour, number = parts.path.split("/")
        self.number = int(number)
        self.parameters = dict(parse_qsl(parts.query))
        self.method = method
        self.headers = headers

    @property
    def pause_s(self) -> float:
        return int(self.parameters.get("ms", "0")) / 1000


class Server:
    """Serves connections and logs the runs."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        # By number: when a polled request is done, and its response.
        self._polled: dict[int, tuple[float, bytes]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        fields = (line.partition(":") for line in lines[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        if path == "/health":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            return True
        exchange = Exchange(method, path, headers)
        if exchange.behaviour == "polled" and method == "GET":
            self._answer_poll(exchange, writer)
            return True
        run, number = self._log.new_run(), exchange.number
        self._log.write("start", run, number, id=headers.get("nvcf-reqid", ""))
        try:
            body = await _read_body(reader, headers)
            self._check(run, exchange, body)
            if exchange.behaviour == "polled":
                done_at = time.monotonic() + exchange.pause_s
                self._polled[number] = done_at, receipt(number, body)
                writer.write(_ACCEPTED)
            else:
                await self._respond(run, exchange, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self._log.write("abort", run, number, why=type(error).__name__)
            raise
        return headers.get("connection", "").lower() != "close"

    def _check(self, run: int, exchange: Exchange, body: bytes) -> None:
        number = exchange.number
        foreign = foreign_part(body, number, payload(number, len(body)))
        if exchange.headers.get(CALL) != str(number):
            foreign = f"the header {CALL}: {exchange.headers.get(CALL)}"
        if foreign:
            self._log.write("foreign", run, number, found=foreign)

    async def _respond(
        self, run: int, exchange: Exchange, body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        behaviour, number = exchange.behaviour, exchange.number
        is_chunked = behaviour == "stream"
        parts: list[bytes]
        if behaviour == "stream":
            parts = [event(number, index) for index in range(int(exchange.parameters["events"]))]
        elif behaviour == "download":
            whole = payload(number, int(exchange.parameters["bytes"]))
            is_chunked = number % 2 == 1
            parts = [whole[i : i + _CHUNK_BYTES] for i in range(0, len(whole), _CHUNK_BYTES)]
        else:
            parts = [receipt(number, body)]
            await asyncio.sleep(exchange.pause_s)
        status = b"422 Unprocessable" if behaviour == "error" else b"200 OK"
        size = sum(map(len, parts))
        framing = b"transfer-encoding: chunked" if is_chunked else b"content-length: %d" % size
        kind = b"text/event-stream" if behaviour == "stream" else b"text/plain"
        head = b"HTTP/1.1 %s\r\ncontent-type: %s\r\n%s: %d\r\n%s\r\n\r\n"
        writer.write(head % (status, kind, CALL.encode(), number, framing))
        self._log.write("first", run, number)
        if exchange.method == "HEAD":
            parts, is_chunked = [], False
        for index, part in enumerate(parts):
            is_last = index == len(parts) - 1
            if is_last and not is_chunked:
                self._log.write("end", run, number)
            writer.write(b"%x\r\n%s\r\n" % (len(part), part) if is_chunked else part)
            await writer.drain()
            if behaviour == "stream":
                await asyncio.sleep(exchange.pause_s)
            if writer.is_closing() and not is_last:
                raise ConnectionResetError
        if is_chunked or not parts:
            self._log.write("end", run, number)
        if is_chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _answer_poll(self, exchange: Exchange, writer: asyncio.StreamWriter) -> None:
        number = exchange.number
        done_at, body = self._polled.get(number, (0.0, b""))
        if not done_at:
            # Another server had the request, and was killed.
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        elif time.monotonic() < done_at:
            writer.write(_ACCEPTED)
        else:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n%s: %d\r\n"
            writer.write(head % (CALL.encode(), number))
            writer.write(b"content-length: %d\r\n\r\n%s" % (len(body), body))


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = bytearray()
    while True:
        size = int((await reader.readuntil(b"\r\n"))[:-2], 16)
        data = await reader.readexactly(size + 2)
        if size == 0:
            return bytes(body)
        body += data[:-2]


async def main(name: str, address: str, path: str) -> NoReturn:
    """Serve for ever."""
    host, _, port = address.rpartition(":")
    server = Server(RunLog(name, path))
    listening = await asyncio.start_server(server.serve, host, int(port), limit=_READ_LIMIT)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await listening.serve_forever()
    raise AssertionError("serves for ever")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
