"""PINGs through a relay that drops silent connections, or stops to pass on anything."""

import asyncio
from time import monotonic

import httpx
import pytest

from tests.integration.invocation_client.callers import Callers
from tests.support.scripted_http2 import ScriptedStream, scripted_http2
from tests.support.tcp_relay import tcp_relay
from tests.support.waiting import PATIENCE_S, until

IDLE_S = 0.5


async def respond_late(stream: ScriptedStream) -> None:
    """Respond after so many PINGs that the relay would have dropped the connection twice."""
    await until(lambda: stream.connection.pings >= 10, what="10 PINGs")
    await stream.respond(b"late")


async def test_a_silent_call_survives_a_middlebox(callers: Callers) -> None:
    async with (
        scripted_http2(respond_late) as server,
        tcp_relay(server.port, idle_s=IDLE_S) as relay,
        callers(ping_interval_s=0.1) as caller,
    ):
        began = monotonic()
        response = await caller.request("GET", f"http://127.0.0.1:{relay.port}/")
        assert response.content == b"late"
        assert monotonic() - began > 2 * IDLE_S * 0.95
        assert relay.dropped == 0


async def test_without_pings_a_middlebox_ends_a_silent_call(callers: Callers) -> None:
    async with (
        scripted_http2(respond_late) as server,
        tcp_relay(server.port, idle_s=IDLE_S) as relay,
        callers(ping_interval_s=None) as caller,
    ):
        with pytest.raises(httpx.ReadError, match="lost"):
            await caller.request("GET", f"http://127.0.0.1:{relay.port}/")
        assert relay.dropped > 0
        assert server.connections[0].pings == 0


async def test_a_silent_peer_is_found_within_interval_and_timeout(callers: Callers) -> None:
    async def script(stream: ScriptedStream) -> None:
        await stream.head()
        await stream.data(b"first")

    async with (
        scripted_http2(script) as server,
        tcp_relay(server.port) as relay,
        callers(ping_interval_s=0.3, ping_timeout_s=0.2) as caller,
    ):
        url = f"http://127.0.0.1:{relay.port}/"
        streams = [await caller.stream("GET", url) for _ in range(2)]
        for streamed in streams:
            assert await streamed.next() == b"first"
        relay.freeze()
        began = monotonic()

        async def fail(number: int) -> float:
            with pytest.raises(httpx.ReadError, match="PING"):
                await streams[number].next()
            return monotonic() - began

        async with asyncio.timeout(PATIENCE_S):
            took_s = await asyncio.gather(fail(0), fail(1))
        # From the last byte to the end it is interval and timeout; the rest is for a busy machine.
        assert max(took_s) < 0.3 + 0.2 + 1.0


async def test_no_pings_are_sent_on_an_idle_connection(callers: Callers) -> None:
    async def script(stream: ScriptedStream) -> None:
        await stream.respond(b"x")

    async with (
        scripted_http2(script) as server,
        callers(ping_interval_s=0.05, keepalive_expiry_s=0.5) as caller,
    ):
        await caller.request("GET", server.url)
        pings = server.connections[0].pings
        async with asyncio.timeout(PATIENCE_S):
            await server.connections[0].closed.wait()
        assert server.connections[0].pings == pings
