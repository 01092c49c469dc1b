"""The demo inference server does what the other tests take for granted."""

import asyncio
import hashlib
import json
import os
import signal
import struct
import zlib
from collections.abc import AsyncIterator, Iterator

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.support.inference_server import InferenceServer, running_inference_server, serving


@pytest.fixture(scope="module")
def server() -> Iterator[InferenceServer]:
    with serving() as started:
        yield started


@pytest.fixture
async def client(server: InferenceServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as opened:
        yield opened


async def test_it_is_healthy_as_soon_as_it_says_so(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).status_code == 200
    assert (await client.get("/v2/health/ready")).status_code == 200


async def test_echo_gives_back_the_body_and_its_type(client: httpx.AsyncClient) -> None:
    answer = await client.post("/echo", content=b"\0\xff", headers={"content-type": "x/y"})
    assert (answer.content, answer.headers["content-type"]) == (b"\0\xff", "x/y")


async def test_reflect_shows_the_head_byte_for_byte(client: httpx.AsyncClient) -> None:
    answer = await client.request(
        "PROPFIND", "/reflect/a%2Fb/../c%20d?x=%41&y", headers={"X-One": "1"}, content=b"four"
    )
    reflection = answer.json()
    assert reflection["method"] == "PROPFIND"
    assert reflection["raw_path"].startswith("/reflect/")
    assert "c%20d" in reflection["raw_path"]
    assert reflection["query"] == "x=%41&y"
    assert ["x-one", "1"] in reflection["headers"]
    assert reflection["body_bytes"] == 4


async def test_count_hashes_a_chunked_upload(client: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    answer = await client.post("/count", content=pieces())
    assert answer.json() == {
        "bytes": 1_000_000,
        "sha256": hashlib.sha256(b"x" * 1_000_000).hexdigest(),
    }


async def test_events_come_one_by_one_at_a_steady_rate(client: httpx.AsyncClient) -> None:
    async with client.stream("GET", "/sse?events=5&interval_ms=20&pad_bytes=3") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in answer.aiter_lines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [event["n"] for event in events] == [0, 1, 2, 3, 4]
    assert events[0]["pad"] == "xxx"
    assert events[4]["at_ns"] - events[0]["at_ns"] >= 75_000_000


@pytest.mark.parametrize("announce", [0, 1])
async def test_huge_sends_as_many_bytes_as_asked(client: httpx.AsyncClient, announce: int) -> None:
    answer = await client.get(f"/huge?bytes=1000001&announce={announce}")
    assert len(answer.content) == 1_000_001
    assert ("content-length" in answer.headers) == bool(announce)


async def test_who_leaves_is_not_worked_for_any_longer(client: httpx.AsyncClient) -> None:
    broken_before = (await client.get("/running")).json()["broken"]
    async with asyncio.TaskGroup() as group:
        leaving = [
            group.create_task(client.get(path))
            for path in ("/slow?seconds=60", "/sse?events=1000&interval_ms=60")
        ]
        assert (await client.get("/running?until=2")).json()["running"] == 2
        for task in leaving:
            task.cancel()
    counts = (await client.get("/running?until=0")).json()
    assert (counts["running"], counts["broken"]) == (0, broken_before + 2)


async def test_slow_answers_in_the_end(client: httpx.AsyncClient) -> None:
    answer = await client.post("/slow?seconds=0.01", content=b"x")
    assert answer.text == "after 0.01 s\n"


async def test_ping_pong_answers_before_the_request_is_complete(
    server: InferenceServer,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /ping-pong HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    async with asyncio.timeout(30):
        for word in (b"one", b"two"):
            writer.write(b"3\r\n%s\r\n" % word)
            await reader.readuntil(b"pong " + word)
        writer.write(b"0\r\n\r\n")
        await reader.readuntil(b"0\r\n\r\n")
    writer.close()
    await writer.wait_closed()


async def test_heads_come_as_asked_for(client: httpx.AsyncClient) -> None:
    assert (await client.get("/status/204")).status_code == 204
    assert (await client.get("/status/302")).headers["location"] == "/health"
    failed = await client.post("/fail/503")
    assert (failed.status_code, failed.json()) == (503, {"detail": "Failed as asked"})
    headers = (await client.get("/headers/50")).headers
    assert [name for name in headers if name.startswith("x-header-")] == [
        f"x-header-{number}" for number in range(50)
    ]


@pytest.mark.parametrize("announce", [0, 1])
async def test_a_connection_that_dies_is_no_clean_end(
    client: httpx.AsyncClient, announce: int
) -> None:
    received = bytearray()

    async def read() -> None:
        async with client.stream("GET", f"/die?after_bytes=5000&announce={announce}") as answer:
            async for data in answer.aiter_bytes():
                received.extend(data)

    with pytest.raises(httpx.RemoteProtocolError):
        await read()
    assert len(received) == 5000


async def test_a_process_that_dies_can_be_started_again_on_its_port() -> None:
    async with running_inference_server() as mortal, httpx.AsyncClient() as client:
        port = mortal.port
        with pytest.raises(httpx.HTTPError):
            await client.get(f"{mortal.url}/die?how=process&after_bytes=0")
        assert await mortal.ended() == -signal.SIGKILL
        await mortal.restart()
        assert mortal.port == port
        assert (await client.get(f"{mortal.url}/health")).status_code == 200
        os.kill(mortal.pid, signal.SIGTERM)
        assert await mortal.ended() in {0, -signal.SIGTERM}


async def test_openais_own_client_talks_to_it(server: InferenceServer) -> None:
    url = f"{server.url}/v1"
    said: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "say this again"}]
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        assert [model.id async for model in client.models.list()] == ["echo"]
        answer = await client.chat.completions.create(model="echo", messages=said)
        assert answer.choices[0].message.content == "say this again"
        assert answer.usage is not None
        assert answer.usage.total_tokens == 6
        stream = await client.chat.completions.create(
            model="echo", messages=said, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert words == ["", "say ", "this ", "again ", None]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def png() -> bytes:
    """Return a grey image of 64 by 64."""

    def part(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [part(b"IHDR", head), part(b"IDAT", zlib.compress(b"\0" * 65 * 64)), part(b"IEND", b"")]
    )


async def test_a_real_model_tells_an_image_from_a_program(client: httpx.AsyncClient) -> None:
    pytest.importorskip("magika")
    answer = await client.post("/classify", files={"file": ("picture", png())})
    assert answer.text.startswith("png image/png ")
    program = b"import os\n\n\ndef main() -> None:\n    print(os.getcwd())\n" * 20
    answer = await client.post("/classify", files={"file": ("text", program)})
    assert answer.text.startswith("python ")
