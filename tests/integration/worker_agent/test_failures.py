"""Inference servers and gateways that fail in every way."""

import asyncio
import json
import os
import re
import socket
import struct

import pytest

from runtime.tasks import spawn
from tests.integration.worker_agent.harness import running_agent
from tests.support.fake_gateway import BrokenError
from tests.support.raw_server import OK, Peer
from tests.support.waiting import until
from worker_agent.runner import PASS_ON_TIMES

STREAMED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
NO_RERUN = ((b"nvcf-allow-rerun", b"false"),)


def reset_at_close(peer: Peer) -> None:
    """Make the close of the connection a reset."""
    peer.writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )


async def problem_of(answer: bytes) -> tuple[int, dict[str, str]]:
    """Return status and document, with the labels of what the metric of invalid responses counted.

    The server keeps its connection open: nothing but its bytes can be the reason.
    """

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer)
        if answer:
            await peer.closed()

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(b"GET"), deliveries=2)
        status, body = await agent.answer(expected, lease)
        assert expected.response()[1][b"content-type"] == b"application/problem+json"
        document = json.loads(body)
        counted = re.search(
            r"^worker_invalid_responses_total\{(.*)\} 1$", agent.exposition(), re.MULTILINE
        )
        document["metric"] = counted[1] if counted else ""
        return status, document


async def test_a_refused_request_is_handed_back_and_none_is_pulled_until_the_server_is_up() -> None:
    async def serve(peer: Peer) -> None:
        while await peer.head():
            await peer.send(OK)

    async with running_agent(serve) as agent:
        assert await agent.watch.ask()
        agent.server.stop()
        watching = spawn(agent.watch.run(), "watch")
        for _ in range(3):
            # Handed back whatever its method, and however often it was delivered before.
            lease = agent.lease(agent.gateway.expect().envelope(), deliveries=3)
            await lease.ended.wait()
            assert lease.calls == ["nak"]
            assert agent.queue.free == 0
            assert not agent.watch.is_healthy
        await agent.server.start()
        await until(lambda: agent.queue.free, lambda free: free == 4)
        assert agent.watch.is_healthy
        expected = agent.gateway.expect()
        assert await agent.answer(expected, agent.lease(expected.envelope())) == (200, b"{}")
        watching.cancel()


async def test_a_response_that_breaks_off_with_its_head_reaches_the_gateway_as_far_as_it_came() -> (
    None
):
    """Although no connection to the gateway is open yet: the function has run."""

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(STREAMED)

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(b"POST", headers=NO_RERUN))
        with pytest.raises(BrokenError):
            await expected.completed()
        await lease.ended.wait()
        assert lease.calls == ["ack"]
        assert expected.response()[2] == b"hello"
        assert agent.server.connections == 1


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize(
    ("method", "headers", "is_rerunnable"),
    [
        (b"GET", NO_RERUN, True),
        (b"POST", (), True),
        (b"POST", NO_RERUN, False),
    ],
)
async def test_a_connection_that_ends_before_the_head_is_tried_once_more_elsewhere(
    is_reset: bool,
    method: bytes,
    headers: tuple[tuple[bytes, bytes], ...],
    is_rerunnable: bool,
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.head()
        if is_reset:
            reset_at_close(peer)

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(method, headers=headers, body=b"x"))
        await lease.ended.wait()
        # Nothing is pulled before a probe was healthy, so that another worker gets the request.
        assert agent.queue.free == 0
        assert lease.calls == ["nak" if is_rerunnable else "ack"]
        if not is_rerunnable:
            assert (await expected.completed())[0] == 500
            return
        assert expected.post_count == 0
        agent.intake.resume()
        envelope = expected.envelope(method, headers=headers, body=b"x")
        for deliveries in range(2, 2 + PASS_ON_TIMES):
            assert agent.lease(envelope, deliveries=deliveries).calls == ["nak"]
        # No other worker took it.
        again = agent.lease(envelope, deliveries=2 + PASS_ON_TIMES)
        assert (await agent.answer(expected, again))[0] == 500
        assert agent.server.connections == 2


@pytest.mark.parametrize(("status", "end"), [(200, "nak"), (204, "ack")])
async def test_a_further_delivery_that_is_broken_off_goes_to_another_worker_unless_one_was_before(
    status: int, end: str
) -> None:
    """Its number is no evidence: a lease that found no free slot in time counts too."""

    async def serve(peer: Peer) -> None:
        await peer.head()

    async with running_agent(serve) as agent:
        agent.gateway.run_status = status
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(), deliveries=2)
        await lease.ended.wait()
        assert lease.calls == [end]
        if end == "nak":
            await until(lambda: len(agent.gateway.runs) == 2, what="the news")
            assert agent.gateway.runs[1][b"nvcf-broken-off"] == b"1"
        else:
            assert (await expected.completed())[0] == 500


HEAD = b"HTTP/1.1 200 OK\r\n"


async def test_a_server_that_closes_without_answering_becomes_a_problem_document() -> None:
    status, document = await problem_of(b"")
    assert (status, document["type"].split(":")[1]) == (500, "nvcf-worker-service")


@pytest.mark.parametrize(
    ("answer", "reason", "header"),
    [
        (b"220 smtp.example ESMTP\r\n", "status_line", ""),
        (b"\x15\x03\x01\x00\x02\x02", "status_line", ""),
        (b"HTTP/2 200 OK\r\n\r\n", "status_line", ""),
        (b"HTTP/1.1 000 No\r\ncontent-length: 2\r\n\r\nok", "status", ""),
        (b"HTTP/1.1 999 No\r\ncontent-length: 2\r\n\r\nok", "status", ""),
        (HEAD + b"bad header\r\n", "header_line", "bad?header"),
        (HEAD + b"x y: z\r\n", "header_name", "x?y"),
        (HEAD + b": z\r\n", "header_name", ""),
        (HEAD + b"X-A: a\x01b\r\n", "header_value", "x-a"),
        (HEAD + b"X-A: a\r\n b\r\n", "folded_line", "x-a"),
        (HEAD + b"X-A: a\rb\r\n", "line_end", "x-a"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "line_end", ""),
        (HEAD + b"x: " + b"y" * 500_000 + b"\r\n\r\n", "too_large", ""),
        (HEAD + b"x: y\r\n" * 300 + b"\r\n", "too_many_headers", ""),
        (HEAD + b"content-length: %b\r\n\r\n" % (b"2" * 30), "content_length", "content-length"),
        (HEAD + b"content-length: -2\r\n\r\n", "content_length", "content-length"),
        (HEAD + b"content-length:\r\n\r\n", "content_length", "content-length"),
        (HEAD + b"content-length: 1, 2\r\n\r\n", "content_length", "content-length"),
        (
            HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
            "content_length",
            "content-length",
        ),
        (
            HEAD + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "content_length",
            "content-length",
        ),
        (
            HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n",
            "transfer_encoding",
            "transfer-encoding",
        ),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nz\r\n", "chunk", ""),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", "upgrade", ""),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000, "too_large", ""),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_an_invalid_response_is_told_at_once_with_its_reason_and_header(
    answer: bytes, reason: str, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "worker.pull")
    status, document = await problem_of(answer)
    source = "urn:inference-service:problem-details:bad-gateway"
    assert (status, document["type"]) == (502, source)
    assert header in document["detail"]
    (record,) = [r for r in caplog.records if r.getMessage() == "response.invalid"]
    fields = record.__dict__["fields"]
    assert (fields["reason"], fields["header"]) == (reason, header)
    assert document["metric"] == f'reason="{reason}",header="{header}"'


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
            reset_at_close(peer)

    async with running_agent(serve) as agent:
        for expected_status in (200, 500):
            expected = agent.gateway.expect()
            lease = agent.lease(expected.envelope(headers=NO_RERUN))
            assert (await agent.answer(expected, lease))[0] == expected_status
        assert agent.server.connections == 1


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_safe_request_that_met_the_end_of_its_connection_is_sent_again(
    method: bytes, is_reset: bool
) -> None:
    """The worst moment: the server has read the request, so nothing proves that it did not run."""
    requests = 0

    async def serve(peer: Peer) -> None:
        nonlocal requests
        await peer.head()
        requests += 1
        await peer.send(OK.removesuffix(b"{}") if method == b"HEAD" else OK)
        await peer.head()
        requests += 1
        if is_reset:
            reset_at_close(peer)

    async with running_agent(serve) as agent:
        for number in range(1, 6):
            expected = agent.gateway.expect()
            lease = agent.lease(expected.envelope(method))
            assert (await agent.answer(expected, lease))[0] == 200
            assert lease.calls == ["ack"]
            assert requests == 2 * number - 1
            assert agent.server.connections == number
            assert agent.watch.failure == "not asked yet"


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


async def test_a_server_that_watches_its_input_learns_of_a_cancel_at_once() -> None:
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
        await until(lambda: agent.slots.running == 0)


class Counted:
    """An inference server's own count of the requests that it works on."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.begun = 0

    def begin(self) -> None:
        self.begun += 1
        self.running += 1
        self.most = max(self.most, self.running)

    def end(self) -> None:
        self.running -= 1


WAYS_TO_LEAVE = ["cancelled", "body broken off", "answered early", "gateway lost", "bad head"]


@pytest.mark.parametrize("how", WAYS_TO_LEAVE)
async def test_a_server_that_does_not_notice_keeps_its_slots_however_a_request_is_left(
    how: str,
) -> None:
    count = Counted()
    finish = asyncio.Event()
    is_streamed = how in {"answered early", "gateway lost"}

    async def serve(peer: Peer) -> None:
        await peer.head()
        count.begin()
        if is_streamed:
            await peer.send(STREAMED)
        if how == "bad head":
            await peer.send(b"HTTP/1.1 600 Odd\r\ncontent-length: 2\r\n\r\n")
        await finish.wait()
        await peer.send(b"ok")
        count.end()

    async with running_agent(serve, concurrency=2) as agent:
        for _ in range(2):
            expected = agent.gateway.expect()
            lease = agent.lease(expected.envelope(b"GET", has_rest=how == "body broken off"))
            await until(lambda: count.begun and count.begun == agent.slots.running)
            if how == "cancelled":
                agent.intake.on_cancel(expected.request_id)
            elif how == "body broken off":
                expected.rest.put_nowait(None)
            elif how == "answered early":
                await expected.body_reaches(b"hello")
                expected.answer()
            elif how == "gateway lost":
                await expected.body_reaches(b"hello")
                agent.gateway.break_connections()
            await lease.ended.wait()
        await until(lambda: agent.slots.jobs == 0)
        assert (count.running, agent.slots.running) == (2, 2)
        assert agent.slots.free() == 0
        finish.set()
        await until(agent.slots.free, lambda free: free == 2)
        assert count.most == 2


async def test_a_server_that_goes_on_writing_keeps_its_slot_and_is_reset_after_the_grace() -> None:
    failed = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(STREAMED)
        try:
            while True:
                await asyncio.sleep(0.02)  # the pace of tokens
                is_free = agent.slots.running == 0
                await asyncio.sleep(0)  # a connection is lost a turn after its reset
                assert not is_free or agent.pool.in_use == 0
                await peer.send(b"5\r\nhello\r\n")
        except ConnectionError:
            failed.set()

    async with running_agent(serve, cancel_grace_s=0.5) as agent:
        expected = agent.gateway.expect()
        agent.lease(expected.envelope(b"GET"))
        await expected.body_reaches(b"hello")
        agent.intake.on_cancel(expected.request_id)
        assert agent.slots.running == 1
        await until(lambda: agent.slots.running == 0)
        await failed.wait()


async def test_a_server_that_shows_no_sign_keeps_a_slot_for_the_grace_and_is_doubted() -> None:
    never = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await never.wait()

    async with running_agent(serve, cancel_grace_s=0.1) as agent:
        expected = agent.gateway.expect()
        agent.lease(expected.envelope(b"GET"))
        await until(lambda: agent.pool.in_use)
        agent.intake.on_cancel(expected.request_id)
        assert agent.slots.running == 1
        await until(lambda: agent.slots.running == 0)
        await until(lambda: agent.pool.in_use == 0)
        assert agent.queue.free == 0
        assert agent.watch.failure


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
