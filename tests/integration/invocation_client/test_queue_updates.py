"""Calls that wait, at a gateway that fails at each step."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from invocation_client import (
    AsyncHttp2Transport,
    AsyncQueueTransport,
    Cancellation,
    Http2Transport,
    QueueTransport,
    QueueUpdate,
)
from tests.support.scripted_http2 import ScriptedStream, scripted_http2
from tests.support.stack import start
from tests.support.waiting import PATIENCE_S, until

CALL = "/v2/requests/0b6c2c2e-7c59-4a43-8a56-1f4f5a6b0001"
PATIENT = httpx.Timeout(PATIENCE_S, read=None)

Part = Callable[[ScriptedStream], Awaitable[None]]


def event(name: str) -> bytes:
    return f"event: {name}\nid: {name}\ndata: {{}}\n\n".encode()


class WaitingCall:
    """A gateway with one call. ``asked`` are the requests about it, as method and part.

    ``events`` and ``response`` are called in turn, the last of each again and again.
    """

    def __init__(self, events: list[Part], response: list[Part]) -> None:
        self.asked: list[tuple[str, str]] = []
        self.streams: list[ScriptedStream] = []
        self.is_deaf = False
        self.calls: list[ScriptedStream] = []
        self.accepts = asyncio.Event()
        self.accepts.set()
        self._parts = {"/events": events, "/response": response}

    async def serve(self, stream: ScriptedStream) -> None:
        method, path = stream.headers[b":method"].decode(), stream.path.partition("?")[0]
        if not path.startswith(CALL):
            self.calls.append(stream)
            await self.accepts.wait()
            await stream.head(
                202, ("location", CALL), ("preference-applied", "respond-async"), ends=True
            )
            return
        self.streams.append(stream)
        self.asked.append((method, path.removeprefix(CALL)))
        if method == "DELETE":
            if not self.is_deaf:
                await stream.head(204, ends=True)
            return
        parts = self._parts[path.removeprefix(CALL)]
        await (parts.pop(0) if len(parts) > 1 else parts[0])(stream)


async def begun(stream: ScriptedStream) -> None:
    await stream.head()
    await stream.data(event("leased") + event("head"))


async def queued(stream: ScriptedStream) -> None:
    await stream.head()
    await stream.data(event("queued"))


async def silent(stream: ScriptedStream) -> None:
    await stream.head()


async def unavailable(stream: ScriptedStream) -> None:
    await stream.respond(b"a proxy has no gateway", 503)


async def lost(stream: ScriptedStream) -> None:
    stream.connection.close()


async def done(stream: ScriptedStream) -> None:
    await stream.respond(b"response")


async def half(stream: ScriptedStream) -> None:
    await stream.head()
    await stream.data(b"half")


class Callers:
    """Makes calls of one kind. ``updates`` are the states that were told."""

    def __init__(self) -> None:
        self.updates: list[str] = []

    def told(self, update: QueueUpdate) -> None:
        self.updates.append(update.state)

    async def get(self, url: str, times: httpx.Timeout, headers: dict[str, str]) -> httpx.Response:
        raise NotImplementedError


class Tasks(Callers):
    async def get(self, url: str, times: httpx.Timeout, headers: dict[str, str]) -> httpx.Response:
        transport = AsyncQueueTransport(AsyncHttp2Transport(), self.told)
        async with httpx.AsyncClient(transport=transport, timeout=times) as client:
            return await client.get(url, headers=headers)


class Threads(Callers):
    def _get(self, url: str, times: httpx.Timeout, headers: dict[str, str]) -> httpx.Response:
        transport = QueueTransport(Http2Transport(), self.told)
        with httpx.Client(transport=transport, timeout=times) as client:
            return client.get(url, headers=headers)

    async def get(self, url: str, times: httpx.Timeout, headers: dict[str, str]) -> httpx.Response:
        return await asyncio.to_thread(self._get, url, times, headers)


@pytest.fixture(params=[Tasks, Threads])
def calls(request: pytest.FixtureRequest) -> Callers:
    kind: type[Callers] = request.param
    return kind()


@asynccontextmanager
async def gateway(call: WaitingCall) -> AsyncIterator[str]:
    async with scripted_http2(call.serve) as server:
        yield server.url


@pytest.mark.parametrize("failure", [unavailable, lost])
async def test_a_gateway_that_is_away_for_a_moment_is_asked_again(
    calls: Callers, failure: Part
) -> None:
    responses = [done] if failure is unavailable else [lost, done]
    call = WaitingCall([failure, queued_and(failure), begun], responses)
    async with gateway(call) as url:
        response = await calls.get(url, PATIENT, {})
    assert (response.status_code, response.content) == (200, b"response")
    assert calls.updates == ["queued", "leased", "head"]
    assert ("DELETE", "") not in call.asked


def queued_and(failure: Part) -> Part:
    async def part(stream: ScriptedStream) -> None:
        if failure is lost:
            await queued(stream)
            await lost(stream)
        else:
            await stream.head()
            await stream.data(event("queued"), ends=True)

    return part


@pytest.mark.parametrize(
    ("events", "response"), [([silent], [done]), ([queued], [done]), ([begun], [half])]
)
async def test_the_read_timeout_ends_a_call_that_is_silent(
    calls: Callers, events: list[Part], response: list[Part]
) -> None:
    call = WaitingCall(events, response)
    async with gateway(call) as url:
        with pytest.raises(httpx.ReadTimeout):
            await calls.get(url, httpx.Timeout(PATIENCE_S, read=0.5), {})
        assert call.asked[-1] == ("DELETE", "")


async def test_a_call_that_a_proxy_refuses_is_cancelled(calls: Callers) -> None:
    async def refused(stream: ScriptedStream) -> None:
        await stream.respond(b"a proxy wants a login", 401)

    call = WaitingCall([refused], [refused])
    async with gateway(call) as url:
        assert (await calls.get(url, PATIENT, {})).status_code == 401
    assert call.asked == [("GET", "/events"), ("GET", "/response"), ("DELETE", "")]


async def test_what_is_asked_about_a_call_has_its_credentials(calls: Callers) -> None:
    call = WaitingCall([begun], [done])
    headers = {"cookie": "session=1", "x-proxy-key": "k", "content-type": "text/plain"}
    async with gateway(call) as url:
        await calls.get(f"{url}/path?more=1&nvcf-token=t", PATIENT, headers)
    for stream in call.streams:
        assert stream.path.endswith("?nvcf-token=t")
        assert stream.headers[b"cookie"] == b"session=1"
        assert stream.headers[b"x-proxy-key"] == b"k"
        assert b"content-type" not in stream.headers
        assert b"prefer" not in stream.headers


async def test_a_scope_that_is_cancelled_cancels_its_call() -> None:
    """Every wait in it is cancelled, also that for the request which cancels the call."""
    call, scope = WaitingCall([queued], [done]), anyio.CancelScope()
    transport = AsyncQueueTransport(AsyncHttp2Transport(), lambda _: scope.cancel())
    async with gateway(call) as url:
        async with httpx.AsyncClient(transport=transport, timeout=PATIENT) as client:
            with scope:
                await client.get(url)
        assert call.asked[-1] == ("DELETE", "")
        assert not call.streams[-1].reset.is_set()


async def test_a_task_that_is_cancelled_before_its_call_has_an_id_cancels_it() -> None:
    call = WaitingCall([begun], [done])
    call.accepts.clear()
    transport = AsyncQueueTransport(AsyncHttp2Transport(), lambda _: None)
    async with gateway(call) as url:
        async with httpx.AsyncClient(transport=transport, timeout=PATIENT) as client:
            task = start(client.post(url, json={}))
            await until(lambda: call.calls)
            for _ in range(2):
                task.cancel()
                await asyncio.sleep(0)
            call.accepts.set()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert call.asked == [("DELETE", "")]


async def test_a_thread_that_is_cancelled_before_its_call_has_an_id_cancels_it() -> None:
    call, cancellation = WaitingCall([begun], [done]), Cancellation()
    call.accepts.clear()

    def run(url: str) -> None:
        transport = QueueTransport(Http2Transport(), lambda _: None)
        with cancellation.scope(), httpx.Client(transport=transport, timeout=PATIENT) as client:
            client.post(url, json={})

    async with gateway(call) as url:
        task = start(asyncio.to_thread(run, url))
        await until(lambda: call.calls)
        cancellation.cancel()
        call.accepts.set()
        with pytest.raises(httpx.ReadError, match="cancelled"):
            await task
        assert call.asked == [("DELETE", "")]


async def test_closing_the_transport_ends_a_task_that_waits_and_its_call() -> None:
    call, told = WaitingCall([queued], [done]), asyncio.Event()
    inner = AsyncHttp2Transport()
    transport = AsyncQueueTransport(inner, lambda _: told.set())
    async with gateway(call) as url:
        task = start(httpx.AsyncClient(transport=transport, timeout=PATIENT).get(url))
        await told.wait()
        await transport.aclose()
        with pytest.raises(httpx.ReadError, match="closed"):
            await task
        assert call.asked == [("GET", "/events"), ("DELETE", "")]
        await inner.aclose()


async def test_closing_the_transport_ends_a_thread_that_waits_and_its_call() -> None:
    call, told = WaitingCall([queued], [done]), threading.Event()
    inner = Http2Transport()
    transport = QueueTransport(inner, lambda _: told.set())
    async with gateway(call) as url:
        client = httpx.Client(transport=transport, timeout=PATIENT)
        task = start(asyncio.to_thread(client.get, url))
        await asyncio.to_thread(told.wait, PATIENCE_S)
        await asyncio.to_thread(transport.close)
        with pytest.raises(httpx.ReadError, match="closed"):
            await task
        assert call.asked == [("GET", "/events"), ("DELETE", "")]
        await asyncio.to_thread(inner.close)


async def test_a_gateway_that_is_silent_does_not_keep_a_call_that_is_given_up(
    calls: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invocation_client.queue_updates.CANCEL_S", 0.2)
    call = WaitingCall([queued], [done])
    call.is_deaf = True

    def fail(update: QueueUpdate) -> None:
        raise ValueError(update.state)

    calls.told = fail  # type: ignore[method-assign]
    async with gateway(call) as url:
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(ValueError, match="queued"):
                await calls.get(url, PATIENT, {})
    assert call.asked[-1] == ("DELETE", "")
