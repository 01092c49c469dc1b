"""Calls that outlive their connection, across gateway processes, on both brokers."""

import asyncio
import json
import re
import signal
import tempfile
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.support.programs import Program
from tests.support.redis_server import running_redis_server
from tests.support.stack import Gateway, Stack, register, running_at_inference, running_stack, start
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASYNC = {"prefer": "respond-async"}
ON_DISCONNECT = {"nvcf-detach": "on-disconnect"}
_REQID = re.compile(rb"nvcf-reqid: ([0-9a-f-]{36})")


class World:
    """Two gateways over one object store, and an agent."""

    def __init__(self, stack: Stack, folder: str, settings: dict[str, str]) -> None:
        self.stack = stack
        self.settings = {"OBJECTS__FOLDER": f"{folder}/objects", **settings}
        self.holder = stack.gateway(**self.settings)
        self.other = stack.gateway(**self.settings)

    def agent(self) -> Program:
        return self.stack.agent(
            **{
                name: value
                for name, value in self.settings.items()
                if name.startswith(("QUEUE", "REDIS"))
            }
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["nats", "redis"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="detached-") as folder:
        async with running_stack() as stack:
            if request.param == "nats":
                world = World(stack, folder, {})
                world.agent()
                yield world
                return
            async with running_redis_server() as redis:
                stack.demo = await register(redis.url)
                world = World(
                    stack,
                    folder,
                    {
                        "STORE__BACKEND": "redis",
                        "QUEUE__BACKEND": "redis",
                        "REDIS__URLS": redis.url,
                    },
                )
                world.agent()
                yield world


async def accepted(gateway: Gateway, path: str, method: str = "POST", **headers: str) -> str:
    """Begin a detached call; return the path of its request."""
    async with gateway.client() as client:
        found = await client.request(method, path, headers={**ASYNC, **headers})
    assert found.status_code == 202
    return found.headers["location"]


async def get(gateway: Gateway, path: str, **headers: str) -> httpx.Response:
    async with gateway.client() as client:
        return await client.get(path, headers={k.replace("_", "-"): v for k, v in headers.items()})


async def in_state(
    gateway: Gateway, location: str, state: str, member: str = "state"
) -> dict[str, object]:
    """Wait for a state, and for ``member``; return what is shown of the request then."""

    async def view() -> dict[str, object]:
        return dict((await get(gateway, location)).json())

    return await until(view, lambda found: found["state"] == state and member in found, what=state)


async def test_every_process_shows_and_delivers_a_call_of_any_other(world: World) -> None:
    location = await accepted(world.holder, "/echo")
    response = await get(world.other, f"{location}/response")
    assert response.status_code == 200
    assert response.headers["nvcf-reqid"] == location.rpartition("/")[2]
    view = await in_state(world.other, location, "done")
    assert view["attempts"] == 1
    events = (await get(world.other, f"{location}/events")).text
    assert re.findall("event: (.*)", events) == ["leased", "head", "done"]
    assert (await get(world.other, f"{location}/events", last_event_id="done")).status_code == 204


async def test_a_response_broken_off_at_any_byte_is_there_as_a_whole(world: World) -> None:
    path = "/huge?bytes=2000000"
    async with world.holder.client() as client:
        whole = (await client.get(path)).content
    for at in (0, 1, 100, 600, 5000, 70_000, 1_500_000):
        request_id = await broken_off(world.holder, path, at)
        for gateway in (world.holder, world.other):
            again = await get(gateway, f"/v2/requests/{request_id}/response")
            assert again.status_code == 200
            assert again.content == whole, at


async def test_a_stream_broken_off_goes_on_to_its_end(world: World) -> None:
    for at in (0, 700, 1500):
        request_id = await broken_off(world.holder, "/sse?events=20&interval_ms=10", at)
        first, second = [
            await get(gateway, f"/v2/requests/{request_id}/response")
            for gateway in (world.other, world.holder)
        ]
        assert first.content == second.content
        assert first.text.count("data: ") == 20


async def broken_off(gateway: Gateway, path: str, at: int) -> str:
    """Begin a call, break the connection after ``at`` bytes, and return the call's request id."""
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    lines = {**gateway.headers, **ON_DISCONNECT}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode())
    got = b""
    while b"\r\n\r\n" not in got:
        got += await reader.read(64)
    while len(got) < at:
        data = await reader.read(at - len(got))
        if not data:
            break
        got += data
    writer.transport.abort()
    found = _REQID.search(got)
    assert found is not None
    return found[1].decode()


async def test_a_stream_is_followed_live_from_its_first_event(world: World) -> None:
    location = await accepted(world.holder, "/sse?events=15&interval_ms=40", "GET")
    async with (
        world.other.client() as client,
        client.stream("GET", f"{location}/response") as live,
    ):
        assert live.headers["content-type"].startswith("text/event-stream")
        pieces = [piece async for piece in live.aiter_text()]
    assert len(pieces) > 1
    assert (await get(world.other, f"{location}/response")).text == "".join(pieces)


async def test_a_window_that_ends_is_answered_202_and_a_longer_one_wakes_at_once(
    world: World,
) -> None:
    location = await accepted(world.holder, "/slow?seconds=2")
    waiting = await get(world.other, f"{location}/response", nvcf_poll_seconds="1")
    assert waiting.status_code == 202
    assert waiting.headers["location"] == location
    assert waiting.json()["state"] in ("queued", "leased")
    done = await get(world.other, f"{location}/response", nvcf_poll_seconds="30")
    assert done.status_code == 200


async def test_delete_stops_a_call_that_runs_from_any_process(world: World) -> None:
    location = await accepted(world.holder, "/slow?seconds=60")
    await running_at_inference(world.stack, 1)
    waiting = start(get(world.holder, f"{location}/response"))
    async with world.other.client() as client:
        assert (await client.delete(location)).status_code == 204
    await running_at_inference(world.stack, 0)
    assert (await waiting).status_code == 410
    assert (await get(world.other, location)).json()["state"] == "cancelled"
    async with world.other.client() as client:
        assert (await client.delete(location)).status_code == 204
        assert (await client.get(location)).status_code == 404


async def test_nobody_else_sees_a_call_and_nonsense_is_refused(world: World) -> None:
    location = await accepted(world.holder, "/echo")
    async with httpx.AsyncClient(base_url=world.other.url) as client:
        assert (await client.get(location)).status_code == 401
        preflight = {"origin": "http://page", "access-control-request-method": "GET"}
        assert (await client.options(location, headers=preflight)).status_code == 204
    async with world.other.client() as client:
        assert (await client.put(location)).status_code == 405
        assert (await client.get(f"{location}/other")).status_code == 404
        unknown = location[:-36] + "00000000-0000-4000-8000-00000000" + location[-4:]
        refused = await client.get(unknown)
        assert (refused.status_code, refused.json()["reason"]) == (404, "request_not_found")
        assert "access-control-allow-origin" not in refused.headers
        head = await client.head(f"{location}/response")
        assert (head.status_code, head.content) == (200, b"")


async def test_a_holder_that_stands_still_is_not_taken_for_lost(world: World) -> None:
    location = await accepted(world.holder, "/slow?seconds=0")
    keyed = await accepted(world.holder, "/slow?seconds=0", "GET", **{"idempotency-key": "still"})
    for path in (location, keyed):
        await in_state(world.holder, path, "done")
        async with world.holder.client() as client:
            assert (await client.delete(path)).status_code == 204
    third = await asyncio.to_thread(world.stack.gateway, **world.settings)
    world.holder.program.send(signal.SIGSTOP)
    try:
        shown = await get(third, location)
        again = await get(third, "/slow?seconds=0", prefer="respond-async", idempotency_key="still")
    finally:
        world.holder.program.send(signal.SIGCONT)
    for response in (shown, again):
        assert (response.status_code, response.json()["reason"]) == (503, "holder_silent")
    third.program.send(signal.SIGTERM)
    await asyncio.to_thread(third.program.wait_end)
    assert (await get(world.other, location)).status_code == 404


async def test_what_is_over_survives_its_process_and_what_runs_does_not(world: World) -> None:
    """The last test of the module's holder."""
    done = await accepted(world.holder, "/echo")
    await in_state(world.holder, done, "done")
    running = await accepted(world.holder, "/slow?seconds=1")
    await running_at_inference(world.stack, 1)
    world.holder.program.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(world.holder.program.wait_end)
    for location in (done, running):
        assert (await get(world.other, f"{location}/response")).status_code == 200
        assert (await get(world.other, location)).json()["state"] == "done"

    world.holder = await asyncio.to_thread(world.stack.gateway, **world.settings)
    lost = await accepted(world.holder, "/slow?seconds=60")
    await running_at_inference(world.stack, 1)
    waiting = start(get(world.other, f"{lost}/response"))
    view = await in_state(world.other, lost, "leased", "leasedAt")
    assert view["attempts"] == 1
    async with (
        world.other.client() as client,
        client.stream("GET", f"{lost}/events") as watching,
    ):
        events = watching.aiter_text()
        assert "event: queued" in await anext(events)
        world.holder.program.process.kill()
        with pytest.raises(httpx.HTTPError):
            async for _ in events:
                pass
    response = await waiting
    assert (response.status_code, response.json()["reason"]) == (410, "holder_lost")
    assert (await get(world.other, lost)).status_code == 410
    assert json.loads((await get(world.other, lost)).content)["requestId"] in lost
