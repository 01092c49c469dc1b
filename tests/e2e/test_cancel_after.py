"""Calls whose clients say how long they may wait and run, on both brokers."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.redis_server import running_redis_server
from tests.support.stack import Stack, register, running_at_inference, start


@pytest.fixture(params=["nats", "redis"])
async def queue(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[dict[str, str]]:
    """The settings of programs whose calls all go through the queue of one broker."""
    if request.param == "nats":
        yield {}
        return
    async with running_redis_server() as server:
        stack.demo = await register(server.url)
        yield {"QUEUE__BACKEND": "redis", "STORE__BACKEND": "redis", "REDIS__URLS": server.url}


async def test_a_wait_and_a_run_end_each_with_its_reason(
    stack: Stack, queue: dict[str, str]
) -> None:
    gateway = stack.gateway(QUEUE__DIRECT="false", **queue)
    agent = {name: value for name, value in queue.items() if not name.startswith("STORE")}
    stack.agent(INFERENCE__MAX_CONCURRENCY="1", **agent)
    async with gateway.client() as client:
        first = start(client.get("/slow?seconds=60", headers={"cancel-after": "queue=1, run=2"}))
        await running_at_inference(stack, 1)
        waiting = await client.get("/slow?seconds=0", headers={"cancel-after": "queue=1s"})
        assert (waiting.status_code, waiting.json()["reason"]) == (504, "queue_timeout")
        assert waiting.headers["nvcf-queue-position"] == "1"
        # Its wait was over long before, but a worker had it.
        ended = await first
        assert (ended.status_code, ended.json()["reason"]) == (504, "run_timeout")
        await running_at_inference(stack, 0)
        refused = await client.get("/slow?seconds=0", headers={"cancel-after": "soon"})
        assert refused.status_code == 400
        assert "Cancel-After" in refused.json()["detail"]


@pytest.mark.parametrize("direct", ["true", "false"])
async def test_a_stream_that_runs_too_long_breaks_off_and_its_model_is_told(
    stack: Stack, direct: str
) -> None:
    gateway = stack.gateway(QUEUE__DIRECT=direct)
    stack.agent()
    async with gateway.client() as client:
        assert (await client.get("/slow?seconds=0")).status_code == 200
        async with client.stream(
            "GET", "/sse?events=1000&interval_ms=100", headers={"cancel-after": "1"}
        ) as response:
            lines = response.aiter_lines()
            await anext(lines)
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                [_ async for _ in lines]
    await running_at_inference(stack, 0)
