"""Request bodies that are long, slow, stalled or too large, while others are served."""

import asyncio
import hashlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import httpx
import pytest

from runtime.tasks import spawn
from tests.support.programs import resident_bytes
from tests.support.stack import Gateway, Stack, register
from tests.support.waiting import PATIENCE_S, until

MEBIBYTE = 1 << 20
KIBIBYTE = 1 << 10
NOT_COLLECTED = {"UPLOAD__MEMORY_BYTES": "0", "UPLOAD__SPOOL_BYTES": "0"}


class RawUpload:
    """A POST of which the test sends as much as it likes, when it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> str:
        """Return the next response head, an interim one included."""
        async with asyncio.timeout(PATIENCE_S):
            return (await self._reader.readuntil(b"\r\n\r\n")).decode()

    async def response(self) -> tuple[int, bytes]:
        """Return status and body of the final response, whose length is announced."""
        head = await self.head()
        length = re.search(r"content-length: (\d+)", head)
        assert length, head
        async with asyncio.timeout(PATIENCE_S):
            return int(head.split()[1]), await self._reader.readexactly(int(length[1]))

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


class Uploader:
    """Begins uploads, and closes them at the end of the test."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._begun: list[RawUpload] = []

    async def begin(
        self, gateway: Gateway, *lines: str, poll_s: int = 60, path: str = "/count"
    ) -> RawUpload:
        """Send the head; ``lines`` are further header lines, the framing among them.

        A call below ``/v1/`` names its function in the body.
        """
        host, port = gateway.url.removeprefix("http://").rsplit(":", 1)
        upload = RawUpload(*await asyncio.open_connection(host, int(port)))
        self._begun.append(upload)
        demo = self._stack.demo
        head = [
            f"POST {path} HTTP/1.1",
            "host: x",
            f"authorization: Bearer {demo.api_key}",
            *([] if path.startswith("/v1/") else [f"function-id: {demo.function_id}"]),
            f"nvcf-poll-seconds: {poll_s}",
            *lines,
        ]
        await upload.send("\r\n".join([*head, "", ""]).encode())
        return upload

    async def close(self) -> None:
        for upload in self._begun:
            await upload.close()


@pytest.fixture
async def uploader(stack: Stack) -> AsyncIterator[Uploader]:
    uploads = Uploader(stack)
    yield uploads
    await uploads.close()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def counted(body: bytes) -> dict[str, object]:
    return {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


async def held_bytes(gateway: Gateway, where: str) -> float:
    """Return how much of request bodies the gateway says that it holds."""
    async with httpx.AsyncClient(base_url=gateway.admin_url) as admin:
        text = (await admin.get("/metrics")).text
    (line,) = [
        line for line in text.splitlines() if f'gateway_upload_bytes{{where="{where}"}}' in line
    ]
    return float(line.rsplit(" ", 1)[1])


def open_files(gateway: Gateway, folder: Path) -> list[str]:
    """Return the files in ``folder`` that the gateway has open."""
    descriptors = Path(f"/proc/{gateway.program.process.pid}/fd")
    names = []
    for descriptor in descriptors.iterdir():
        # One that is closed meanwhile is none.
        with suppress(FileNotFoundError):
            names.append(os.readlink(descriptor))
    return [name for name in names if name.startswith(str(folder))]


async def test_uploads_that_stall_hold_no_slot_and_go_on_when_they_like(
    stack: Stack, uploader: Uploader
) -> None:
    gateway = stack.gateway()
    stack.agent(INFERENCE__MAX_CONCURRENCY="1")
    body = os.urandom(200_000)
    begin, framing = uploader.begin, f"content-length: {len(body)}"
    chunked = await begin(gateway, "transfer-encoding: chunked")
    await chunked.send(chunk(body[:1]))
    sized = await begin(gateway, framing)
    await sized.send(body[:100_000])
    small = await begin(gateway, "content-length: 10")
    await small.send(body[:9])
    waiting = await begin(gateway, framing, "expect: 100-continue")
    assert (await waiting.head()).startswith("HTTP/1.1 100 ")
    await until(lambda: held_bytes(gateway, "memory"), lambda held: held == 100_000 - 32_768)
    async with gateway.client() as client:
        for _ in range(5):
            assert (await client.post("/echo", content=b"quick")).content == b"quick"
    async with stack.direct() as direct:
        assert (await direct.get("/running")).json()["begun"] == 5
    await chunked.send(chunk(body[1:]) + b"0\r\n\r\n")
    await sized.send(body[100_000:])
    await small.send(body[9:10])
    await waiting.send(body)
    for upload, sent in ((chunked, body), (sized, body), (small, body[:10]), (waiting, body)):
        status, answer = await upload.response()
        assert status == 200
        assert httpx.Response(200, content=answer).json() == counted(sent)
    assert await until(lambda: held_bytes(gateway, "memory"), lambda held: held == 0) == 0


async def test_the_poll_window_does_not_run_out_while_a_body_flows(
    stack: Stack, uploader: Uploader
) -> None:
    gateway = stack.gateway(UPLOAD__SPOOL_BYTES="0", UPLOAD__MEMORY_BYTES="200000")
    stack.agent()
    body = os.urandom(400_000)
    collected = await uploader.begin(gateway, "content-length: 100000", poll_s=1)
    streamed = await uploader.begin(gateway, "content-length: 400000", poll_s=1)
    begun_at = time.monotonic()
    sent = 0
    # The window and its grace are 3 s.
    while time.monotonic() - begun_at < 4.0:
        await collected.send(body[sent : sent + 1000])
        await streamed.send(body[sent : sent + 1000])
        sent += 1000
        next_at = begun_at + 0.05 * sent / 1000
        await until(lambda at=next_at: time.monotonic() > at, what="the next piece's time")
    await collected.send(body[sent:100_000])
    await streamed.send(body[sent:])
    for upload, size in ((collected, 100_000), (streamed, 400_000)):
        status, answer = await upload.response()
        assert (status, httpx.Response(200, content=answer).json()) == (200, counted(body[:size]))


async def test_long_bodies_are_collected_in_files_and_little_memory(
    stack: Stack, uploader: Uploader, tmp_path: Path
) -> None:
    gateway = stack.gateway(
        UPLOAD__MEMORY_TOTAL_BYTES=str(4 * MEBIBYTE), UPLOAD__SPOOL_FOLDER=str(tmp_path)
    )
    stack.agent()
    body = os.urandom(10 * MEBIBYTE)
    before = resident_bytes(gateway.program.process.pid)
    uploads = [await uploader.begin(gateway, f"content-length: {len(body)}") for _ in range(12)]
    for upload in uploads:
        await upload.send(body[:-1])
    everything = 12 * (len(body) - 1 - 32 * KIBIBYTE)

    async def held() -> float:
        return await held_bytes(gateway, "memory") + await held_bytes(gateway, "spool")

    await until(held, lambda found: found == everything)
    assert await held_bytes(gateway, "memory") < 5 * MEBIBYTE
    # 120 MiB are held.
    assert resident_bytes(gateway.program.process.pid) - before < 40 * MEBIBYTE
    assert os.listdir(tmp_path) == []
    for upload in uploads:
        await upload.send(body[-1:])
    for upload in uploads:
        status, answer = await upload.response()
        assert (status, httpx.Response(200, content=answer).json()) == (200, counted(body))
    await until(held, lambda found: found == 0)
    await until(lambda: not open_files(gateway, tmp_path))


async def test_a_collected_body_goes_to_another_worker_when_the_first_one_dies(
    stack: Stack, tmp_path: Path
) -> None:
    gateway = stack.gateway(
        UPLOAD__MEMORY_BYTES="100000", UPLOAD__SPOOL_FOLDER=str(tmp_path / "missing")
    )
    first = stack.agent()
    flows = asyncio.Event()

    async def long_body() -> AsyncIterator[bytes]:
        for number in range(24):
            yield os.urandom(MEBIBYTE)
            if number == 16:
                # More than sockets hold: the first worker has fetched some of it.
                flows.set()

    async with gateway.client() as client:
        # No file can be made for the long one: it flows through, and cannot be handed out again.
        length = {"content-length": str(24 * MEBIBYTE)}
        collected, streamed = (
            spawn(call, "call")
            for call in (
                client.post("/slow?seconds=4", content=os.urandom(90_000)),
                client.post("/slow?seconds=30", content=long_body(), headers=length),
            )
        )
        async with stack.direct() as direct:
            assert (await direct.get("/running?until=2")).json()["running"] == 2
        async with asyncio.timeout(PATIENCE_S):
            await flows.wait()
        gateway.program.wait_event("upload.spool_failed")
        first.stop(signal.SIGKILL)
        stack.agent()
        assert (await collected).status_code == 200
        answer = await streamed
    assert (answer.status_code, answer.json()["reason"]) == (502, "worker_lost")


async def test_what_is_too_large_is_refused_before_it_is_read(
    stack: Stack, uploader: Uploader
) -> None:
    unlimited = stack.demo.function_id
    stack.demo = await register(stack.nats.url, max_body_bytes=100_000)
    gateway = stack.gateway(EDGE__MAX_BODY_BYTES="200000", **NOT_COLLECTED)
    stack.agent()
    announced = await uploader.begin(gateway, "content-length: 100001", "expect: 100-continue")
    status, answer = await announced.response()
    assert status == 413
    assert httpx.Response(413, content=answer).json()["type"].endswith(":content-too-large")
    unnamed = await uploader.begin(
        gateway, "content-length: 200001", "expect: 100-continue", path="/v1/completions"
    )
    assert (await unnamed.response())[0] == 413
    chunked = await uploader.begin(gateway, "transfer-encoding: chunked")
    await chunked.send(chunk(b"x" * 50_000))
    async with stack.direct() as direct:
        assert (await direct.get("/running?until=1")).json()["running"] == 1
        await chunked.send(chunk(b"x" * 50_001))
        assert (await chunked.response())[0] == 413
        assert (await direct.get("/running?until=0")).json()["running"] == 0
    async with gateway.client() as client:
        assert (await client.post("/count", content=b"x" * 100_000)).json()["bytes"] == 100_000
        headers = {"function-id": unlimited}
        refused = await client.post("/count", content=b"x" * 200_001, headers=headers)
        assert refused.status_code == 413


async def test_without_collection_both_directions_flow_at_once(stack: Stack) -> None:
    gateway = stack.gateway(**NOT_COLLECTED)
    stack.agent()
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def pings() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"ping %d\n" % number
            assert await heard.get() == b"pong ping %d\n" % number

    # Not httpx, which reads nothing before it has sent everything.
    headers = dict(gateway.client().headers)
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"{gateway.url}/ping-pong", data=pings()) as answer:
            async for piece in answer.content.iter_any():
                heard.put_nowait(piece)
