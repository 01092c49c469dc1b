"""Calls that end because another thread or task says so."""

import asyncio
from collections.abc import Callable

import httpx
import openai
import pytest

from invocation_client import Cancellation, Http2Transport
from tests.integration.invocation_client.callers import Callers
from tests.support.scripted_http2 import ScriptedServer, ScriptedStream, scripted_http2
from tests.support.stack import start
from tests.support.waiting import PATIENCE_S, until


async def silent(stream: ScriptedStream) -> None:
    """Respond to ``/quick``, begin a response to ``/body``, and be silent otherwise."""
    if stream.path == "/quick":
        await stream.respond(b"quick")
    elif stream.path == "/body":
        await stream.head()
        await stream.data(b"first")


async def streams(server: ScriptedServer, count: int) -> list[ScriptedStream]:
    """Return the streams of the only connection, when there are so many."""

    def found() -> list[ScriptedStream]:
        return [one for each in server.connections for one in each.streams.values()]

    return await until(found, lambda all_of_them: len(all_of_them) == count)


def read_on(client: httpx.Client, url: str, cancellation: Cancellation) -> None:
    """Read after the block in which the call began."""
    with cancellation.scope():
        response = client.send(client.build_request("GET", url), stream=True)
    response.read()


def upload(client: httpx.Client, url: str, cancellation: Cancellation) -> None:
    with cancellation.scope():
        client.post(url, content=bytes(1 << 20))


def wait(client: httpx.Client, url: str, cancellation: Cancellation) -> None:
    with cancellation.scope():
        client.get(url)


async def test_calls_of_threads_end_together_and_no_more_begin() -> None:
    cancellation = Cancellation()
    async with scripted_http2(silent, reads_bodies=False) as server:
        with httpx.Client(transport=Http2Transport(), timeout=None) as client:

            async def run(call: Callable[..., None], path: str) -> None:
                await asyncio.to_thread(call, client, server.url + path, cancellation)

            works = [(wait, "/none"), (read_on, "/body"), (upload, "/upload")]
            calls = [start(run(*work)) for work in works]
            seen = await streams(server, len(calls))
            assert not cancellation.is_cancelled
            await asyncio.to_thread(cancellation.cancel)
            assert cancellation.is_cancelled
            async with asyncio.timeout(PATIENCE_S):
                ends = await asyncio.gather(*calls, return_exceptions=True)
                for stream in seen:
                    await stream.reset.wait()
            assert [type(end) for end in ends] == [httpx.ReadError] * len(calls)
            with pytest.raises(httpx.ReadError):
                await run(wait, "/quick")
            await streams(server, len(calls))
            # Outside of the scope the connection serves on.
            response = await asyncio.to_thread(client.get, f"{server.url}/quick")
            assert response.content == b"quick"
            assert len(server.connections) == 1


async def test_a_call_of_the_openai_client_that_waits_is_cancelled() -> None:
    cancellation = Cancellation()
    async with scripted_http2(silent) as server:

        def call() -> None:
            with openai.OpenAI(
                base_url=f"{server.url}/v1",
                api_key="k",
                http_client=httpx.Client(transport=Http2Transport()),
                max_retries=0,
            ) as client:
                with cancellation.scope():
                    client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": "?"}]
                    )

        waiting = start(asyncio.to_thread(call))
        (stream,) = await streams(server, 1)
        cancellation.cancel()
        with pytest.raises(openai.APIConnectionError):
            await waiting
        async with asyncio.timeout(PATIENCE_S):
            await stream.reset.wait()


async def test_a_read_ends_when_the_response_is_closed_elsewhere(callers: Callers) -> None:
    async with scripted_http2(silent) as server, callers() as caller:
        streamed = await caller.stream("GET", f"{server.url}/body", timeout=None)
        assert await streamed.next() == b"first"
        reading = start(streamed.next())
        # It waits before this has come back.
        assert (await caller.request("GET", f"{server.url}/quick")).content == b"quick"
        await streamed.close()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(httpx.ReadError):
                await reading
