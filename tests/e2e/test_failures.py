"""What a client sees when something dies, stops, or is away."""

import asyncio
import signal
import socket
import time

import httpx
import pytest

from tests.support.inference_server import running_inference_server
from tests.support.programs import resident_bytes
from tests.support.stack import Stack, running_at_inference, start
from tests.support.waiting import until

MEBIBYTE = 1 << 20
BROKEN = (httpx.RemoteProtocolError, httpx.ReadError)


async def test_a_request_whose_worker_dies_before_it_answers_goes_to_another(stack: Stack) -> None:
    gateway = stack.gateway()
    first = stack.agent()
    async with gateway.client() as client:
        call = start(client.get("/slow?seconds=2"))
        await running_at_inference(stack, 1)
        first.stop(signal.SIGKILL)
        stack.agent()
        answer = await call
    assert (answer.status_code, answer.text) == (200, "after 2.0 s\n")


async def test_a_request_that_kills_every_worker_is_given_up(stack: Stack) -> None:
    gateway = stack.gateway(QUEUE__MAX_DELIVERIES="2")
    async with gateway.client() as client:
        call = start(client.get("/slow?seconds=60"))
        for _ in range(2):
            agent = stack.agent()
            await running_at_inference(stack, 1)
            agent.stop(signal.SIGKILL)
            await running_at_inference(stack, 0)
        # A worker that pulls is what makes the broker notice that the request is used up.
        stack.agent()
        answer = await call
    assert answer.status_code == 502
    assert answer.json()["reason"] == "worker_lost"


async def test_a_worker_that_dies_in_the_stream_breaks_it_visibly(stack: Stack) -> None:
    gateway = stack.gateway()
    agent = stack.agent()
    async with gateway.client() as client:
        async with client.stream("GET", "/sse?events=1000&interval_ms=20") as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
            agent.stop(signal.SIGKILL)
            with pytest.raises(BROKEN):
                [_ async for _ in pieces]


@pytest.mark.parametrize("is_direct", [False, True], ids=["queued", "direct"])
async def test_a_call_that_kills_its_inference_server_is_run_once_more_and_no_further(
    stack: Stack, *, is_direct: bool
) -> None:
    gateway = stack.gateway()
    stack.agent()
    async with gateway.client() as client:

        async def called() -> bool:
            assert (await client.post("/echo", content=b"x")).status_code == 200
            return any('"dispatch":"direct"' in line for line in list(gateway.program.lines))

        if is_direct:
            await until(called, what="a call over a channel")
        call = start(client.get("/die?how=process&after_bytes=0"))
        for _ in range(2):
            await stack.inference.ended()
            await stack.inference.restart()
        answer = await call
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"].startswith("urn:nvcf-worker-service:problem-details:")
        assert answer.headers["nvcf-status"] == "errored"
        assert (await client.post("/echo", content=b"x")).status_code == 200


async def test_calls_wait_while_the_only_inference_server_is_away(stack: Stack) -> None:
    gateway = stack.gateway()
    agent = stack.agent()
    async with gateway.client() as client:
        assert (await client.post("/echo", content=b"x")).status_code == 200
        await stack.inference.kill()
        calls = [start(client.post("/echo", content=b"x")) for _ in range(10)]
        agent.wait_event("inference.unhealthy")
        late = await client.post("/echo", content=b"x", headers={"nvcf-poll-seconds": "1"})
        assert late.status_code == 504
        assert not any(call.done() for call in calls)
        await stack.inference.start()
        assert [answer.status_code for answer in await asyncio.gather(*calls)] == [200] * 10
    assert agent.stop() == 0


@pytest.mark.parametrize("stack", ["nats", "valkey"], indirect=True)
async def test_of_three_inference_servers_one_dies_and_no_call_fails(stack: Stack) -> None:
    gateway = stack.gateway()
    async with running_inference_server() as second, running_inference_server() as third:
        for server in (stack.inference, second, third):
            stack.agent(INFERENCE__PORT=str(server.port))
        statuses: list[int] = []
        wanted = 200

        async def call_until_all_are_there(client: httpx.AsyncClient) -> None:
            while len(statuses) < wanted:
                answer = await client.post("/slow?seconds=0.05")
                statuses.append(answer.status_code)

        async with gateway.client() as client:
            callers = [start(call_until_all_are_there(client)) for _ in range(16)]
            await until(lambda: len(statuses) > 50)
            await stack.inference.kill()
            wanted += len(statuses)
            await asyncio.gather(*callers)
        assert statuses == [200] * len(statuses)


async def test_a_worker_told_to_stop_finishes_what_it_has_and_leaves_the_rest(
    stack: Stack,
) -> None:
    gateway = stack.gateway()
    first = stack.agent(INFERENCE__MAX_CONCURRENCY="2")
    async with gateway.client() as client:
        running = [start(client.get("/slow?seconds=1")) for _ in range(2)]
        await running_at_inference(stack, 2)
        waiting = [start(client.get("/slow?seconds=0.1")) for _ in range(3)]
        first.send(signal.SIGTERM)
        assert first.wait_end() == 0
        assert [answer.status_code for answer in await asyncio.gather(*running)] == [200, 200]
        stack.agent()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3


async def test_a_gateway_told_to_stop_finishes_its_streams_and_takes_no_more(
    stack: Stack,
) -> None:
    gateway = stack.gateway()
    stack.agent()
    async with gateway.client() as client:
        async with client.stream("GET", "/sse?events=20&interval_ms=50") as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            gateway.program.send(signal.SIGTERM)
            gateway.program.wait_event("gateway.draining")
            async with httpx.AsyncClient() as another:
                with pytest.raises(httpx.ConnectError):
                    await another.get(gateway.url)
            count = 1 + len([line async for line in lines if line.startswith("data:")])
        assert count == 20
    assert gateway.program.wait_end() == 0


async def test_a_gateway_that_may_not_wait_longer_breaks_what_is_left(stack: Stack) -> None:
    gateway = stack.gateway(DRAIN__TIMEOUT_S="0.3")
    stack.agent()
    async with gateway.client() as client:
        waiting = start(client.get("/slow?seconds=60"))
        async with client.stream("GET", "/sse?events=1000&interval_ms=50") as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
            gateway.program.send(signal.SIGTERM)
            with pytest.raises(BROKEN):
                [_ async for _ in pieces]
        refused = await waiting
        assert refused.status_code == 503
        assert refused.json()["reason"] == "draining"
    assert gateway.program.wait_end() == 0
    await running_at_inference(stack, 0)


async def test_without_nats_new_requests_fail_at_once_and_streams_go_on(stack: Stack) -> None:
    gateway = stack.gateway()
    stack.agent()
    async with gateway.client() as client:
        async with client.stream("GET", "/sse?events=30&interval_ms=50") as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            await stack.nats.kill()
            gateway.program.wait_event("nats.disconnected")
            before = time.monotonic()
            refused = await client.post("/echo", content=b"x")
            assert time.monotonic() - before < 2
            assert refused.status_code == 503
            assert refused.json()["reason"] == "queue_unavailable"
            assert int(refused.headers["retry-after"]) >= 1
            ready = await client.get(f"{gateway.admin_url}/health/ready")
            assert ready.status_code == 503
            assert "NATS" in ready.json()["detail"]
            count = 1 + len([line async for line in lines if line.startswith("data:")])
        assert count == 30
        await stack.nats.start()
        await until(
            lambda: client.post("/echo", content=b"x"),
            lambda answer: answer.status_code == 200,
            what="the first call that succeeds again",
        )


async def test_a_slow_reader_slows_the_model_and_fills_no_memory(stack: Stack) -> None:
    gateway = stack.gateway()
    agent = stack.agent()
    async with gateway.client() as client:
        warm = await client.get("/huge?bytes=5000000")
        assert len(warm.content) == 5_000_000
        before = [resident_bytes(program.pid) for program in (gateway.program, agent)]
        async with client.stream("GET", "/huge?bytes=1000000000") as answer:
            read = 0
            end = time.monotonic() + 3
            async for piece in answer.aiter_raw(10_000):
                read += len(piece)
                await asyncio.sleep(1)  # 10 kB/s: the slowness is what is tested
                if time.monotonic() > end:
                    break
            grown = [
                resident_bytes(program.pid) - was
                for program, was in zip((gateway.program, agent), before, strict=True)
            ]
            whole = [resident_bytes(program.pid) for program in (gateway.program, agent)]
        assert max(grown) < 16 * MEBIBYTE
        assert max(whole) < 64 * MEBIBYTE


async def test_a_full_queue_is_told_with_a_time_to_come_back(stack: Stack) -> None:
    gateway = stack.gateway(QUEUE__MAX_MESSAGES="2")
    async with gateway.client() as client:
        calls = {start(client.get("/health")) for _ in range(3)}
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        assert refused.result().status_code == 429
        assert refused.result().json()["reason"] == "queue_full"
        assert "retry-after" in refused.result().headers
        stack.agent()
        assert [call.result().status_code for call in (await asyncio.wait(waiting))[0]] == [200] * 2


async def test_the_place_in_line_is_told_at_the_timeout(stack: Stack) -> None:
    gateway = stack.gateway()
    async with gateway.client() as client:
        calls = []
        for _ in range(3):
            calls.append(start(client.get("/health", headers={"nvcf-poll-seconds": "1"})))
            await asyncio.sleep(0.2)  # the order of arrival is what is tested
        answers = await asyncio.gather(*calls)
    assert [answer.status_code for answer in answers] == [504] * 3
    # The first to give up leaves the line, so each is the next one in its turn.
    assert [answer.headers["nvcf-queue-position"] for answer in answers] == ["1"] * 3


async def test_several_processes_share_one_port(stack: Stack) -> None:
    gateway = stack.gateway("--processes", "2")
    ready = '"event":"gateway.ready"'
    gateway.program.wait_line(
        lambda _: sum(ready in line for line in list(gateway.program.lines)) == 2
    )
    stack.agent()
    seen = set()
    for _ in range(40):
        async with gateway.client() as client:
            answer = await client.post("/echo", content=b"x")
            assert answer.status_code == 200
            seen.add(answer.headers["nvcf-reqid"][-4:])
        if len(seen) == 2:
            break
    assert len(seen) == 2
    assert gateway.program.stop() == 0


async def test_a_gateway_that_starts_without_nats_answers_503_until_it_is_there(
    stack: Stack,
) -> None:
    await stack.nats.stop()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    program = stack.starting_gateway(EDGE__LISTEN=address)
    program.wait_event("nats.connect_failed")
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=20) as client:
        refused = await client.post("/echo", headers={"function-id": stack.demo.function_id})
        assert refused.status_code == 503
        assert refused.json()["reason"] == "queue_unavailable"
        assert (await client.get("/health/live")).status_code == 200
        assert "store" in (await client.get("/health/ready")).json()["detail"]
        await stack.nats.start()
        program.wait_event("gateway.ready")
        assert (await client.get("/health/ready")).status_code == 200
