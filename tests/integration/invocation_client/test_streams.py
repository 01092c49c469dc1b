"""Streams of one connection against a server that does what the test says."""

import asyncio
import contextlib
import gc
import json
import math
import multiprocessing
import threading

import httpx
import openai
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

import invocation_client
from invocation_client.connection import STREAM_WINDOW_BYTES, ConnectionCore
from tests.integration.invocation_client.callers import Callers
from tests.support.scripted_http2 import ScriptedServer, ScriptedStream, scripted_http2
from tests.support.waiting import PATIENCE_S, until, until_unchanged


async def only_stream(server: ScriptedServer) -> ScriptedStream:
    """Return the first stream of the first connection, when there is one."""
    await until(lambda: server.connections and server.connections[0].streams, what="a stream")
    return server.connections[0].streams[1]


async def test_events_come_one_at_a_time(callers: Callers) -> None:
    may_send = asyncio.Semaphore(0)

    async def script(stream: ScriptedStream) -> None:
        await stream.head(200, ("content-type", "text/event-stream"))
        for number in range(5):
            await may_send.acquire()
            await stream.data(b"data: %d\n\n" % number)
        await stream.data(ends=True)

    async with scripted_http2(script) as server, callers() as caller:
        streamed = await caller.stream("POST", server.url, json={})
        for number in range(5):
            may_send.release()
            assert await streamed.next() == b"data: %d\n\n" % number
        assert await streamed.next() is None


async def test_an_early_close_resets_the_stream_and_keeps_the_connection(callers: Callers) -> None:
    async def script(stream: ScriptedStream) -> None:
        await stream.head()
        await stream.data(b"first")
        if stream.path == "/whole":
            await stream.data(b"", ends=True)

    async with scripted_http2(script) as server, callers() as caller:
        streamed = await caller.stream("GET", f"{server.url}/endless")
        assert await streamed.next() == b"first"
        await streamed.close()
        stream = await only_stream(server)
        async with asyncio.timeout(PATIENCE_S):
            await stream.reset.wait()
        assert (await caller.request("GET", f"{server.url}/whole")).content == b"first"
        assert len(server.connections) == 1


async def test_a_response_that_is_not_read_waits_at_the_server(callers: Callers) -> None:
    size = 4 * STREAM_WINDOW_BYTES

    async def script(stream: ScriptedStream) -> None:
        await stream.head()
        await stream.data(bytes(size if stream.path == "/large" else 3), ends=True)

    async with scripted_http2(script) as server, callers() as caller:
        streamed = await caller.stream("GET", f"{server.url}/large")
        stream = await only_stream(server)
        await until(lambda: stream.sent_bytes == STREAM_WINDOW_BYTES)
        await until_unchanged(lambda: stream.sent_bytes, for_s=0.2)
        assert stream.sent_bytes == STREAM_WINDOW_BYTES
        # Other calls on the connection go on.
        assert len((await caller.request("GET", f"{server.url}/small")).content) == 3
        read = 0
        while (part := await streamed.next()) is not None:
            read += len(part)
        assert read == size
        assert len(server.connections) == 1


async def test_trailers_are_there_at_the_end_and_interim_responses_are_skipped(
    callers: Callers,
) -> None:
    async def script(stream: ScriptedStream) -> None:
        await stream.head(103, ("link", "</a>"))
        await stream.head()
        await stream.data(b"body")
        await stream.trailers(("x-cost", "7"))

    async with scripted_http2(script) as server, callers() as caller:
        streamed = await caller.stream("GET", server.url)
        trailers = streamed.response.extensions["trailing_headers"]
        assert streamed.response.status_code == 200
        assert await streamed.next() == b"body"
        assert await streamed.next() is None
        assert trailers == [(b"x-cost", b"7")]


async def test_silence_of_a_stream_is_a_read_timeout_and_the_connection_is_kept(
    callers: Callers,
) -> None:
    async def script(stream: ScriptedStream) -> None:
        if stream.path == "/head":
            await stream.respond(b"here")
        elif stream.path == "/body":
            await stream.head()
            await stream.data(b"first")

    timeout = httpx.Timeout(PATIENCE_S, read=0.3)
    # The PINGs are answered meanwhile, and count for nothing.
    async with scripted_http2(script) as server, callers(ping_interval_s=0.05) as caller:
        with pytest.raises(httpx.ReadTimeout):
            await caller.request("GET", f"{server.url}/none", timeout=timeout)
        stream = await only_stream(server)
        async with asyncio.timeout(PATIENCE_S):
            await stream.reset.wait()
        with pytest.raises(httpx.ReadTimeout):
            await caller.request("GET", f"{server.url}/body", timeout=timeout)
        assert (await caller.request("GET", f"{server.url}/head")).content == b"here"
        assert len(server.connections) == 1
        assert server.connections[0].pings > 2


async def test_a_body_that_the_server_does_not_read_is_a_write_timeout(callers: Callers) -> None:
    async def script(_: ScriptedStream) -> None: ...

    timeout = httpx.Timeout(PATIENCE_S, write=0.2)
    async with scripted_http2(script, reads_bodies=False) as server, callers() as caller:
        with pytest.raises(httpx.WriteTimeout):
            await caller.request("POST", server.url, content=bytes(200_000), timeout=timeout)
        stream = await only_stream(server)
        async with asyncio.timeout(PATIENCE_S):
            await stream.reset.wait()


async def test_a_connection_that_is_lost_during_an_upload_is_a_write_error(
    callers: Callers,
) -> None:
    async def script(stream: ScriptedStream) -> None:
        stream.connection.close()

    async with scripted_http2(script, reads_bodies=False) as server, callers() as caller:
        with pytest.raises(httpx.WriteError, match="lost"):
            await caller.request("POST", server.url, content=bytes(2_000_000))
        assert len(server.connections) == 1


async def test_a_response_before_the_end_of_the_request_ends_the_upload(callers: Callers) -> None:
    async def script(stream: ScriptedStream) -> None:
        await stream.respond(b"too large", 413)

    async with scripted_http2(script, reads_bodies=False) as server, callers() as caller:
        response = await caller.request("POST", server.url, content=bytes(200_000))
        assert (response.status_code, response.content) == (413, b"too large")


async def test_a_stream_that_the_server_resets_is_a_protocol_error(callers: Callers) -> None:
    async def script(stream: ScriptedStream) -> None:
        await stream.head()
        await stream.data(b"some")
        await stream.refuse(ErrorCodes.INTERNAL_ERROR)

    async with scripted_http2(script) as server, callers() as caller:
        with pytest.raises(httpx.RemoteProtocolError, match="INTERNAL_ERROR"):
            await caller.request("GET", server.url)


async def test_a_refused_stream_is_sent_again_once(callers: Callers) -> None:
    requests: list[str] = []

    async def script(stream: ScriptedStream) -> None:
        requests.append(stream.path)
        if stream.path == "/always" or requests == ["/once"]:
            await stream.refuse(ErrorCodes.REFUSED_STREAM)
        else:
            await stream.ended.wait()
            await stream.respond(stream.body)

    async with scripted_http2(script) as server, callers() as caller:
        response = await caller.request("POST", f"{server.url}/once", content=b"body")
        assert response.content == b"body"
        with pytest.raises(httpx.RemoteProtocolError, match="REFUSED_STREAM"):
            await caller.request("POST", f"{server.url}/always", content=b"body")
        assert requests == ["/once", "/once", "/always", "/always"]


async def test_goaway_sends_calls_that_were_left_out_to_a_new_connection(callers: Callers) -> None:
    may_end = asyncio.Event()

    async def script(stream: ScriptedStream) -> None:
        await stream.ended.wait()
        if stream.path == "/left-out" and len(server.connections) == 1:
            await stream.connection.goaway(1)
            return
        if stream.path == "/taken":
            await may_end.wait()
        await stream.respond(stream.path.encode() + stream.body)

    async with scripted_http2(script) as server, callers() as caller:
        taken = asyncio.ensure_future(caller.request("GET", f"{server.url}/taken"))  # noqa: TID251
        await only_stream(server)
        response = await caller.request("POST", f"{server.url}/left-out", content=b"+body")
        assert response.content == b"/left-out+body"
        assert len(server.connections) == 2
        may_end.set()
        assert (await taken).content == b"/taken"
        async with asyncio.timeout(PATIENCE_S):
            await server.connections[0].closed.wait()


async def test_a_streamed_body_is_not_sent_again(callers: Callers) -> None:
    async def script(stream: ScriptedStream) -> None:
        await stream.ended.wait()
        await stream.connection.goaway(0)

    async with scripted_http2(script) as server:

        def call() -> None:
            with httpx.Client(transport=invocation_client.Http2Transport()) as client:
                client.post(server.url, content=iter([b"a", b"b"]))

        with pytest.raises(httpx.RemoteProtocolError, match="GOAWAY"):
            await asyncio.to_thread(call)
        assert len(server.connections) == 1


async def test_one_more_connection_begins_at_the_limit_of_the_server(callers: Callers) -> None:
    may_end = asyncio.Event()

    async def script(stream: ScriptedStream) -> None:
        await may_end.wait()
        await stream.respond(b"x")

    settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}
    async with scripted_http2(script, settings=settings) as server, callers() as caller:
        calls = asyncio.gather(*(caller.request("GET", server.url) for _ in range(5)))
        await until(lambda: sum(len(one.streams) for one in server.connections) == 5)
        assert sorted(len(one.streams) for one in server.connections) == [1, 2, 2]
        may_end.set()
        assert {response.status_code for response in await calls} == {200}


async def test_a_server_that_allows_no_calls_is_a_connect_error(callers: Callers) -> None:
    async def script(_: ScriptedStream) -> None: ...

    settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 0}
    async with scripted_http2(script, settings=settings) as server, callers() as caller:
        with pytest.raises(httpx.ConnectError, match="allows no calls"):
            await caller.request("GET", server.url)


async def test_an_idle_connection_is_closed(callers: Callers) -> None:
    async def script(stream: ScriptedStream) -> None:
        await stream.respond(b"x")

    async with scripted_http2(script) as server, callers(keepalive_expiry_s=0.1) as caller:
        for count in (1, 2):
            await caller.request("GET", server.url)
            async with asyncio.timeout(PATIENCE_S):
                await server.connections[-1].closed.wait()
            assert len(server.connections) == count


@pytest.mark.parametrize("long_s", [1e7, math.inf])
async def test_times_may_be_longer_than_a_selector_sleeps(callers: Callers, long_s: float) -> None:
    async def script(stream: ScriptedStream) -> None:
        await stream.ended.wait()
        await stream.respond(b"x")

    times = {"ping_interval_s": long_s, "keepalive_expiry_s": long_s}
    async with scripted_http2(script) as server, callers(**times) as caller:
        for _ in range(2):
            assert (await caller.request("POST", server.url, content=b"x")).content == b"x"
        assert len(server.connections) == 1


async def test_closing_the_transport_ends_calls_with_a_read_error() -> None:
    async def script(_: ScriptedStream) -> None: ...

    async with scripted_http2(script) as server:
        transport = invocation_client.AsyncHttp2Transport()
        client = httpx.AsyncClient(transport=transport)
        call = asyncio.ensure_future(client.get(server.url))  # noqa: TID251
        await only_stream(server)
        await transport.aclose()
        with pytest.raises(httpx.ReadError, match="closed"):
            await call


async def test_closing_the_transport_ends_calls_of_threads_with_a_read_error() -> None:
    async def script(_: ScriptedStream) -> None: ...

    transport = invocation_client.Http2Transport()

    def call(url: str) -> httpx.Response:
        return httpx.Client(transport=transport).get(url)

    async with scripted_http2(script) as server:
        response = asyncio.ensure_future(asyncio.to_thread(call, server.url))  # noqa: TID251
        await only_stream(server)
        await asyncio.to_thread(transport.close)
        with pytest.raises(httpx.ReadError, match="closed"):
            await response


async def test_a_response_that_the_garbage_collector_closes_waits_for_no_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It runs in any thread between any two lines: here where the connection is locked."""

    async def script(stream: ScriptedStream) -> None:
        if stream.path == "/left":
            await stream.head()
            await stream.data(b"first")
        else:
            await stream.respond(b"x")

    collected = threading.Event()
    receive = ConnectionCore.receive

    def collect(core: ConnectionCore, data: bytes, now: float) -> None:
        gc.collect()
        collected.set()
        receive(core, data, now)

    def leave(client: httpx.Client, url: str) -> None:
        response = client.send(client.build_request("GET", f"{url}/left"), stream=True)
        parts = response.iter_raw()
        assert next(parts) == b"first"
        in_a_cycle: list[object] = [response, parts]
        in_a_cycle.append(in_a_cycle)

    async with scripted_http2(script) as server:
        with httpx.Client(transport=invocation_client.Http2Transport()) as client:
            await asyncio.to_thread(leave, client, server.url)
            monkeypatch.setattr(ConnectionCore, "receive", collect)
            async with asyncio.timeout(PATIENCE_S):
                response = await asyncio.to_thread(client.get, server.url)
                assert (response.content, collected.is_set()) == (b"x", True)
                await server.connections[0].streams[1].reset.wait()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
async def test_a_forked_process_makes_a_connection_of_its_own() -> None:
    async def script(stream: ScriptedStream) -> None:
        await stream.respond(b"x")

    async with scripted_http2(script) as server:
        with httpx.Client(transport=invocation_client.Http2Transport()) as client:

            def call() -> None:
                assert client.get(server.url).content == b"x"

            await asyncio.to_thread(call)
            forked = multiprocessing.get_context("fork").Process(target=call)
            forked.start()
            await asyncio.to_thread(forked.join, PATIENCE_S)
            forked.kill()
            assert forked.exitcode == 0
            await asyncio.to_thread(call)
        assert [len(one.streams) for one in server.connections] == [2, 1]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_another_loop_makes_connections_of_its_own() -> None:
    async def script(stream: ScriptedStream) -> None:
        await stream.respond(b"x")

    async with scripted_http2(script) as server:
        client = httpx.AsyncClient(transport=invocation_client.AsyncHttp2Transport())

        async def call() -> bytes:
            return (await client.get(server.url)).content

        for _ in range(2):
            assert await asyncio.to_thread(asyncio.run, call()) == b"x"
        assert len(server.connections) == 2
        await call()
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, call())
        await client.aclose()
        gc.collect()  # a loop that has ended closes nothing: sockets of it warn here


async def test_closing_the_transport_ends_calls_that_are_connecting(callers: Callers) -> None:
    connections: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read(1)
        if len(connections) == 1:
            await closed.wait()
        writer.write(b"\0\0\0\4\0\0\0\0\0")
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                pass
        writer.close()
        ended.set()

    closed, ended = asyncio.Event(), asyncio.Event()
    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener, callers(keepalive_expiry_s=None) as caller:
        call = asyncio.ensure_future(caller.request("GET", url))  # noqa: TID251
        await until(lambda: connections)
        await caller.close_transport()
        closed.set()
        with pytest.raises(httpx.ReadError, match="closed"):
            await call
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()


async def test_a_cancelled_task_resets_its_stream() -> None:
    async def script(_: ScriptedStream) -> None: ...

    transport = invocation_client.AsyncHttp2Transport()
    async with scripted_http2(script) as server, httpx.AsyncClient(transport=transport) as client:
        call = asyncio.ensure_future(client.get(server.url))  # noqa: TID251
        stream = await only_stream(server)
        call.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await stream.reset.wait()


def chunk(text: str) -> bytes:
    document = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
    }
    return f"data: {json.dumps(document)}\n\n".encode()


async def complete_chat(stream: ScriptedStream) -> None:
    await stream.ended.wait()
    assert (stream.path, json.loads(stream.body)["stream"]) == ("/v1/chat/completions", True)
    await stream.head(200, ("content-type", "text/event-stream"), ("nvcf-reqid", "r1"))
    for word in ("A", " long", " answer"):
        await stream.data(chunk(word))
    await stream.data(b"data: [DONE]\n\n", ends=True)


async def test_the_openai_client_streams_a_completion() -> None:
    async with scripted_http2(complete_chat) as server:

        def call() -> str:
            with openai.OpenAI(
                base_url=f"{server.url}/v1",
                api_key="k",
                http_client=httpx.Client(transport=invocation_client.Http2Transport()),
            ) as client:
                parts = client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "?"}], stream=True
                )
                return "".join(part.choices[0].delta.content or "" for part in parts)

        assert await asyncio.to_thread(call) == "A long answer"


async def test_the_async_openai_client_streams_a_completion() -> None:
    async with (
        scripted_http2(complete_chat) as server,
        openai.AsyncOpenAI(
            base_url=f"{server.url}/v1",
            api_key="k",
            http_client=httpx.AsyncClient(transport=invocation_client.AsyncHttp2Transport()),
        ) as client,
    ):
        parts = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "?"}], stream=True
        )
        text = "".join([part.choices[0].delta.content or "" async for part in parts])
        assert text == "A long answer"
