"""Interim responses (1xx) of an inference server, through gateway and worker agent."""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.programs import Program
from tests.support.raw_server import Peer, RawServer
from tests.support.stack import Demo, Gateway, Stack, register
from tests.support.waiting import PATIENCE_S, until

HINT = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\ncontent-type: x\r\nnvcf-status: x\r\n\r\n"
PASSED_ON = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
RESPONSES = {b"/whole": WHOLE, b"/stream": STREAM}


class Hinting:
    """An inference server that sends interim responses, and the response when told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.runs = 0
        self.server = RawServer(self._serve)

    async def _serve(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            path = head.split(b" ")[1]
            if path == b"/health":
                await peer.send(WHOLE)
                continue
            assert b"nvcf-pass-interim" not in head.lower()
            self.runs += 1
            await peer.send(HINT)
            if path == b"/flood":
                await peer.send(PROCESSING * 100)
            await self.go_on.wait()
            await peer.send(PROCESSING)
            await peer.send(RESPONSES.get(path, WHOLE))


class World:
    """A gateway with two functions: one passes interim responses on, the other does not."""

    def __init__(self, stack: Stack, inference: Hinting, gateway: Gateway, silent: Demo) -> None:
        self.stack = stack
        self.inference = inference
        self.gateway = gateway
        self.silent = silent
        self._writers: list[asyncio.StreamWriter] = []

    async def agent(self, demo: Demo) -> Program:
        """Start an agent while this process serves the probe of its inference server."""
        return await asyncio.to_thread(
            self.stack.agent,
            FUNCTION__ID=demo.function_id,
            FUNCTION__VERSION_ID=demo.version_id,
            INFERENCE__PORT=str(self.inference.server.port),
        )

    async def call(self, path: str, demo: Demo, version: str = "1.1") -> asyncio.StreamReader:
        """Begin a call on a connection that closes behind its response."""
        host, _, port = self.gateway.url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        self._writers.append(writer)
        writer.write(
            f"GET {path} HTTP/{version}\r\nhost: x\r\n"
            f"authorization: Bearer {self.stack.demo.api_key}\r\n"
            f"function-id: {demo.function_id}\r\nconnection: close\r\n"
            "nvcf-pass-interim: true\r\n\r\n".encode()
        )
        return reader

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="stack-") as folder:
        stack = Stack(Path(folder))
        inference = Hinting()
        try:
            await stack.start()
            await inference.server.start()
            silent = stack.demo
            stack.demo = await register(stack.nats.url, passes_interim=True)
            world = World(stack, inference, stack.gateway(), silent)
            yield world
            world.close()
        finally:
            inference.go_on.set()
            inference.server.stop()
            await stack.stop()


async def test_interim_responses_reach_http_1_1_clients_of_functions_that_pass_them_on(
    world: World,
) -> None:
    demo, inference = world.stack.demo, world.inference
    await world.agent(demo)
    await world.agent(world.silent)
    async with asyncio.timeout(PATIENCE_S):
        for path in ("/whole", "/stream"):
            reader = await world.call(path, demo)
            assert await reader.readuntil(b"\r\n\r\n") == PASSED_ON
            inference.go_on.set()
            assert await reader.readuntil(b"\r\n\r\n") == PROCESSING
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"ok" in await reader.read()
            inference.go_on.clear()
        inference.go_on.set()
        for function, version in ((demo, "1.0"), (world.silent, "1.1")):
            response = await (await world.call("/whole", function, version)).read()
            assert response.startswith(b"HTTP/1.1 200 OK\r\n")
            assert response.endswith(b"\r\n\r\nok")
            assert response.count(b"\r\n\r\n") == 1
        flood = await (await world.call("/flood", demo)).read()
        assert flood.count(b"HTTP/1.1 10") == 16
        assert flood.endswith(b"\r\n\r\nok")


async def test_a_call_whose_worker_dies_after_an_interim_response_goes_to_another_worker(
    world: World,
) -> None:
    demo, inference = world.stack.demo, world.inference
    first = await world.agent(demo)
    async with asyncio.timeout(PATIENCE_S):
        reader = await world.call("/whole", demo)
        assert await reader.readuntil(b"\r\n\r\n") == PASSED_ON
        first.process.send_signal(signal.SIGKILL)
        await world.agent(demo)
        await until(lambda: inference.runs, lambda runs: runs == 2, what="the second run")
        inference.go_on.set()
        response = await reader.read()
    assert response.startswith(PASSED_ON + PROCESSING + b"HTTP/1.1 200 OK\r\n")
    assert response.endswith(b"\r\n\r\nok")
