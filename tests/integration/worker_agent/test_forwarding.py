"""Requests and responses through the agent, on real sockets."""

import asyncio

import pytest

from tests.integration.worker_agent.harness import running_agent
from tests.support.raw_server import Peer
from tests.support.waiting import until, until_unchanged
from wire.websocket import accept_of

OK = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver: x\r\ncontent-length: 2\r\n\r\n{}"
)


async def test_a_small_request_is_answered_and_acked() -> None:
    heads = []

    async def serve(peer: Peer) -> None:
        heads.append(await peer.head())
        assert await peer.reader.readexactly(5) == b"hello"
        await peer.send(OK)
        await peer.closed()

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(
            expected.envelope(
                path=b"/a%20b?q=1",
                headers=(
                    (b"host", b"public.example"),
                    (b"accept", b"*/*"),
                    (b"nvcf-region", b"forged"),
                    (b"nvcf-invocation-region", b"us"),
                    (b"content-length", b"5"),
                ),
                body=b"hello",
            )
        )
        assert await agent.answer(expected, lease) == (200, b"{}")
        assert expected.post_headers[b"nvcf-leased-us"].isdigit()
        assert b"content-length" in expected.post_headers
        await until(lambda: agent.slots.running == agent.slots.jobs == 0)
        assert agent.queue.free == 4
    lines = heads[0].split(b"\r\n")
    assert lines[0] == b"POST /a%20b?q=1 HTTP/1.1"
    assert lines.count(b"NVCF-REGION: zone-1") == 1
    assert f"NVCF-REQID: {expected.request_id}".encode() in lines
    assert b"NVCF-INVOCATION-REGION: us" in lines
    assert b"Content-Length: 5" in lines
    assert b"Host: 127.0.0.1:%d" % agent.server.port in lines
    assert b"forged" not in heads[0]
    assert b"public.example" not in heads[0]
    assert any(line.startswith(b"Nvcf-Poll-Seconds: ") for line in lines)


async def test_connections_to_both_sides_are_used_again() -> None:
    async def serve(peer: Peer) -> None:
        while await peer.head():
            await peer.send(OK)

    async with running_agent(serve) as agent:
        for _ in range(5):
            expected = agent.gateway.expect()
            lease = agent.lease(expected.envelope(b"GET"))
            await agent.answer(expected, lease)
        assert agent.server.connections == 1
        assert agent.gateway.connections == 1


async def test_each_event_of_a_stream_arrives_before_the_next_is_sent() -> None:
    seen = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for number in range(3):
            await peer.send(b"9\r\ndata: %d\n\n\r\n" % number)
            await seen.wait()
            seen.clear()
        await peer.send(b"0\r\n\r\n")
        await peer.closed()

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(b"GET"))
        for number in range(3):
            await expected.body_reaches(b"data: %d\n\n" % number)
            seen.set()
        assert await agent.answer(expected, lease) == (200, b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
        assert expected.post_headers[b"transfer-encoding"] == b"chunked"
        assert b"transfer-encoding" not in expected.response()[1]


async def test_a_small_body_that_comes_late_does_not_hold_back_the_head_for_long() -> None:
    head_seen = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\nab")
        await head_seen.wait()
        await peer.send(b"cd")
        await peer.closed()

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope())
        await expected.body_reaches(b"ab")
        head_seen.set()
        assert await agent.answer(expected, lease) == (201, b"abcd")


async def test_the_rest_of_a_body_flows_through_in_both_framings() -> None:
    bodies = []

    async def serve(peer: Peer) -> None:
        while head := await peer.head():
            if b"chunked" in head:
                body = await peer.reader.readuntil(b"0\r\n\r\n")
            else:
                body = await peer.reader.readexactly(6)
            bodies.append(body)
            await peer.send(OK)

    async with running_agent(serve) as agent:
        for headers in ((), ((b"content-length", b"6"),)):
            expected = agent.gateway.expect()
            expected.rest_length = 4
            lease = agent.lease(expected.envelope(headers=headers, body=b"ab", has_rest=True))
            await expected.fetched.wait()
            for piece in (b"cd", b"ef", b""):
                expected.rest.put_nowait(piece)
            assert await agent.answer(expected, lease) == (200, b"{}")
    assert bodies[0].replace(b"\r\n", b"|").startswith(b"2|ab|")
    assert bodies[0].endswith(b"0\r\n\r\n")
    assert bodies[1] == b"abcdef"


async def test_an_upload_goes_only_as_fast_as_the_inference_server_reads() -> None:
    read_on = asyncio.Event()
    pieces, piece = 64, b"x" * (1 << 20)

    async def serve(peer: Peer) -> None:
        await peer.head()
        await read_on.wait()
        await peer.reader.readexactly(pieces * len(piece))
        await peer.send(OK)

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        for _ in range(pieces):
            expected.rest.put_nowait(piece)
        expected.rest.put_nowait(b"")
        length = b"%d" % (pieces * len(piece))
        lease = agent.lease(
            expected.envelope(headers=((b"content-length", length),), has_rest=True)
        )
        await expected.fetched.wait()
        left = await until_unchanged(expected.rest.qsize, for_s=0.3)
        assert left > pieces // 2
        read_on.set()
        assert await agent.answer(expected, lease) == (200, b"{}")


async def test_both_directions_flow_at_the_same_time() -> None:
    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while line := await peer.reader.readuntil(b"\r\n"):
            size = int(line, 16)
            data = await peer.reader.readexactly(size + 2)
            if not size:
                break
            await peer.send(b"%x\r\necho %b" % (size + 5, data))
        await peer.send(b"0\r\n\r\n")
        await peer.closed()

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(has_rest=True))
        for number in range(3):
            expected.rest.put_nowait(b"%d" % number)
            await expected.body_reaches(b"echo %d" % number)
        expected.rest.put_nowait(b"")
        assert await agent.answer(expected, lease) == (200, b"echo 0echo 1echo 2")


@pytest.mark.parametrize(
    ("method", "response", "length", "body"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", b"99", b""),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", None, b""),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", b"7", b""),
        (
            b"GET",
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
            b"1",
            b"x",
        ),
    ],
)
async def test_responses_without_body_and_interim_ones_keep_the_connection_in_step(
    method: bytes, response: bytes, length: bytes | None, body: bytes
) -> None:
    async def serve(peer: Peer) -> None:
        while await peer.head():
            await peer.send(response)

    async with running_agent(serve) as agent:
        for _ in range(2):
            expected = agent.gateway.expect()
            lease = agent.lease(expected.envelope(method))
            await agent.answer(expected, lease)
            status, headers, got = expected.response()
            assert (got, headers.get(b"content-length")) == (body, length)
            assert b"link" not in headers
            assert status in response_statuses(response)
        assert agent.server.connections == 1


def response_statuses(response: bytes) -> set[int]:
    return {int(part[:3]) for part in response.split(b"HTTP/1.1 ")[1:]}


@pytest.mark.parametrize("is_whole", [True, False])
async def test_trailers_reach_the_gateway_as_trailers_but_for_those_that_must_not(
    is_whole: bool,
) -> None:
    reached = asyncio.Event()

    async def serve(peer: Peer) -> None:
        while await peer.head():
            head = (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked \r\nX-A : 1\r\n\r\n5\r\nhello\r\n"
            )
            trailers = b"0\r\nX-Sum: Andr\xe9\r\nContent-Length: 9\r\nSet-Cookie: a\r\n\r\n"
            if is_whole:
                await peer.send(head + trailers)
                continue
            await peer.send(head)
            await reached.wait()
            for byte in trailers:
                await peer.send(bytes([byte]))

    async with running_agent(serve) as agent:
        for _ in range(2):
            expected = agent.gateway.expect()
            lease = agent.lease(expected.envelope())
            if not is_whole:
                await expected.body_reaches(b"hello")
                reached.set()
            assert await agent.answer(expected, lease) == (200, b"hello")
            assert expected.response()[1] == {b"x-a": b"1"}
            assert expected.trailers == [(b"x-sum", b"Andr\xe9")]
        assert agent.server.connections == 1


async def test_a_body_that_ends_with_the_connection_is_complete() -> None:
    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nall of ")
        await peer.send(b"it")

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(b"GET"))
        assert await agent.answer(expected, lease) == (200, b"all of it")


async def test_no_more_requests_run_than_there_are_slots_and_every_slot_is_used() -> None:
    running = 0
    most = 0
    full = asyncio.Event()

    async def serve(peer: Peer) -> None:
        nonlocal running, most
        while await peer.head():
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()
            await full.wait()
            running -= 1
            await peer.send(OK)

    async with running_agent(serve, concurrency=3) as agent:
        leased = []
        for _ in range(3):
            expected = agent.gateway.expect()
            leased.append((expected, agent.lease(expected.envelope(b"GET"))))
        too_many = agent.lease(agent.gateway.expect().envelope(b"GET"))
        assert too_many.calls == ["nak"]
        for expected, lease in leased:
            await agent.answer(expected, lease)
        assert most == 3
        assert agent.queue.free == 3


async def test_slots_taken_away_are_those_that_get_free_and_nothing_that_runs_is_handed_back() -> (
    None
):
    may_answer = asyncio.Event()

    async def serve(peer: Peer) -> None:
        while await peer.head():
            await may_answer.wait()
            await peer.send(OK)

    async with running_agent(serve, concurrency=4) as agent:
        leased = []
        for _ in range(3):
            expected = agent.gateway.expect()
            leased.append((expected, agent.lease(expected.envelope(b"GET"))))
        agent.intake.resize(2, 256)
        assert agent.queue.free <= 0
        assert agent.lease(agent.gateway.expect().envelope(b"GET")).calls == ["nak"]
        may_answer.set()
        for expected, lease in leased:
            assert await agent.answer(expected, lease) == (200, b"{}")
            assert lease.calls == ["ack"]
        assert agent.queue.free == 2
        agent.intake.resize(5, 256)
        assert agent.queue.free == 5
        agent.intake.pause()
        agent.intake.resize(6, 256)
        assert agent.queue.free == 0


async def test_connections_beyond_what_may_idle_are_closed_at_once_the_oldest_first() -> None:
    opened, closed = asyncio.Queue[Peer](), asyncio.Queue[Peer]()

    async def serve(peer: Peer) -> None:
        opened.put_nowait(peer)
        await peer.closed()
        closed.put_nowait(peer)

    async with running_agent(serve) as agent:
        peers = []
        for _ in range(3):
            connection = await agent.pool.connect()
            connection.idle_since = asyncio.get_running_loop().time()
            agent.pool.released(connection)
            peers.append(await opened.get())
        agent.pool.resize(1)
        assert {await closed.get(), await closed.get()} == set(peers[:2])
        assert agent.pool.take() is not None
        assert agent.pool.take() is None


async def test_no_job_of_a_burst_is_forgotten_when_connections_break() -> None:
    async def serve(peer: Peer) -> None:
        while await peer.head():
            await peer.send(OK)

    async with running_agent(serve, concurrency=100) as agent:
        for _ in range(8):
            waiting = []
            for _ in range(100):
                expected = agent.gateway.expect()
                waiting.append((expected, agent.lease(expected.envelope(b"GET"))))
            for expected, lease in waiting[:70]:
                assert await agent.answer(expected, lease) == (200, b"{}")
            # Some wait for a connection, some for an answer: neither may be forgotten.
            agent.gateway.break_connections()
            for _, lease in waiting[70:]:
                await lease.ended.wait()
            await until(lambda: agent.slots.running == agent.slots.jobs == 0)
            assert agent.queue.free == 100


async def test_small_answers_share_a_connection_to_the_gateway_and_large_ones_do_not_wait() -> None:
    async def serve(peer: Peer) -> None:
        while head := await peer.head():
            size = int(head.split(b" ", 2)[1][1:])
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)

    async with running_agent(serve, concurrency=20) as agent:
        waiting = []
        for size in [10] * 12 + [500_000] * 2:
            expected = agent.gateway.expect()
            lease = agent.lease(expected.envelope(b"GET", b"/%d" % size))
            waiting.append((expected, lease, size))
        for expected, lease, size in waiting:
            status, body = await agent.answer(expected, lease)
            assert (status, len(body)) == (200, size)
        assert agent.gateway.connections <= 3


async def test_a_websocket_has_no_limit_of_the_agents_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(peer: Peer) -> None:
        head = await peer.head()
        if b"Upgrade: websocket" not in head:
            await peer.closed()
            return
        accept = accept_of(b"dGhlIHNhbXBsZSBub25jZQ==")
        await peer.send(
            b"HTTP/1.1 101 Agreed\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: %b\r\n\r\nhello" % accept
        )
        await peer.send(await peer.reader.readexactly(4))
        await peer.closed()

    async with running_agent(serve) as agent:
        socket, call = agent.gateway.expect(), agent.gateway.expect()
        asked = (
            (b"nvcf-upgrade", b"websocket"),
            (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        )
        opened = agent.lease(socket.envelope(b"GET", headers=asked, has_rest=True))
        called = agent.lease(call.envelope(b"GET"))
        await socket.body_reaches(b"hello")
        assert (b"nvcf-upgraded", b"websocket") in socket.response()[1].items()
        # As if both had begun long ago.
        monkeypatch.setattr("worker_agent.runner.MAX_JOB_S", -1.0)
        agent.intake.tick()
        await called.ended.wait()
        await socket.rest.put(b"ping")
        await socket.body_reaches(b"ping")
        await socket.rest.put(b"")
        await socket.completed()
        assert "ack" in opened.calls
        await until(lambda: agent.slots.jobs == 0)
