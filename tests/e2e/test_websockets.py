"""WebSockets from the client through gateway and worker agent to the inference server and back."""

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from gateway.domain.cors import PagePolicy
from gateway.domain.model import FunctionVersion, VersionKey
from tests.support.followed_store import opened
from tests.support.http2_client import Http2Client, http2_client
from tests.support.programs import resident_bytes
from tests.support.socket_world import SocketWorld, running_sockets
from tests.support.stack import Gateway, Stack, start
from tests.support.waiting import until, until_unchanged
from tests.support.websockets import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Connection,
    Frame,
    ServedSocket,
    SocketServer,
    close_frame,
    encode,
)


@pytest.fixture
async def world() -> AsyncIterator[SocketWorld]:
    async with running_sockets() as world:
        yield world


@pytest.mark.parametrize("direct", ["true", "false"])
async def test_messages_of_every_size_and_kind_come_back(world: SocketWorld, direct: str) -> None:
    await world.begin(QUEUE__DIRECT=direct)
    # The first one goes through the queue in any case, and opens the channel.
    for _ in range(2):
        world.server.protocol = "chat"
        socket, response = await world.ask("/ws?a=1", **{"sec-websocket-protocol": "soup, chat"})
        assert response.headers["sec-websocket-protocol"] == "chat"
        assert response.headers["x-own"] == "1"
        assert response.headers["nvcf-status"] == "fulfilled"
        assert "nvcf-upgraded" not in response.headers
        for size in (0, 1, 125, 126, 65_535, 65_536, 4_000_000):
            await socket.echo(BINARY, b"x" * size)
        await socket.echo(TEXT, "Grüße".encode())
        parts = [(TEXT, b"a", 0x40), (CONTINUATION, b"b", 0), (CONTINUATION, b"c", 0x80)]
        await socket.send(encode(TEXT, b"a", bits=0x40) + encode(PING, b"now?"))
        await socket.send(encode(CONTINUATION, b"b", bits=0) + encode(CONTINUATION, b"c"))
        frames = [await socket.frame() for _ in range(4)]
        assert frames.pop(1) == Frame(PONG, b"now?")
        assert frames == [Frame(*part) for part in parts]
        await socket.send(close_frame(4001, b"bye"))
        assert await socket.frame() == Frame(CLOSE, b"\x0f\xa1bye")
        assert await socket.end() == b""
    served = world.server.sockets[0]
    assert served.target == "/ws?a=1"
    assert served.headers["sec-websocket-protocol"] == "soup, chat"
    assert not {"authorization", "nvcf-upgrade", "transfer-encoding"} & served.headers.keys()
    line = await world.ended()
    assert (line["status"], line["outcome"]) == (101, "answered")
    assert line["request_bytes"] > 4_000_000 < line["response_bytes"]


async def test_ends_are_passed_on_in_both_directions_and_free_the_slot(world: SocketWorld) -> None:
    await world.begin()
    # The server sends an end of its own, and what the client still says goes nowhere.
    closing = asyncio.Event()

    async def goodbye(socket: ServedSocket) -> None:
        await closing.wait()
        await socket.send(close_frame(1012, b"restart", masks=False))

    world.server.talk = goodbye
    socket = await world.open()
    closing.set()
    assert await socket.frame() == Frame(CLOSE, b"\x03\xf4restart")
    assert await socket.end() == b""
    await world.until_ended("talk")

    # A client that only stops sending gets what the server has to say to that.
    async def last_words(socket: ServedSocket) -> None:
        rest = await socket.peer.reader.read()
        await socket.send(b"after %d" % len(rest))

    world.server.talk = last_words
    socket = await world.open()
    await socket.send(b"x" * 100_000)
    socket.writer.write_eof()
    assert await socket.end() == b"after 100000"
    await world.until_ended("talk", "talk")

    # A client that is gone, with an end or a reset, is one at the server at once.
    world.server.talk = SocketServer().talk
    for leave in (Connection.close, Connection.abort):
        socket = await world.open()
        await socket.echo(TEXT, b"here")
        leave(socket)
        await until(lambda: world.server.running, lambda count: count == 0)
    assert world.server.ends[:3] == ["talk", "talk", "eof"]

    # A server that breaks off leaves no end that looks like a frame.
    async def crash(socket: ServedSocket) -> None:
        await socket.frame()
        await socket.send(b"\x82\x7e\xff\xff half")
        socket.abort()

    world.server.talk = crash
    socket = await world.open()
    await socket.send(encode(TEXT, b"boo"))
    assert (await socket.end()) in (b"", b"\x82\x7e\xff\xff half")


async def test_a_handshake_that_is_refused_waits_or_is_wrong(world: SocketWorld) -> None:
    await world.begin()
    # What the inference server says in place of 101 arrives as it is, also if it forges our word.
    world.server.refusal = (
        b"HTTP/1.1 403 Forbidden\r\nx-why: no\r\nnvcf-upgraded: websocket\r\n"
        b"content-length: 4\r\n\r\nnope"
    )
    connection, response = await world.ask()
    assert (response.status, response.headers["x-why"]) == (403, "no")
    assert await connection.reader.readexactly(4) == b"nope"
    world.server.refusal = world.server.refusal.replace(b"403 Forbidden", b"200 OK")
    connection, response = await world.ask()
    assert response.status == 200
    assert "nvcf-upgraded" not in response.headers
    assert await connection.reader.readexactly(4) == b"nope"
    # The connection can be used again, for a WebSocket too.
    world.server.refusal = b""
    response = await connection.handshake("/ws", world.gateway.headers)
    assert response.status == 101
    await connection.echo(TEXT, b"x")
    # With every slot taken the next one waits, and is agreed to when one is free.
    waiting = start(world.open())
    waits = "gateway_queue_depth"
    await until(lambda: gauge(world.gateway, waits), lambda count: count == 1)
    assert not waiting.done()
    assert await gauge(world.gateway, "gateway_websockets") == 1
    await connection.send(close_frame(1000))
    second = await waiting
    await second.echo(BINARY, b"y")
    # Its window ends like that of any call.
    _, response = await world.ask(**{"nvcf-poll-seconds": "1"})
    assert response.status == 504
    second.close()
    world.server.accept = b"c29tZXRoaW5nIGVsc2U="
    connection, response = await world.ask()
    assert response.status == 502
    assert b"sec-websocket-accept" in await connection.reader.readexactly(200)
    for wrong, status in (
        ({"sec-websocket-version": "8"}, 426),
        ({"sec-websocket-key": "short"}, 400),
        ({"sec-websocket-key": ""}, 400),
        ({"content-length": "3"}, 400),
        ({"authorization": "Bearer wrong"}, 401),
        ({"function-id": "00000000-0000-4000-8000-000000000000"}, 404),
    ):
        _, response = await world.ask(**wrong)
        assert (wrong, response.status) == (wrong, status)
        assert response.headers["content-type"] == "application/problem+json"
        if status == 426:
            assert response.headers["sec-websocket-version"] == "13"


async def gauge(gateway: Gateway, name: str) -> float:
    """Return the sum of a gauge over all versions."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{gateway.admin_url}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_a_key_among_the_subprotocols_opens_and_is_seen_by_nobody(world: SocketWorld) -> None:
    await world.begin(slots=32, DRAIN__TIMEOUT_S="0.1")
    key = world.stack.demo.api_key
    offers = "sec-websocket-protocol"
    mine: dict[str, str] = {"authorization": ""}
    _, response = await world.ask(**mine, **{offers: f"nvcf, nvcf-key.{key}"})
    assert (response.status, response.headers[offers]) == (101, "nvcf")
    assert offers not in world.server.sockets[-1].headers
    world.server.protocol = "realtime"
    openai = f"realtime, openai-insecure-api-key.{key}, openai-beta.realtime-v1"
    _, response = await world.ask(**mine, **{offers: openai})
    assert (response.status, response.headers[offers]) == (101, "realtime")
    assert world.server.sockets[-1].headers[offers] == "realtime, openai-beta.realtime-v1"
    world.server.protocol = ""
    for wrong, status in (
        ({offers: f"nvcf-key.{key}"}, 400),
        ({**mine, offers: f"nvcf-key.{key}, nvcf-key.{key}"}, 400),
        ({**mine, offers: f"nvcf-key.{key}x"}, 401),
    ):
        connection, response = await world.ask(**wrong)
        assert response.status == status
        assert key.encode() not in await connection.reader.readexactly(
            int(response.headers["content-length"])
        )
    # A key in the query is no token.
    _, response = await world.ask(f"/ws?nvcf-token={key}", **mine)
    assert response.status == 401
    await set_policy(world.stack, PagePolicy(frozenset({"https://app.example"})))

    async def status() -> int:
        return (await world.ask(origin="https://other.example"))[1].status

    # It takes the new policy a moment to come.
    await until(status, lambda found: found == 403)
    await world.open(origin="https://app.example")
    await world.open()
    assert await asyncio.to_thread(world.gateway.program.stop) == 0
    assert "request.refused" in world.gateway.program.output
    assert key not in world.gateway.program.output
    assert key not in world.agent.output
    for served in world.server.sockets:
        assert key not in str(served.headers)
        assert key not in served.target


async def set_policy(stack: Stack, policy: PagePolicy) -> None:
    async with opened(stack.nats.url) as store:
        found = await store.get(VersionKey(stack.demo.function_id, stack.demo.version_id))
        assert found is not None
        version, revision = found
        assert isinstance(version, FunctionVersion)
        await store.put(replace(version, page_policy=policy), revision)


async def test_what_ends_on_the_way_ends_both_sides(world: SocketWorld) -> None:
    await world.begin(slots=4)
    first = await world.open()
    await first.echo(TEXT, b"x")
    world.agent.send(signal.SIGKILL)
    assert await first.end() == b""
    await until(lambda: world.server.running, lambda count: count == 0)
    line = await world.ended()
    assert (line["status"], line["outcome"]) == (101, "worker_lost")
    # An agent that drains waits for it, and ends it then.
    agent = await world.start_agent(DRAIN__TIMEOUT_S="0.5")
    second = await world.open()
    await second.echo(TEXT, b"x")
    agent.send(signal.SIGTERM)
    await asyncio.to_thread(agent.wait_event, "worker.draining")
    await second.echo(TEXT, b"still here")
    assert await second.end() == b""
    await until(lambda: world.server.running, lambda count: count == 0)
    assert await asyncio.to_thread(agent.wait_end) == 0
    await world.start_agent()
    second = await world.open()
    await second.echo(TEXT, b"x")
    world.gateway.program.send(signal.SIGKILL)
    assert await second.end() == b""
    await until(lambda: world.server.running, lambda count: count == 0)


async def test_limits_and_drains_end_a_websocket(world: SocketWorld) -> None:
    await world.begin(
        slots=4,
        WEBSOCKET__IDLE_S="0.5",
        WEBSOCKET__MAX_S="3",
        DRAIN__TIMEOUT_S="0.5",
        EDGE__BODY_STALL_S="0.1",
        EDGE__IDLE_TIMEOUT_S="0.1",
    )
    silent = await world.open()
    busy = await world.open()
    loop = asyncio.get_running_loop()
    since = loop.time()

    async def talk() -> float:
        try:
            while True:
                await busy.echo(TEXT, b"x")
        except (asyncio.IncompleteReadError, ConnectionError):
            return loop.time() - since

    talking = start(talk())
    assert await silent.end() == b""
    assert 0.4 < loop.time() - since < 2.5
    assert 2.5 < await talking < 6
    line = await world.ended()
    assert (line["status"], line["outcome"]) == (101, "too_long")
    world.gateway.program.send(signal.SIGTERM)


async def test_a_drain_waits_for_websockets_and_then_ends_them(world: SocketWorld) -> None:
    await world.begin(slots=4, DRAIN__TIMEOUT_S="1.5")
    leaving, staying = await world.open(), await world.open()
    world.gateway.program.send(signal.SIGTERM)
    await asyncio.to_thread(world.gateway.program.wait_event, "gateway.draining")
    await leaving.echo(TEXT, b"still here")
    await leaving.send(close_frame(1000))
    assert (await leaving.frame()).code == 1000
    await staying.echo(TEXT, b"here too")
    assert await staying.end() == b""
    await until(lambda: world.server.running, lambda count: count == 0)
    assert await asyncio.to_thread(world.gateway.program.wait_end) == 0
    assert '"outcome":"drained"' in world.gateway.program.output


async def test_a_slow_reader_on_either_side_pauses_the_other(world: SocketWorld) -> None:
    reading, got = asyncio.Event(), 0
    sent = 0
    part, most = bytes(65_536), 64_000_000

    async def talk(socket: ServedSocket) -> None:
        nonlocal sent, got
        if socket.target == "/send":
            while sent < most:
                await socket.send(part)
                sent += len(part)
        else:
            await reading.wait()
            while data := await socket.peer.reader.read(1 << 20):
                got += len(data)

    world.server.talk = talk
    await world.begin(slots=2)
    pids = (world.gateway.program.pid, world.agent.pid)
    before = [resident_bytes(pid) for pid in pids]
    slow = await world.open("/send")
    pushing = await world.open("/take")
    pushed = 0

    async def push() -> None:
        nonlocal pushed
        while pushed < most:
            await pushing.send(part)
            pushed += len(part)
        pushing.writer.write_eof()

    task = start(push())
    await until(lambda: sent)
    await until_unchanged(lambda: (sent, pushed), for_s=0.4)
    assert sent < most > pushed
    grown = [resident_bytes(pid) - old for pid, old in zip(pids, before, strict=True)]
    assert max(grown) < 16_000_000, grown
    reading.set()
    assert len(await slow.end()) == sent
    await task
    await until(lambda: got, lambda found: found == pushed)


class Stream:
    """A WebSocket on a stream of HTTP/2."""

    def __init__(self, client: Http2Client, number: int) -> None:
        self.client = client
        self.number = number
        self.reader = asyncio.StreamReader(limit=1 << 20)
        self._fed = 0

    async def head(self) -> dict[bytes, bytes]:
        while self.number not in self.client.heads:
            await self.client.read()
        return self.client.heads[self.number]

    async def send(self, data: bytes) -> None:
        codec = self.client.codec
        while data:
            size = min(codec.local_flow_control_window(self.number), 16_384)
            if not size:
                await self.client.read()
                continue
            codec.send_data(self.number, data[:size])
            data = data[size:]
            await self.client.flush()

    async def read(self, size: int) -> bytes:
        body = self.client.bodies
        while len(body[self.number]) - self._fed < size:
            await self.client.read()
        self._fed += size
        return body[self.number][self._fed - size : self._fed]


async def test_websockets_over_http_2_end_with_their_stream(world: SocketWorld) -> None:
    await world.begin(slots=2)
    headers = {**world.gateway.headers, "sec-websocket-version": "13"}
    async with http2_client(world.gateway.url) as client:
        stream = Stream(client, await client.connect("/ws", headers, "websocket"))
        head = await stream.head()
        assert head[b":status"] == b"200"
        assert b"sec-websocket-accept" not in head
        assert client.codec.remote_settings.enable_connect_protocol == 1
        payload = bytes(300_000)
        frame = encode(BINARY, payload, masks=False)
        sending = start(stream.send(encode(BINARY, payload)))
        assert await stream.read(len(frame)) == frame
        await sending
        await stream.send(close_frame(1001))
        assert await stream.read(4) == close_frame(1001, masks=False)
        while stream.number not in client.ended:
            await client.read()
        # A reset is a client that has left, and its connection goes on.
        second = Stream(client, await client.connect("/ws", headers, "websocket"))
        await second.head()
        await client.cancel(second.number)
        await until(lambda: world.server.running, lambda count: count == 0)
        # An end of the client's direction is passed on.
        third = Stream(client, await client.connect("/ws", headers, "websocket"))
        await third.head()
        client.codec.end_stream(third.number)
        await client.flush()
        while third.number not in client.ended:
            await client.read()
        refused = Stream(client, await client.connect("/ws", headers, "chat"))
        assert (await refused.head())[b":status"] == b"501"
        old = {**headers, "sec-websocket-version": "8"}
        refused = Stream(client, await client.connect("/ws", old, "websocket"))
        assert (await refused.head())[b":status"] == b"426"
    served = world.server.sockets[0].headers
    assert len(served["sec-websocket-key"]) == 24
    assert not {"nvcf-upgrade", ":protocol"} & served.keys()
