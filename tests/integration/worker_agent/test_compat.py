"""What clients of NVCF's polling routes get through the agent, on real sockets and disks."""

import asyncio
import json
import os
import threading
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import pytest
from aiohttp import web

from runtime.tasks import spawn
from tests.integration.worker_agent.harness import Agent, HandLease, running_agent
from tests.support.fake_gateway import Expected
from tests.support.raw_server import OK, Peer
from tests.support.waiting import until
from wire.envelope import INLINE_BODY_BYTES, encode_assets
from worker_agent.compat import call
from worker_agent.compat.folders import remove_folder

NO_WINDOW = ((b"nvcf-poll-seconds", b"0"),)
ASSET_ID = "55555555-5555-4555-8555-555555555555"


class Function:
    """An inference server whose responses the test gives, one by one, as it gets requests."""

    def __init__(self) -> None:
        self.heads: asyncio.Queue[bytes] = asyncio.Queue()
        self.responses: asyncio.Queue[bytes] = asyncio.Queue()
        self.left = asyncio.Event()

    async def serve(self, peer: Peer) -> None:
        try:
            while True:
                head = await peer.head()
                self.heads.put_nowait(head)
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                await peer.reader.readexactly(int(length or 0))
                waits = spawn(peer.reader.read(1), "function.left")
                response = spawn(self.responses.get(), "function.response")
                await asyncio.wait({waits, response}, return_when=asyncio.FIRST_COMPLETED)
                if waits.done():
                    response.cancel()
                    break
                waits.cancel()
                await asyncio.wait({waits})
                await peer.send(response.result())
        finally:
            self.left.set()


def whole(status: bytes, body: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        kind,
        len(body),
        body,
    )


def begin(
    agent: Agent, headers: tuple[tuple[bytes, bytes], ...] = (), **more: object
) -> tuple[Expected, HandLease]:
    expected = agent.gateway.expect()
    envelope = expected.envelope(headers=headers, is_polled=True, **more)  # type: ignore[arg-type]
    return expected, agent.lease(envelope)


def poll(agent: Agent, first: Expected, *, window: bytes = b"60") -> Expected:
    """Poll as the gateway process does; the poll has to be acknowledged."""
    expected = agent.gateway.expect(first.request_id)
    headers = ((b"nvcf-poll-seconds", window),)
    assert agent.queue.poll(first.request_id, expected.envelope(b"GET", headers=headers))
    return expected


async def test_an_ordinary_response_is_the_functions_own(tmp_path: Path) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        expected, lease = begin(agent)
        head = await function.heads.get()
        folder = tmp_path / "output" / expected.request_id
        assert folder.stat().st_mode & 0o777 == 0o777
        assert b"Content-Type: application/json\r\n" in head
        assert f"NVCF-LARGE-OUTPUT-DIR: {folder}\r\n".encode() in head
        function.responses.put_nowait(OK)
        assert await agent.answer(expected, lease) == (200, b"{}")
        await until(lambda: not folder.exists())
        await until(lambda: agent.slots.running == agent.slots.jobs == 0)
        assert agent.compat is not None
        await until(lambda: agent.compat is not None and not agent.compat.progress.is_running)


async def test_a_client_whose_window_ends_asks_again_and_gets_the_response(tmp_path: Path) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        first, lease = begin(agent, NO_WINDOW)
        status, headers, body = await first.completed()
        assert (status, headers[b"content-length"], body) == (202, b"0", b"")
        assert lease.calls == []
        assert agent.slots.running == 1
        second = poll(agent, first, window=b"0")
        assert (await second.completed())[0] == 202
        third = poll(agent, first)
        function.responses.put_nowait(OK)
        assert await agent.answer(third, lease) == (200, b"{}")
        assert agent.queue.polls == {}


async def test_a_response_that_comes_between_two_polls_waits_for_the_next(tmp_path: Path) -> None:
    """So does an error, which would vanish with the token of the first client."""
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        first, lease = begin(agent, NO_WINDOW)
        await first.completed()
        function.responses.put_nowait(
            whole(b"500 Internal Server Error", b'{"error": "no memory"}')
        )
        await until(lambda: agent.slots.running == 0)
        assert lease.calls == []
        second = poll(agent, first)
        status, body = await agent.answer(second, lease)
        assert (status, json.loads(body)["detail"]) == (500, "no memory")


async def test_a_lost_inference_server_is_reported_to_the_next_poll(tmp_path: Path) -> None:
    async def serve(peer: Peer) -> None:
        await peer.head()
        await may_break.wait()

    may_break = asyncio.Event()
    async with running_agent(serve, folder=tmp_path) as agent:
        first, lease = begin(agent, NO_WINDOW)
        await first.completed()
        may_break.set()
        await until(lambda: agent.slots.running == 0)
        second = poll(agent, first)
        status, body = await agent.answer(second, lease)
        assert status == 500
        assert json.loads(body)["detail"] == "Internal error while making inference request"


async def test_errors_are_problem_documents(tmp_path: Path) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        expected, lease = begin(agent)
        function.responses.put_nowait(
            whole(b"429 Too Many Requests", b'{"error": {"message": "slow down"}}')
        )
        await expected.completed()
        status, headers, body = expected.response()
        await lease.ended.wait()
        assert (status, headers[b"content-type"]) == (429, b"application/problem+json")
        document = json.loads(body)
        assert document["type"] == "urn:inference-service:problem-details:too-many-requests"
        assert (document["title"], document["status"]) == ("Too Many Requests", 429)
        assert document["detail"] == "Inference error"


async def test_an_event_stream_is_not_buffered(tmp_path: Path) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        expected, lease = begin(agent, ((b"accept", b"Text/Event-Stream; q=1"),))
        function.responses.put_nowait(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n8\r\ndata: 1\n\r\n"
        )
        await expected.body_reaches(b"data: 1")
        assert not expected.is_complete
        function.responses.put_nowait(b"")
        agent.intake.on_cancel(expected.request_id)
        await lease.ended.wait()


async def test_progress_is_told_once_each_time_and_only_while_it_is_news(tmp_path: Path) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        first, lease = begin(agent)
        await function.heads.get()
        folder = tmp_path / "output" / first.request_id

        def write(percent: object, request_id: str = first.request_id) -> None:
            document = {"id": request_id, "progress": percent, "partialResponse": {"n": percent}}
            (folder / "new").write_text(json.dumps(document))
            (folder / "new").rename(folder / "progress")

        client = first
        for percent in (15, 45, 75):
            write(percent)
            status, headers, body = await client.completed()
            assert (status, headers[b"content-type"]) == (202, b"application/json")
            assert headers[b"nvcf-percent-complete"] == b"%d" % percent
            assert body == b'{"n":%d}' % percent
            client = poll(agent, first)
        (folder / "progress").write_text("{")
        write(-1)
        write(1.5)
        write(80, "not-a-request")
        function.responses.put_nowait(OK)
        assert await agent.answer(client, lease) == (200, b"{}")


async def test_a_client_that_left_before_its_window_ended_ends_the_request(tmp_path: Path) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        first, lease = begin(agent)
        first.answer(401)
        await function.heads.get()
        news = {"id": first.request_id, "progress": 1}
        (tmp_path / "output" / first.request_id / "progress").write_text(json.dumps(news))
        await lease.ended.wait()
        assert lease.calls == ["ack"]
        await function.left.wait()


async def test_a_malformed_poll_is_passed_over(tmp_path: Path) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        first, lease = begin(agent, NO_WINDOW)
        await first.completed()
        assert not agent.queue.poll(first.request_id, b"\xff\xff")
        other = agent.gateway.expect()
        assert not agent.queue.poll(first.request_id, other.envelope(b"GET"))
        second = poll(agent, first)
        function.responses.put_nowait(OK)
        assert await agent.answer(second, lease) == (200, b"{}")


async def test_nobody_is_told_to_ask_again_where_polls_would_not_be_heard(tmp_path: Path) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        agent.queue.is_up = False
        first, lease = begin(agent, NO_WINDOW)
        await function.heads.get()
        function.responses.put_nowait(OK)
        assert await agent.answer(first, lease) == (200, b"{}")


async def test_a_request_that_has_waited_too_long_is_not_begun(tmp_path: Path) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        expected, lease = begin(agent, age_s=3600.0)
        status, body = await agent.answer(expected, lease)
        assert status == 500
        assert json.loads(body)["detail"] == "Internal error while making inference request"
        assert agent.server.connections == 0
        on_time, lease = begin(agent, age_s=0.5)
        function.responses.put_nowait(OK)
        assert await agent.answer(on_time, lease) == (200, b"{}")


async def test_every_poll_is_a_request_if_the_inference_server_itself_says_202(
    tmp_path: Path,
) -> None:
    function = Function()
    passed = ((b"nvcf-feature-disable-worker-compatibility", b"true"),)
    async with running_agent(function.serve, folder=tmp_path) as agent:
        client, lease = begin(agent, passed, path=b"/jobs", body=b"job")
        request_id = client.request_id
        first = client
        assert (await function.heads.get()).startswith(b"POST /jobs ")
        for number in range(10):
            function.responses.put_nowait(whole(b"202 Accepted", b"%d" % number))
            status, _, body = await client.completed()
            assert (status, body) == (202, b"%d" % number)
            assert lease.calls == []
            client = poll(agent, first)
            head = await function.heads.get()
            assert head.startswith(b"GET /jobs ")
            assert f"NVCF-REQID: {request_id}\r\n".encode() in head
        function.responses.put_nowait(whole(b"201 Created", b"all"))
        assert await agent.answer(client, lease) == (201, b"all")
        await until(lambda: agent.slots.running == agent.slots.jobs == 0)


async def test_a_202_is_final_where_no_poll_will_come(tmp_path: Path) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope())
        assert b"polled" not in (await function.heads.get()).lower()
        function.responses.put_nowait(whole(b"202 Accepted", b"{}"))
        assert await agent.answer(expected, lease) == (202, b"{}")


async def test_a_cancel_ends_everything(tmp_path: Path) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        first, lease = begin(agent, NO_WINDOW)
        await function.heads.get()
        await first.completed()
        folder = tmp_path / "output" / first.request_id
        agent.intake.on_cancel(first.request_id)
        await lease.ended.wait()
        await function.left.wait()
        await until(lambda: not folder.exists())
        assert agent.queue.polls == {}


async def test_a_folder_that_cannot_be_made_fails_the_request(tmp_path: Path) -> None:
    function = Function()
    (tmp_path / "output").write_text("a file")
    async with running_agent(function.serve, folder=tmp_path) as agent:
        expected, lease = begin(agent)
        status, body = await agent.answer(expected, lease)
        document = json.loads(body)
        assert (status, document["detail"]) == (500, "Internal error while preparing for inference")
        assert document["type"] == "urn:nvcf-worker-service:problem-details:internal-server-error"
        assert agent.server.connections == 0


async def test_a_call_that_comes_again_at_once_keeps_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is slow to remove that of its first run, which has the same name."""
    may_go = threading.Event()

    def slowly(folder: Path) -> None:
        may_go.wait()
        remove_folder(folder)

    monkeypatch.setattr(call, "remove_folder", slowly)
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        first, lease = begin(agent)
        folder = tmp_path / "output" / first.request_id
        await function.heads.get()
        (folder / "left").write_text("by the first run")
        function.responses.put_nowait(whole(b"500 Internal Server Error", b""))
        await agent.answer(first, lease)
        again = agent.gateway.expect(first.request_id)
        lease = agent.lease(again.envelope(is_polled=True))
        await asyncio.sleep(0)
        may_go.set()
        await function.heads.get()
        assert list(folder.iterdir()) == []
        function.responses.put_nowait(OK)
        assert await agent.answer(again, lease) == (200, b"{}")
        await until(lambda: not folder.exists())


async def test_a_task_that_fails_in_an_unforeseen_way_fails_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unforeseen(folder: Path) -> list[Path]:
        raise RecursionError(folder)

    monkeypatch.setattr(call, "artifacts", unforeseen)
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        expected, lease = begin(agent)
        function.responses.put_nowait(OK)
        assert (await agent.answer(expected, lease))[0] == 500


@pytest.mark.parametrize("window", [(), NO_WINDOW])
async def test_a_run_ends_when_its_client_said_whoever_polls_then(
    tmp_path: Path, window: tuple[tuple[bytes, bytes], ...]
) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        client, lease = begin(agent, (*window, (b"nvcf-run-seconds", b"1")))
        await function.heads.get()
        if window:
            assert (await client.completed())[0] == 202
            client = poll(agent, client)
        status, body = await agent.answer(client, lease)
        assert (status, json.loads(body)["reason"]) == (504, "run_timeout")
        await function.left.wait()
        await until(lambda: agent.slots.running == agent.slots.jobs == 0)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_not_in_the_envelope_reaches_the_function_whole(
    tmp_path: Path,
    announced: bool,
) -> None:
    """Ten lines after an empty and after a full first part."""
    lines = [b"line %d\n" % number for number in range(10)]
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(peer: Peer) -> None:
        head = await peer.head()
        if announced:
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            body = await peer.reader.readexactly(int(length))
        else:
            body = b""
            while size := int(await peer.reader.readline(), 16):
                body += await peer.reader.readexactly(size)
                await peer.reader.readline()
            await peer.reader.readline()
        got.put_nowait(body)
        await peer.send(OK)

    async with running_agent(serve, folder=tmp_path) as agent:
        first = bytes(INLINE_BODY_BYTES) if announced else b""
        length = (b"content-length", b"%d" % (len(first) + len(b"".join(lines))))
        expected, lease = begin(
            agent, (length,) if announced else (), body=first, has_rest=True, path=b"/count"
        )
        if announced:
            expected.rest_length = len(b"".join(lines))
        for line in [*lines, b""]:
            expected.rest.put_nowait(line)
        assert await agent.answer(expected, lease) == (200, b"{}")
        assert await got.get() == first + b"".join(lines)


async def test_many_at_once_each_get_their_own_response(tmp_path: Path) -> None:
    async def serve(peer: Peer) -> None:
        while True:
            head = await peer.head()
            path = head.split(b" ", 2)[1]
            await peer.send(whole(b"200 OK", path))

    async with running_agent(serve, concurrency=20, folder=tmp_path) as agent:

        async def call(number: int) -> None:
            path = b"/%d" % number
            expected, lease = begin(agent, path=path)
            assert await agent.answer(expected, lease) == (200, path)

        for number in range(20):
            await call(number)
        for _ in range(5):
            await asyncio.gather(*map(call, range(20)))
        await until(lambda: agent.slots.running == agent.slots.jobs == 0)
        await until(lambda: os.listdir(tmp_path / "output") == [".lock"])


async def test_an_event_stream_and_its_body_flow_both_ways(tmp_path: Path) -> None:
    """Each pong arrives before the next ping is sent."""

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        while size := int(await peer.reader.readline(), 16):
            ping = (await peer.reader.readexactly(size + 2))[:-2]
            await peer.send(b"%x\r\npong %b\n\r\n" % (len(ping) + 6, ping))
        await peer.send(b"0\r\n\r\n")

    async with running_agent(serve, folder=tmp_path) as agent:
        expected, lease = begin(agent, ((b"accept", b"text/event-stream"),), has_rest=True)
        for number in range(10):
            expected.rest.put_nowait(b"ping %d" % number)
            await expected.body_reaches(b"pong ping %d\n" % number)
        expected.rest.put_nowait(b"")
        status, _ = await agent.answer(expected, lease)
        assert status == 200


async def test_calls_that_are_polled_end_before_the_agent_does(tmp_path: Path) -> None:
    """A drain begins while the fourth of five has its response; later requests are refused."""
    function = Function()
    async with running_agent(function.serve, concurrency=5, folder=tmp_path) as agent:
        calls = [begin(agent, NO_WINDOW) for _ in range(5)]
        for first, _ in calls:
            await first.completed()
        polls = [poll(agent, first) for first, _ in calls]
        for _ in range(4):
            function.responses.put_nowait(OK)
        await until(lambda: sum(one.is_complete for one in polls) == 4)
        agent.intake.pause()
        drain = spawn(agent.intake.wait_drained(), "drain")
        for _ in range(5):
            _, refused = begin(agent)
            await refused.ended.wait()
            assert refused.calls == ["nak"]
        assert not drain.done()
        function.responses.put_nowait(OK)
        await drain
        assert [(await one.completed())[0] for one in polls] == [200] * 5
        assert [lease.calls[-1] for _, lease in calls] == ["ack"] * 5


@asynccontextmanager
async def objects() -> AsyncIterator[tuple[str, dict[str, bytes], list[int]]]:
    """Run an object store: yields its URL, its objects, and statuses to respond with first."""
    stored: dict[str, bytes] = {}
    statuses: list[int] = []

    async def serve(request: web.Request) -> web.Response:
        if statuses:
            return web.Response(status=statuses.pop(0))
        name = request.path[1:]
        if request.method == "PUT":
            assert request.content_length is not None
            assert request.content_type == "application/zip"
            stored[name] = await request.read()
            return web.Response()
        if name not in stored:
            return web.Response(status=404)
        return web.Response(body=stored[name])

    app = web.Application(client_max_size=1 << 28)
    app.router.add_route("*", "/{name:.*}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}", stored, statuses
    finally:
        await runner.cleanup()


async def test_assets_are_there_before_the_request_and_gone_after_it(tmp_path: Path) -> None:
    function = Function()
    async with (
        objects() as (url, stored, statuses),
        running_agent(function.serve, folder=tmp_path) as agent,
    ):
        stored["a"] = b"x" * 300_000
        statuses += [503]
        fields = encode_assets([(ASSET_ID, f"{url}/a", "text/plain")])
        expected, lease = begin(agent, fields=fields)
        head = await function.heads.get()
        file = tmp_path / "assets" / expected.request_id / ASSET_ID
        assert file.read_bytes() == stored["a"]
        assert f"NVCF-FUNCTION-ASSET-IDS: {ASSET_ID}\r\n".encode() in head
        assert f"NVCF-ASSET-DIR: {file.parent}\r\n".encode() in head
        function.responses.put_nowait(OK)
        assert await agent.answer(expected, lease) == (200, b"{}")
        await until(lambda: not file.parent.exists())


async def test_a_request_without_its_assets_fails(tmp_path: Path) -> None:
    function = Function()
    async with (
        objects() as (url, stored, _),
        running_agent(function.serve, folder=tmp_path) as agent,
    ):
        stored["large"] = bytes((1 << 20) + 1)
        for asset_id, name in (
            (ASSET_ID, f"{url}/none"),
            (ASSET_ID, f"{url}/large"),
            (ASSET_ID, "http://127.0.0.1:1/refused"),
        ):
            expected, lease = begin(agent, fields=encode_assets([(asset_id, name, "")]))
            status, body = await agent.answer(expected, lease)
            detail = json.loads(body)["detail"]
            assert (status, detail) == (500, "Internal error while downloading assets")
        expected, lease = begin(agent, fields=encode_assets([("../../x", f"{url}/none", "")]))
        assert (await agent.answer(expected, lease))[0] == 500
        assert agent.server.connections == 0


async def test_a_large_response_is_stored_with_the_functions_files(tmp_path: Path) -> None:
    function = Function()
    async with (
        objects() as (url, stored, statuses),
        running_agent(function.serve, folder=tmp_path) as agent,
    ):
        agent.gateway.large_response_urls = {
            "uploadUrl": f"{url}/large",
            "downloadUrl": f"{url}/large?signed",
        }
        expected, lease = begin(agent)
        await function.heads.get()
        folder = tmp_path / "output" / expected.request_id
        (folder / "deep").mkdir()
        (folder / "deep" / "image.png").write_bytes(b"png")
        (folder / "progress").write_text("{}")
        body = time.time_ns().to_bytes(8, "big") * 800_000
        statuses += [500]
        function.responses.put_nowait(whole(b"200 OK", body, b"image/png"))
        await expected.completed()
        status, headers, rest = expected.response()
        assert (status, headers[b"location"], rest) == (302, f"{url}/large?signed".encode(), b"")
        await lease.ended.wait()
        with zipfile.ZipFile(BytesIO(stored["large"])) as archive:
            assert archive.namelist() == [f"{expected.request_id}.response", "deep/image.png"]
            assert archive.read(f"{expected.request_id}.response") == body
        await until(lambda: not folder.exists())


async def test_a_large_response_without_a_store_is_an_error(tmp_path: Path) -> None:
    function = Function()
    async with running_agent(function.serve, folder=tmp_path) as agent:
        expected, lease = begin(agent)
        function.responses.put_nowait(whole(b"200 OK", bytes(6_000_000)))
        status, body = await agent.answer(expected, lease)
        assert status == 500
        assert json.loads(body)["detail"] == "Internal error while making inference request"
