"""Calls that are silent for longer than every limit: an hour, compressed by the settings."""

import asyncio
import signal

import httpx
import pytest

from tests.support.grpc_server import grpc_function
from tests.support.stack import Stack, running_at_inference, runs_of, start
from tests.support.waiting import PATIENCE_S

LIMITS = {
    f"EDGE__{name}": "1"
    for name in ("HEAD_TIMEOUT_S", "BODY_STALL_S", "WRITE_STALL_S", "IDLE_TIMEOUT_S")
}
"""Every limit of a gateway for what a peer does not do, in seconds."""
AGENT_LIMITS = {
    "ATTACH__IDLE_S": "1",
    "ATTACH__VANISHED_S": "1",
    "INFERENCE__IDLE_S": "1",
    "INFERENCE__CANCEL_GRACE_S": "1",
}
SILENCE_S = 8


@pytest.mark.parametrize("direct", ["true", "false"])
async def test_silent_calls_live_as_long_as_their_connections(stack: Stack, direct: str) -> None:
    """Through a restart of NATS and of another gateway, and many renewals of their leases."""
    gateway = stack.gateway(QUEUE__DIRECT=direct, **LIMITS)
    other = stack.gateway(QUEUE__DIRECT=direct, **LIMITS)
    agent = stack.agent(**AGENT_LIMITS)
    http2 = httpx.AsyncClient(
        http1=False, http2=True, base_url=gateway.url, headers=gateway.headers, timeout=PATIENCE_S
    )
    async with gateway.client() as first, http2 as second, other.client() as third:
        # None of the connections is new, and channels are open, if there are any.
        for client in (first, second, third):
            assert (await client.get("/slow?seconds=0.01")).status_code == 200
        slow = f"/slow?seconds={SILENCE_S}"
        events = f"/sse?events=2&interval_ms={SILENCE_S * 1000}"
        calls = [start(one) for one in (first.get(slow), second.get(slow), second.get(events))]
        await running_at_inference(stack, 3)
        await stack.nats.restart()
        other.program.send(signal.SIGTERM)
        assert await asyncio.to_thread(other.program.wait_end) == 0
        stack.gateway(QUEUE__DIRECT=direct, **LIMITS)
        responses = [await call for call in calls]
        assert [response.status_code for response in responses] == [200, 200, 200]
        assert responses[2].content.count(b"data:") == 2
    assert await runs_of(agent) == 3 + 3


async def test_a_silent_stream_of_grpc_lives_as_long_as_its_connection(stack: Stack) -> None:
    async with grpc_function(stack, gateway=LIMITS, **AGENT_LIMITS) as (_, _, client):
        talk = client.talk(metadata=client.metadata)
        await talk.write(b"before")
        assert await talk.read() == b"before"
        # Neither side says anything for longer than every limit.
        assert await client.slow(b"%d" % SILENCE_S, metadata=client.metadata) == b"slept"
        await talk.write(b"after")
        assert await talk.read() == b"after"
        await talk.done_writing()
