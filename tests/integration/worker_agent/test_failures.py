"""Inference servers and gateways that fail in every way."""

import asyncio
import json
import os
import socket
import struct

import pytest

from tests.integration.worker_agent.harness import running_agent
from tests.support.fake_gateway import BrokenError
from tests.support.raw_server import Peer

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


async def problem_of(answer: bytes, head: bool = False) -> tuple[int, str]:
    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer)

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(b"GET"))
        status, body = await agent.answer(expected, lease)
        assert expected.response()[1][b"content-type"] == b"application/problem+json"
        return status, json.loads(body)["type"]


async def test_a_refused_connection_is_an_inference_connection_problem() -> None:
    async def serve(peer: Peer) -> None:
        raise AssertionError

    async with running_agent(serve) as agent:
        agent.server.stop()
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(b"GET"))
        status, body = await agent.answer(expected, lease)
        assert status == 500
        assert json.loads(body) == {
            "type": "urn:inference-connection:problem-details:internal-server-error",
            "title": "Internal Server Error",
            "status": 500,
            "detail": "Inference connection error while making inference request",
            "requestId": expected.request_id,
        }


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        pytest.param(b"", "nvcf-worker-service", id="closes without answering"),
        pytest.param(b"220 smtp.example ESMTP\r\n", "inference-service", id="garbage"),
        pytest.param(b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "inference-service", id="header"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nx: " + b"y" * 500_000 + b"\r\n\r\n",
            "inference-service",
            id="huge head",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"\r\n",
            "inference-service",
            id="too many headers",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "inference-service",
            id="ambiguous framing",
        ),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "inference-service",
            id="upgrade nobody asked for",
        ),
    ],
)
async def test_what_is_no_response_becomes_a_problem_document(answer: bytes, source: str) -> None:
    status, kind = await problem_of(answer)
    assert (status, kind) == (500, f"urn:{source}:problem-details:internal-server-error")


@pytest.mark.parametrize(
    "framing",
    [b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", b"content-length: 99999\r\n\r\nhello"],
)
async def test_an_inference_server_that_dies_mid_stream_breaks_the_post(framing: bytes) -> None:
    die = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + framing)
        await die.wait()

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(b"GET"))
        await expected.body_reaches(b"hello")
        die.set()
        with pytest.raises(BrokenError):
            await expected.completed()
        await lease.ended.wait()
        assert lease.calls == ["ack"]


async def test_a_request_that_crossed_the_close_of_its_connection_is_sent_again() -> None:
    first: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK)
        if not first.done():
            first.set_result(peer)
            await peer.closed()

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        assert (await agent.answer(expected, agent.lease(expected.envelope())))[0] == 200
        transport_socket = (await first).writer.get_extra_info("socket")
        # No turn of the loop between close and request: the agent cannot have seen the close.
        with socket.socket(fileno=os.dup(transport_socket.fileno())) as closing:
            closing.shutdown(socket.SHUT_RDWR)
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(body=b"x" * 20_000))
        assert await agent.answer(expected, lease) == (200, b"{}")
        assert agent.server.connections == 2


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_request_that_a_server_may_have_run_is_never_sent_again(is_reset: bool) -> None:
    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK)
        await peer.head()
        if is_reset:
            peer.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )

    async with running_agent(serve) as agent:
        for expected_status in (200, 500):
            expected = agent.gateway.expect()
            lease = agent.lease(expected.envelope())
            assert (await agent.answer(expected, lease))[0] == expected_status
        assert agent.server.connections == 1


async def test_a_request_whose_body_flows_through_never_meets_an_idle_connection() -> None:
    async def serve(peer: Peer) -> None:
        while head := await peer.head():
            if b"chunked" in head:
                await peer.reader.readuntil(b"0\r\n\r\n")
            await peer.send(OK)

    async with running_agent(serve) as agent:
        for has_rest in (False, True):
            expected = agent.gateway.expect()
            lease = agent.lease(expected.envelope(has_rest=has_rest))
            expected.rest.put_nowait(b"")
            await agent.answer(expected, lease)
        assert agent.server.connections == 2


async def test_a_connection_that_served_nobody_yet_is_not_tried_again() -> None:
    async def serve(peer: Peer) -> None:
        await peer.head()

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope())
        assert (await agent.answer(expected, lease))[0] == 500
        assert agent.server.connections == 1


async def test_bytes_after_a_response_close_the_connection() -> None:
    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")
        await peer.closed()

    async with running_agent(serve) as agent:
        for _ in range(2):
            expected = agent.gateway.expect()
            lease = agent.lease(expected.envelope(b"GET"))
            assert await agent.answer(expected, lease) == (200, b"{}")
        assert agent.server.connections == 2


async def test_a_cancelled_request_closes_its_inference_connection_at_once() -> None:
    there = asyncio.Event()
    gone = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        there.set()
        await peer.closed()
        gone.set()

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(b"GET"))
        await there.wait()
        agent.intake.on_cancel(expected.request_id)
        async with asyncio.timeout(0.2):
            await gone.wait()
        assert lease.calls == ["ack"]
        assert agent.slots.running == 0


@pytest.mark.parametrize("how", ["answered early", "connection closed"])
async def test_a_client_that_leaves_mid_stream_ends_the_inference_call(how: str) -> None:
    gone = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await peer.closed()
        gone.set()

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(b"GET"))
        await expected.body_reaches(b"hello")
        if how == "answered early":
            expected.answer()
        else:
            agent.gateway.break_connections()
        async with asyncio.timeout(0.2):
            await gone.wait()
        await lease.ended.wait()
        assert lease.calls == ["ack"]


async def test_a_gateway_that_closed_an_idle_connection_still_gets_the_answer() -> None:
    async def serve(peer: Peer) -> None:
        while await peer.head():
            if agent.gateway.connections:
                agent.gateway.break_connections()
            await peer.send(OK)

    async with running_agent(serve) as agent:
        for _ in range(3):
            expected = agent.gateway.expect()
            lease = agent.lease(expected.envelope(b"GET"))
            assert await agent.answer(expected, lease) == (200, b"{}")


async def test_a_gateway_that_is_gone_costs_the_answer_and_nothing_else() -> None:
    async def serve(peer: Peer) -> None:
        while await peer.head():
            await peer.send(OK)

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        envelope = expected.envelope(b"GET")
        await agent.gateway.stop()
        lease = agent.lease(envelope)
        await lease.ended.wait()
        assert lease.calls == ["ack"]
        assert agent.slots.running == agent.slots.jobs == 0


async def test_a_body_that_breaks_off_ends_the_inference_call_with_a_problem() -> None:
    gone = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.closed()
        gone.set()

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(has_rest=True))
        expected.rest.put_nowait(b"some")
        await expected.fetched.wait()
        expected.rest.put_nowait(None)
        status, body = await agent.answer(expected, lease)
        assert (status, json.loads(body)["type"].split(":")[1]) == (500, "nvcf-worker-service")
        await gone.wait()


async def test_an_envelope_that_nobody_can_serve_is_rejected_and_takes_no_slot() -> None:
    async def serve(peer: Peer) -> None:
        raise AssertionError

    async with running_agent(serve) as agent:
        assert agent.lease(b"\xff\xff\xff").calls == ["term"]
        assert agent.slots.running == 0


async def test_a_header_with_a_line_break_never_reaches_the_inference_server() -> None:
    async def serve(peer: Peer) -> None:
        raise AssertionError

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(headers=((b"x", b"a\r\nnvcf-sub: forged"),)))
        assert (await agent.answer(expected, lease))[0] == 500
