"""The benchmark's inference server: bare uvloop and httptools, so that it is not the bottleneck.

Paths, any method:

* ``/small``: a small JSON response.
* ``/sse?events=N&rate=R``: N events, R per second (see `loadtests.events` for their form).
* ``/download?bytes=N``: N bytes with a content-length.
* ``/upload``: reads the body, responds ``{"received": N}``.
* ``/wait?ms=N``: a small JSON response after N milliseconds.
* ``/hold``: responds when the gate opens. ``/gate/shut``, ``/gate/open``, and ``/gate``, which
  responds ``{"waiting": N}``.
* ``/linger``: responds after 10 s; one at a time. ``/linger/begun`` responds once it has begun,
  ``/linger/closed`` once its connection was closed, with the monotonic time: ``{"closed_ns": N}``,
  0 if it got its response.
* ``/v1/chat/completions``: OpenAI's format, in one piece after 50 ms or streamed at 100 tokens/s.
* ``/ws``: a WebSocket that responds to each ping, without data, with a pong.
* ``/health``, ``/v2/health/ready``: 200.

Events are timed by one timerfd per stream: libuv's timers have a resolution of a millisecond, which
would put two or three events of a 2,500/s stream into one write and hide the cost of a single one.
The server does not write to a stalled stream and catches up later, so backpressure lowers the rate.
"""

import argparse
import asyncio
import ctypes
import gc
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qs

import httptools
import uvloop

from loadtests.events import encode_event

_JSON = b"content-type: application/json\r\n"
_PIECE = bytes(256 * 1024)
_KEPT_BODY_BYTES = 64 * 1024
_LINGER_S = 10.0
_CHAT_DELAY_S = 0.05
_CHAT_TOKENS = 50
_CHAT_RATE = 100.0
_TFD_NONBLOCK = os.O_NONBLOCK
_libc = ctypes.CDLL(None, use_errno=True)


def _response(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n" % (status, _JSON, len(body))
    return head + body


_SMALL = _response(
    b'{"id":"cmpl-1","object":"text_completion","model":"bench",'
    b'"choices":[{"index":0,"text":"It is a benchmark.","finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":24,"completion_tokens":5,"total_tokens":29}}'
)
_CHAT = _response(
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"It is a benchmark."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":24,"completion_tokens":5,"total_tokens":29}}'
)
_HELD = _response(b'{"held":true}')
_OK = _response(b'{"status":"OK"}')
_UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    # RFC 6455, section 4.2.2, of the key that the benchmark sends.
    b"sec-websocket-accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n"
)
_PING_BYTES = 6
_PONG = b"\x8a\x00"
_NOT_FOUND = _response(b'{"error":"no such path"}', b"404 Not Found")
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _chat_token(number: int) -> bytes:
    return (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench",'
        b'"choices":[{"index":0,"delta":{"content":"word%d "},"finish_reason":null}]}\n\n' % number
    )


class _Gate:
    """Holds requests to ``/hold`` while it is shut."""

    def __init__(self) -> None:
        self.shut = False
        self.waiting: set[InferenceProtocol] = set()

    def open(self) -> None:
        self.shut = False
        waiting, self.waiting = self.waiting, set()
        for protocol in waiting:
            protocol.transport.write(_HELD)


class _Linger:
    """The request to ``/linger``, and the requests that ask what became of it."""

    def __init__(self) -> None:
        self.current: InferenceProtocol | None = None
        self._closed_ns = 0
        self._awaits_begin: list[InferenceProtocol] = []
        self._awaits_end: list[InferenceProtocol] = []

    def begin(self, protocol: "InferenceProtocol") -> None:
        self.current = protocol
        self._tell(self._awaits_begin, _OK)

    def end(self, closed_ns: int) -> None:
        self.current = None
        self._closed_ns = closed_ns
        self._tell(self._awaits_end, self._closed())

    def tell_begin(self, asking: "InferenceProtocol") -> None:
        if self.current is None:
            self._awaits_begin.append(asking)
        else:
            asking.transport.write(_OK)

    def tell_end(self, asking: "InferenceProtocol") -> None:
        if self.current is None:
            asking.transport.write(self._closed())
        else:
            self._awaits_end.append(asking)

    def _closed(self) -> bytes:
        return _response(b'{"closed_ns":%d}' % self._closed_ns)

    @staticmethod
    def _tell(asking: "list[InferenceProtocol]", response: bytes) -> None:
        for protocol in asking:
            protocol.transport.write(response)
        asking.clear()


class _Pacer:
    """Writes ``events`` events to a connection at ``rate`` per second, one write per event."""

    def __init__(
        self,
        owner: "InferenceProtocol",
        events: int,
        rate: float,
        encode: Callable[[int], bytes],
        last: bytes,
    ) -> None:
        self._owner = owner
        self._events = events
        self._rate = rate
        self._encode = encode
        self._last = last
        self._sent = 0
        self._loop = asyncio.get_running_loop()
        self._started_ns = time.monotonic_ns()
        self._timer_fd = _libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK)
        if self._timer_fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        interval_ns = int(1e9 / rate)
        every = divmod(interval_ns, 1_000_000_000)
        _libc.timerfd_settime(self._timer_fd, 0, struct.pack("llll", *every, *every), None)
        self._loop.add_reader(self._timer_fd, self._tick)

    def _tick(self) -> None:
        os.read(self._timer_fd, 8)
        if self._owner.paused:
            return
        elapsed_s = (time.monotonic_ns() - self._started_ns) / 1e9
        due = min(int(elapsed_s * self._rate), self._events)
        write = self._owner.transport.write
        while self._sent < due:
            write(_chunk(self._encode(self._sent)))
            self._sent += 1
        if self._sent == self._events:
            write(self._last + b"0\r\n\r\n")
            self.stop()

    def stop(self) -> None:
        if self._timer_fd >= 0:
            self._loop.remove_reader(self._timer_fd)
            os.close(self._timer_fd)
            self._timer_fd = -1


class InferenceProtocol(asyncio.Protocol):
    """One connection. Handles one request at a time, because no client here pipelines."""

    transport: asyncio.Transport

    def __init__(self, gate: _Gate, linger: _Linger) -> None:
        self.paused = False
        self._is_websocket = False
        self._gate = gate
        self._linger = linger
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""
        self._body_bytes = 0
        self._body = b""
        self._unsent_bytes = 0
        self._pacer: _Pacer | None = None
        self._later: asyncio.TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._is_websocket:
            self.transport.write(_PONG * (len(data) // _PING_BYTES))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_websocket = True
        except httptools.HttpParserError:
            self.transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self._gate.waiting.discard(self)
        if self._linger.current is self:
            self._linger.end(time.monotonic_ns())
        if self._pacer is not None:
            self._pacer.stop()
        if self._later is not None:
            self._later.cancel()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._unsent_bytes:
            self._send_pieces()

    # The request, called by httptools

    def on_message_begin(self) -> None:
        self._url = self._body = b""
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes <= _KEPT_BODY_BYTES:
            self._body += body

    def on_message_complete(self) -> None:
        path, _, query = self._url.partition(b"?")
        if path == b"/small":
            self.transport.write(_SMALL)
            return
        respond = _PATHS.get(path)
        if respond is None:
            self.transport.write(_NOT_FOUND)
        else:
            respond(self, query)

    # The responses, by path; the argument is the query

    def ok(self, _: bytes) -> None:
        self.transport.write(_OK)

    def websocket(self, _: bytes) -> None:
        self.transport.write(_UPGRADED)

    def wait(self, query: bytes) -> None:
        wait_s = int(parse_qs(query.decode())["ms"][0]) / 1000
        loop = asyncio.get_running_loop()
        self._later = loop.call_later(wait_s, self.transport.write, _SMALL)

    def linger(self, _: bytes) -> None:
        self._linger.begin(self)
        self._later = asyncio.get_running_loop().call_later(_LINGER_S, self._lingered)

    def _lingered(self) -> None:
        self._linger.end(0)
        self.transport.write(_SMALL)

    def linger_begun(self, _: bytes) -> None:
        self._linger.tell_begin(self)

    def linger_closed(self, _: bytes) -> None:
        self._linger.tell_end(self)

    def hold(self, _: bytes) -> None:
        if self._gate.shut:
            self._gate.waiting.add(self)
        else:
            self.transport.write(_HELD)

    def gate_shut(self, _: bytes) -> None:
        self._gate.shut = True
        self.transport.write(_OK)

    def gate_open(self, _: bytes) -> None:
        self._gate.open()
        self.transport.write(_OK)

    def gate_state(self, _: bytes) -> None:
        self.transport.write(_response(b'{"waiting":%d}' % len(self._gate.waiting)))

    def upload(self, _: bytes) -> None:
        self.transport.write(_response(b'{"received":%d}' % self._body_bytes))

    def sse(self, query: bytes) -> None:
        asked = parse_qs(query.decode())
        self.transport.write(_STREAM_HEAD)
        events, rate = int(asked["events"][0]), float(asked["rate"][0])
        self._pacer = _Pacer(self, events, rate, encode_event, b"")

    def chat(self, _: bytes) -> None:
        if b'"stream":true' in self._body.replace(b" ", b""):
            self.transport.write(_STREAM_HEAD)
            end = _chunk(b"data: [DONE]\n\n")
            self._pacer = _Pacer(self, _CHAT_TOKENS, _CHAT_RATE, _chat_token, end)
        else:
            loop = asyncio.get_running_loop()
            self._later = loop.call_later(_CHAT_DELAY_S, self.transport.write, _CHAT)

    def download(self, query: bytes) -> None:
        self._unsent_bytes = int(parse_qs(query.decode())["bytes"][0])
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
            b"content-length: %d\r\n\r\n" % self._unsent_bytes
        )
        self._send_pieces()

    def _send_pieces(self) -> None:
        while self._unsent_bytes and not self.paused:
            piece = _PIECE[: self._unsent_bytes]
            self._unsent_bytes -= len(piece)
            self.transport.write(piece)


_PATHS: dict[bytes, Callable[[InferenceProtocol, bytes], None]] = {
    b"/ws": InferenceProtocol.websocket,
    b"/sse": InferenceProtocol.sse,
    b"/download": InferenceProtocol.download,
    b"/upload": InferenceProtocol.upload,
    b"/wait": InferenceProtocol.wait,
    b"/linger": InferenceProtocol.linger,
    b"/linger/begun": InferenceProtocol.linger_begun,
    b"/linger/closed": InferenceProtocol.linger_closed,
    b"/hold": InferenceProtocol.hold,
    b"/gate": InferenceProtocol.gate_state,
    b"/gate/shut": InferenceProtocol.gate_shut,
    b"/gate/open": InferenceProtocol.gate_open,
    b"/v1/chat/completions": InferenceProtocol.chat,
    b"/health": InferenceProtocol.ok,
    b"/v2/health/ready": InferenceProtocol.ok,
}


async def _serve(port: int) -> None:
    gate, linger = _Gate(), _Linger()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: InferenceProtocol(gate, linger),
        "127.0.0.1",
        port,
        backlog=4096,
        family=socket.AF_INET,
    )
    gc.freeze()
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="The inference server of the benchmark.")
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
