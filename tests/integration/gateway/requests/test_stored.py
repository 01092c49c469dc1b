"""Stored responses in a folder: what is written is found by every process, whole or not at all."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.dispatch.spool import SpoolFiles
from gateway.domain.cors import OPEN
from gateway.domain.model import EVERYTHING
from gateway.domain.principal import INVOKE, Principal
from gateway.domain.readmodel import ReadModel
from gateway.errors import StoreUnavailable
from gateway.objects.local import LocalObjects
from gateway.requests.asked import Asked
from gateway.requests.book import RequestBook
from gateway.requests.detached import DetachedCall, Limits
from gateway.requests.exchanges import FirstExchange, ResponseExchange
from gateway.requests.prefer import Terms
from gateway.requests.stored import StoredResponses
from gateway.requests.stored_exchange import StoredExchange, lost_if
from gateway.routing.cross_origin import CrossOrigin, PageAccess
from http1.stream import Headers, Request
from runtime.ids import new_uuid
from tests.support.detached import make_endpoint
from tests.support.invocation_world import World
from tests.support.objects import local_objects, signer
from tests.support.recorder import RecordedResponseWriter, Script
from tests.support.waiting import PATIENCE_S, until

ACCESS = PageAccess(None, None, replaces=True)
EVENTS = b"id: a\ndata: 1\n\nid: b\ndata: 2\n\nid: c\ndata: 3\n\n"
STREAM = [(b"content-type", b"text/event-stream")]


class Failing(LocalObjects):
    """A store that fails a few times."""

    failures = 0

    async def put(self, *arguments: Any, **keywords: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable(cause="the disk is away")
        await super().put(*arguments, **keywords)

    async def put_batch(self, objects: object, *, content_type: str) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable(cause="the disk is away")
        await super().put_batch(objects, content_type=content_type)  # type: ignore[arg-type]


class Holder:
    """A book over a folder, whose calls are responded to at once."""

    def __init__(self, objects: LocalObjects, folder: Path) -> None:
        self.objects = objects
        self.spool = SpoolFiles(folder)
        self.responses = StoredResponses(objects, 3600.0)
        loop = asyncio.get_running_loop()
        self.book = RequestBook(self.spool.open, loop.time, Limits(0, 5_000_000), 2, self.responses)

    def begin(self, terms: Terms | None = None) -> tuple[DetachedCall, World]:
        client = RecordedResponseWriter(Script(), "client")
        call = self.book.make("acme", client, "async", time.time())
        world = World(client=call)
        call.begins(world.invocation)
        call.request_id = new_uuid()[:-4] + "0007"
        self.book.add(call)
        exchange = FirstExchange(call, client, self.book, terms or Terms(is_async=True))
        exchange.start()
        exchange.request_end()
        return call, world

    def respond(self, world: World, body: bytes, headers: Headers | None = None) -> None:
        world.attach().head(200, headers or [(b"x-own", b"1")])
        for at in range(0, len(body), 50_000):
            world.invocation.response_data(body[at : at + 50_000])
        world.invocation.response_end()

    async def settled(self, call: DetachedCall) -> None:
        await until(lambda: call.is_settled)

    async def fetch(
        self, call: DetachedCall, part: bytes = b"response", last_event: bytes = b""
    ) -> RecordedResponseWriter:
        """Ask as another process does that finds the response in the store."""
        client = RecordedResponseWriter(Script(), "later")
        asked = Asked(
            Request(b"GET", b"/v2/requests/x", b"", [], 0, 0.0),
            call.request_id,
            part,
            ACCESS,
            1,
            last_event,
            lambda *of_call: of_call[0] == "acme",
            lambda request, status: None,
        )

        async def has_lived(process: int) -> bool:
            return True

        StoredExchange(asked, client, self.responses, lost_if(has_lived), self.book.with_webhook)
        await until(lambda: client.over)
        return client


@pytest.fixture
async def holder(tmp_path: Path) -> AsyncIterator[Holder]:
    objects = local_objects(tmp_path / "objects")
    await objects.open()
    holder = Holder(objects, tmp_path)
    yield holder
    holder.spool.close()
    await objects.close()


@pytest.mark.parametrize("size", [0, 5, 65_537, 3_000_001])
async def test_a_response_of_any_length_is_stored_and_found(holder: Holder, size: int) -> None:
    call, world = holder.begin()
    body = bytes(number % 251 for number in range(1000)) * (size // 1000 + 1)
    holder.respond(world, body[:size])
    assert call.state == "responding"
    await holder.settled(call)
    assert call.state == "done"
    found = await holder.fetch(call)
    status, headers, length = found.head or (0, [], None)
    assert (status, length, found.sent) == (200, size, body[:size])
    assert (b"x-own", b"1") in headers
    is_cached = size < 65_536
    assert (holder.book.find(call.request_id) is call) == is_cached
    view = await holder.fetch(call, part=b"")
    assert b'"state":"done"' in view.sent
    assert b"expiresAt" in view.sent


async def test_a_stream_goes_on_after_the_event_that_was_received_last(holder: Holder) -> None:
    call, world = holder.begin()
    world.attach().head(200, STREAM)
    world.invocation.response_data(EVENTS[:30])
    live = RecordedResponseWriter(Script(), "live")
    ResponseExchange(call, live, holder.book, ACCESS).begin_after(b"a", 5.0)
    unknown = RecordedResponseWriter(Script(), "unknown")
    ResponseExchange(call, unknown, holder.book, ACCESS).begin_after(b"x", 5.0)
    world.invocation.response_data(EVENTS[30:])
    world.invocation.response_end()
    assert live.sent == EVENTS[15:]
    assert unknown.sent == EVENTS
    await holder.settled(call)
    assert (await holder.fetch(call, last_event=b"b")).sent == EVENTS[30:]
    assert (await holder.fetch(call, last_event=b"x")).sent == EVENTS


async def test_a_failed_call_is_stored_as_its_problem(holder: Holder) -> None:
    call, world = holder.begin()
    world.attach().head(200, [])
    world.invocation.response_data(b"half")
    world.invocation.response_broken()
    await holder.settled(call)
    found = await holder.fetch(call)
    assert (found.head or (0,))[0] == 502
    assert b"worker_lost" in found.sent
    assert b"half" not in found.sent
    events = await holder.fetch(call, part=b"events", last_event=b"head")
    assert events.sent.startswith(b"event: failed\nid: failed\n")


async def test_what_is_deleted_is_gone_also_while_it_is_stored(holder: Holder) -> None:
    for waits in (True, False):
        call, world = holder.begin()
        holder.respond(world, b"x")
        if waits:
            await holder.settled(call)
        await holder.book.delete(call)
        await holder.settled(call)
        key = f"responses/{call.request_id}"
        await until(lambda key=key: holder.objects.stat(key), lambda info: info is None)
        assert ((await holder.fetch(call)).head or (0,))[0] == 410
        assert holder.book.find(call.request_id) is None


async def test_bounds_refuse_further_calls(holder: Holder) -> None:
    first, _ = holder.begin()
    second, world = holder.begin()
    with pytest.raises(Exception, match="as many detached calls"):
        holder.begin()
    first.cancel()
    await holder.settled(first)
    holder.respond(world, b"x" * 5_000_000)
    with pytest.raises(Exception, match="as many bytes"):
        holder.begin()
    await holder.settled(second)
    await holder.book.wait_settled(1.0)


async def test_a_deleted_response_counts_no_more_wherever_it_is_kept(holder: Holder) -> None:
    endpoint = make_endpoint(CrossOrigin(ReadModel(), OPEN), holder.book, _authenticate)
    for _ in range(3):
        call, world = holder.begin()
        holder.respond(world, b"x" * 3_000_000)
        await holder.settled(call)
        assert holder.book.find(call.request_id) is None
        for status in (204, 404):
            target = f"/v2/requests/{call.request_id}".encode()
            headers = [(b"authorization", b"Bearer k")]
            client = RecordedResponseWriter(Script(), "deletes")
            endpoint.serve(Request(b"DELETE", target, b"", headers, 0, 0.0), client)
            await until(lambda client=client: client.over)
            assert (client.head or (0,))[0] == status
    assert holder.book.room_for("acme").bytes == 0


def _authenticate(authorization: bytes | None, now: float) -> Principal:
    return Principal("acme", "sub", frozenset({INVOKE}), EVERYTHING)


async def test_a_response_that_cannot_be_stored_is_tried_again_and_then_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.requests.book.RETRIES_S", (0.0, 0.0, 0.0))
    objects = Failing(tmp_path / "objects", signer())
    holder = Holder(objects, tmp_path)
    objects.failures = 2
    call, world = holder.begin()
    holder.respond(world, b"x")
    await holder.settled(call)
    assert (await holder.fetch(call)).sent == b"x"
    objects.failures = 4
    lost, world = holder.begin()
    holder.respond(world, b"y")
    await holder.settled(lost)
    assert holder.book.not_stored == 1
    assert holder.book.find(lost.request_id) is lost
    holder.spool.close()
    await objects.close()


async def test_what_could_not_be_stored_is_stored_when_the_store_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.requests.book.RETRIES_S", ())
    monkeypatch.setattr("gateway.requests.book.STORE_AGAIN_S", 0.0)
    objects = Failing(tmp_path / "objects", signer())
    holder = Holder(objects, tmp_path)
    objects.failures = 1000
    calls = []
    for body in (b"y" * 100_000, b"y"):
        call, world = holder.begin()
        holder.respond(world, body)
        await holder.settled(call)
        calls.append(call)
    with pytest.raises(Exception, match="as many detached calls"):
        holder.begin()

    async def stored() -> int:
        holder.book.tick()
        return holder.book.stored

    before = objects.failures
    await until(stored, lambda _: objects.failures < before - 2, what="further attempts")
    objects.failures = 0
    await until(stored, lambda count: count == 2)
    for call in calls:
        assert (await holder.fetch(call)).sent.startswith(b"y")
    objects.failures = 1
    last, world = holder.begin()
    holder.respond(world, b"z")
    await holder.book.wait_settled(PATIENCE_S)
    assert (await holder.fetch(last)).sent == b"z"
    holder.spool.close()
    await objects.close()
