"""No peer stops an event loop: the longest turn of a gateway process and of a worker agent.

Every input that can cost a lot of work for few bytes, or for one read of the socket, is sent to the
real programs. The limit is relative to a fixed piece of work (`tests.support.loop_turns`), which
takes 1 ms on the machine that the figures were made on. ``make turns`` prints the table.
"""

import asyncio
import base64
import gzip
import http.client
import json
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.api.limits import MAX_BODY_BYTES, MAX_VALUES
from gateway.dev.functions import ACCOUNT
from http2.frames import (
    END_HEADERS,
    END_STREAM,
    PREFACE,
    Code,
    Kind,
    encode_frame,
    encode_rst_stream,
    encode_settings,
)
from http2.header_blocks import encode_headers
from loadtests import catalog
from queueing.nats.protocol import PING, encode_connect, encode_publish
from tests.support.loop_turns import UNITS, LoopTurns, unit_s
from tests.support.nats_server import NatsServer
from tests.support.programs import Program
from tests.support.stack import Demo, register
from tests.support.waiting import PATIENCE_S
from wire.subjects import cancel_subject

NO_ID = "00000000-0000-4000-8000-000000000000"
DEPLOY = f"/v2/nvcf/deployments/functions/{NO_ID}/versions/{NO_ID}"
FUNCTIONS = "/v2/nvcf/functions"
TINY_CHUNKS = b"1\r\nz\r\n" * 400_000
LAST = b"0\r\n\r\n"
LISTED = 400
FULL_HEAD = b"".join(b"a%d: %b\r\n" % (number, b"v" * 480) for number in range(120))


class InferenceThread:
    """An inference server that answers each path with bytes of the test."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with accepted, accepted.makefile("rb") as reader, suppress(OSError):
            while line := reader.readline():
                while reader.readline() not in (b"\r\n", b""):
                    pass
                # One request for each connection: bodies are read and not looked at.
                accepted.sendall(_RESPONSES.get(line.split(b" ")[1], _OK))
                accepted.shutdown(socket.SHUT_WR)
                while reader.read(65536):
                    pass


_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
_CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_RESPONSES = {
    b"/tiny": _CHUNKED + TINY_CHUNKS + LAST,
    b"/interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40_000 + _OK,
    b"/head": b"HTTP/1.1 200 OK\r\n"
    + b"".join(b"a%d: %b\r\n" % (number, b"v" * 1500) for number in range(250))
    + b"content-length: 2\r\n\r\nok",
}


@dataclass
class World:
    """A gateway process and a worker agent, and what they are called with."""

    gateway: LoopTurns
    worker: LoopTurns
    port: int
    attach_port: int
    admin_port: int
    nats_port: int
    demo: Demo
    token: str
    limit_s: float
    table: dict[str, tuple[float, float]] = field(default_factory=dict)

    def call(self, method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
        return call(self.port, method, target, body, headers)

    def post(self, body: bytes, target: str = DEPLOY) -> None:
        """Send a JSON body, compressed."""
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        call(
            self.port, "POST", target, gzip.compress(body), {**headers, "content-encoding": "gzip"}
        )

    def list(self, target: str) -> None:
        call(self.port, "GET", target, b"", {"authorization": f"Bearer {self.token}"})

    def invoke(
        self, target: str, body: bytes = b"", *, rest: bytes = b"", framing: str = ""
    ) -> None:
        """Call the function; ``rest`` follows the head as it is."""
        head = (
            f"POST {target} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {self.demo.api_key}\r\n"
            f"function-id: {self.demo.function_id}\r\nconnection: close\r\n"
            f"{framing}\r\n\r\n"
        )
        send(self.port, head.encode() + rest)

    def http2_upload(self) -> tuple[tuple[bytes, bytes], ...]:
        return (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/ok"),
            (b":authority", b"h"),
            (b"authorization", b"Bearer " + self.demo.api_key.encode()),
            (b"function-id", self.demo.function_id.encode()),
        )

    def cancel(self, count: int) -> None:
        """Publish as many cancellations as when all clients leave, and call behind them."""
        subject = cancel_subject(self.demo.version_id).encode()
        frames = encode_publish(subject, b"", NO_ID.encode()) * count
        with socket.create_connection(("127.0.0.1", self.nats_port), PATIENCE_S) as connected:
            connected.sendall(encode_connect(b'{"verbose":false}') + frames + PING)
            while b"PONG" not in connected.recv(4096):
                pass
        self.invoke("/ok")


def call(port: int, method: str, target: str, body: bytes, headers: dict[str, str]) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, target, body or None, headers)
        return connection.getresponse().read()
    finally:
        connection.close()


def send(port: int, data: bytes) -> None:
    """Send bytes as fast as they are read; read to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connected:
        reader = threading.Thread(target=_read_all, args=(connected,))
        reader.start()
        with suppress(OSError):
            connected.sendall(data)
            connected.shutdown(socket.SHUT_WR)
        reader.join(PATIENCE_S)
        assert not reader.is_alive()


def _read_all(connected: socket.socket) -> None:
    with suppress(OSError):
        while connected.recv(1 << 20):
            pass


def filled(before: bytes, item: bytes, after: bytes, count: int = 0) -> bytes:
    """Return JSON of the items, as many as a body may have bytes, or ``count``."""
    count = count or (MAX_BODY_BYTES - len(before) - len(after)) // (len(item) + 1)
    return before + b",".join([item] * count) + after


def in_spec(member: bytes) -> bytes:
    spec = b'{"deploymentSpecifications":[{"gpu":"x","minInstances":0,"maxInstances":1,"%b":['
    return spec % member


def in_function(member: bytes) -> bytes:
    return b'{"name":"a","inferenceUrl":"/a","containerImage":"x","%b":[' % member


def jwt(payload: bytes) -> str:
    return f"Bearer e30.{base64.urlsafe_b64encode(payload).decode()}.e30"


def _head(number: int, block: bytes) -> bytes:
    return encode_frame(Kind.HEADERS, END_HEADERS | END_STREAM, number, block)


def _heads(count: int, block: bytes) -> bytes:
    return b"".join(_head(number, block) for number in range(1, 2 * count, 2))


HTTP2 = PREFACE + encode_settings({})
LIVE = encode_headers(
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/health/live"), (b"host", b"h")]
)
ALLOWED = MAX_VALUES - 100
MEMBERS = b",".join(b'"%x":0' % number for number in range(ALLOWED))
CHUNKED = "transfer-encoding: chunked"
Hostile = Callable[[World], object]
INPUTS: dict[str, Hostile] = {
    "an upload in chunks of one byte": lambda w: w.invoke(
        "/ok", rest=TINY_CHUNKS + LAST, framing=CHUNKED
    ),
    "chunks with extensions": lambda w: w.invoke(
        "/ok", rest=b"1;\r\nz\r\n" * 16_000 + LAST, framing=CHUNKED
    ),
    "trailers": lambda w: w.invoke(
        "/ok", rest=b"0\r\n" + b"a:\r\n" * 4000 + b"\r\n", framing=CHUNKED
    ),
    "REST body in chunks of one byte": lambda w: send(
        w.port,
        f"POST {DEPLOY} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {w.token}\r\n{CHUNKED}\r\n"
        "content-type: application/json\r\nconnection: close\r\n\r\n".encode()
        + TINY_CHUNKS
        + LAST,
    ),
    "attach body in chunks of one byte": lambda w: send(
        w.attach_port,
        b"POST /v2/nvcf/worker/request-attach HTTP/1.1\r\nhost: h\r\nauthorization: Bearer x\r\n"
        b"transfer-encoding: chunked\r\n\r\n" + TINY_CHUNKS,
    ),
    "empty lines": lambda w: send(w.port, b"\r\n" * 1_000_000),
    "pipelined health checks": lambda w: send(
        w.port, b"GET /health/live HTTP/1.1\r\nhost: h\r\n\r\n" * 40_000
    ),
    "pipelined largest heads": lambda w: send(
        w.port, (b"GET /health/live HTTP/1.1\r\nhost: h\r\n" + FULL_HEAD + b"\r\n") * 150
    ),
    "pipelined refusals": lambda w: send(
        w.port,
        b"GET / HTTP/1.1\r\nhost: h\r\nfunction-id: %b\r\nauthorization: Bearer e30.e30.e30\r\n\r\n"
        % NO_ID.encode()
        * 10_000,
    ),
    "HTTP/2: requests sent ahead": lambda w: send(w.port, HTTP2 + _heads(40_000, LIVE)),
    "HTTP/2: large header blocks": lambda w: send(
        w.port, HTTP2 + _heads(64, LIVE + b"\x90" * 16_000)
    ),
    "HTTP/2: a header block in many frames": lambda w: send(
        w.port,
        HTTP2
        + encode_frame(Kind.HEADERS, 0, 1, LIVE)
        + encode_frame(Kind.CONTINUATION, 0, 1, b"\x90" * 16_000) * 64,
    ),
    "HTTP/2: requests that are reset": lambda w: send(
        w.port,
        HTTP2
        + b"".join(
            _head(number, LIVE) + encode_rst_stream(number, Code.CANCEL)
            for number in range(1, 20_000, 2)
        ),
    ),
    "HTTP/2: frames of one byte": lambda w: send(
        w.port,
        HTTP2
        + encode_frame(Kind.HEADERS, END_HEADERS, 1, encode_headers(w.http2_upload()))
        + encode_frame(Kind.DATA, 0, 1, b"z") * 60_000,
    ),
    "HTTP/2: frames of no use": lambda w: send(
        w.port, HTTP2 + encode_frame(Kind.PING, 0, 0, bytes(8)) * 100_000
    ),
    "Connection with many options": lambda w: w.invoke(
        "/ok",
        framing="content-length: 0\r\nconnection: " + ",".join(f"{n:x}" for n in range(12_000)),
    ),
    "a query of many parameters": lambda w: w.list(f"{FUNCTIONS}?limit=1&" + "a&" * 7900),
    "a query of many values": lambda w: w.list(f"{FUNCTIONS}?limit=1&visibility=" + "a," * 7900),
    "a long JWT": lambda w: w.call("GET", FUNCTIONS, authorization=f"Bearer {'A' * 64_000}"),
    "a nested JWT": lambda w: w.call("GET", FUNCTIONS, authorization=jwt(b"[" * 45_000)),
    "a JWT of many values": lambda w: w.call(
        "GET", FUNCTIONS, authorization=jwt(filled(b'{"a":[', b"0", b"]}", 20_000))
    ),
    "JSON: regions": lambda w: w.post(filled(in_spec(b"regions"), b"0", b"]}]}")),
    "JSON: regions, as many as allowed": lambda w: w.post(
        filled(in_spec(b"regions"), b"0", b"]}]}", ALLOWED)
    ),
    "JSON: specifications": lambda w: w.post(
        filled(b'{"deploymentSpecifications":[', b"{}", b"]}", ALLOWED)
    ),
    "JSON: secrets": lambda w: w.post(filled(in_function(b"secrets"), b"{}", b"]}"), FUNCTIONS),
    "JSON: secrets, as many as allowed": lambda w: w.post(
        filled(in_function(b"secrets"), b"{}", b"]}", ALLOWED), FUNCTIONS
    ),
    "JSON: models": lambda w: w.post(filled(in_function(b"models"), b"{}", b"]}", 200), FUNCTIONS),
    "JSON: rates": lambda w: w.post(
        in_function(b"tags") + b'],"rateLimit":{"perNcaIdRate":{' + MEMBERS + b"}}}", FUNCTIONS
    ),
    "JSON: accounts": lambda w: w.post(
        filled(b'{"authorizedParties":[', b"{}", b"]}", ALLOWED),
        f"/v2/nvcf/authorizations/functions/{NO_ID}",
    ),
    "JSON: unknown members": lambda w: w.post(b"{" + MEMBERS + b"}"),
    "JSON: empty lists": lambda w: w.post(filled(b'{"x":[', b"[]", b"]}")),
    "JSON: short texts": lambda w: w.post(filled(b'{"x":[', b'""', b"]}")),
    "JSON: one text of escapes": lambda w: w.post(b'{"x":"' + b"\\u0041" * 170_000 + b'"}'),
    "JSON: a text without end": lambda w: w.post(b'{"x":"' + b'\\"' * 500_000),
    "JSON: nested": lambda w: w.post(filled(b'{"x":[', b"[" * 900 + b"]" * 900, b"]}", 20)),
    "JSON: one number": lambda w: w.post(b'{"x":' + b"1" * 1_000_000 + b"}"),
    "JSON: numbers": lambda w: w.post(filled(b'{"x":[', b"1e308", b"]}", ALLOWED)),
    "JSON: any values": lambda w: w.post(
        b'{"deploymentSpecifications":[{"gpu":"x","minInstances":0,"maxInstances":1,'
        + filled(b'"configuration":{"a":[', b"0", b"]}}]}", ALLOWED)
    ),
    "the OpenAPI document": lambda w: w.call("GET", "/v3/openapi"),
    "a list of functions": lambda w: w.list(FUNCTIONS),
    "a list of ids": lambda w: w.list(f"{FUNCTIONS}/ids"),
    "metrics": lambda w: call(w.admin_port, "GET", "/metrics", b"", {}),
    "a response in chunks of one byte": lambda w: w.invoke("/tiny"),
    "interim responses": lambda w: w.invoke("/interim"),
    "cancellations": lambda w: w.cancel(80_000),
    "a response with the largest head": lambda w: w.invoke("/head"),
}


@pytest.fixture(scope="module")
def inference() -> Iterator[InferenceThread]:
    server = InferenceThread()
    yield server
    server.close()


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    inference: InferenceThread,
) -> Iterator[World]:
    nats = NatsServer(tmp_path_factory.mktemp("nats"))
    nats.start_blocking()
    programs: list[Program] = []
    try:
        running = _start(tmp_path_factory.mktemp("turns"), nats, inference, programs)
        yield running
    finally:
        for program in programs:
            program.process.kill()
            program.wait_end()
        nats.end_blocking(signal.SIGKILL)
    sys.stdout.write(_text(running))


def _start(
    folder: Path, nats: NatsServer, inference: InferenceThread, programs: list[Program]
) -> World:
    demo = asyncio.run(register(nats.url))
    catalog.fill(nats.url, LISTED)
    gateway, worker = LoopTurns(folder / "gateway"), LoopTurns(folder / "worker")
    env = {
        "EDGE__LISTEN": "127.0.0.1:0",
        "ATTACH__LISTEN": "127.0.0.1:0",
        "ADMIN__LISTEN": "127.0.0.1:0",
        "NATS__URLS": nats.url,
        "ROLES": "invocation,api",
        "CONTROL__SECRETS_KEY_FILE": str(folder / "master.key"),
        "PROVISION__FOLDER": str(folder / "instances"),
    }
    settings = {f"GATEWAY_{name}": value for name, value in env.items()}
    program = gateway.program("gateway", "serve", env=settings)
    programs.append(program)
    env = {
        "NATS__URLS": nats.url,
        "FUNCTION__ID": demo.function_id,
        "FUNCTION__VERSION_ID": demo.version_id,
        "INFERENCE__PORT": str(inference.port),
        "HEALTH__PATH": "/health",
        "ADMIN__LISTEN": "127.0.0.1:0",
    }
    agent = worker.program("worker_agent", env={f"WORKER_{k}": v for k, v in env.items()})
    programs.append(agent)
    ready = program.wait_event("gateway.ready")
    agent.wait_event("worker.ready")
    port, attach_port, admin_port = (
        int(address.rpartition(":")[2])
        for address in (ready["listen"][0], ready["attach"], ready["admin"])
    )
    secret = re.search(r"[A-Za-z0-9]+[-_][A-Za-z0-9_-]{30,}", _line(program, "ootstrap"))
    assert secret is not None
    headers = {"authorization": f"Bearer {secret[0]}", "content-type": "application/json"}
    made = call(port, "POST", "/v1/admin/keys", b'{"nca_id":"%b"}' % ACCOUNT.encode(), headers)
    token = json.loads(made)["value"]
    limit_s = UNITS * unit_s()
    return World(gateway, worker, port, attach_port, admin_port, nats.port, demo, token, limit_s)


def _line(program: Program, part: str) -> str:
    return program.wait_line(lambda line: part in line)


def _text(world: World) -> str:
    lines = [f"{'longest turn in ms':44} {'gateway':>8} {'worker':>8}"]
    lines += [
        f"{name:44} {gateway_s * 1000:8.1f} {worker_s * 1000:8.1f}"
        for name, (gateway_s, worker_s) in world.table.items()
    ]
    return "\n" + "\n".join([*lines, f"{'limit':44} {world.limit_s * 1000:8.1f}\n"])


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_keeps_no_loop_busy(world: World, name: str) -> None:
    longest_s, limit_s = _longest_s(world, name), world.limit_s
    if max(longest_s) > limit_s:
        # What else runs on this machine may have made it slower since the limit was measured.
        longest_s, limit_s = _longest_s(world, name), max(limit_s, UNITS * unit_s())
    world.table[name] = longest_s
    assert max(longest_s) <= limit_s


def _longest_s(world: World, name: str) -> tuple[float, float]:
    for turns in (world.gateway, world.worker):
        turns.reset()
    INPUTS[name](world)
    return world.gateway.longest_s(), world.worker.longest_s()
