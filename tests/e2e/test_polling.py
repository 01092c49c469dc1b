"""NVCF's polling routes, with a worker that does what the test says."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from runtime.ids import new_uuid
from tests.support.polling_worker import PollingWorker, polling_worker
from tests.support.stack import Gateway, Stack, metrics, register, start
from tests.support.waiting import PATIENCE_S, until

PEXEC, EXEC = "/v2/nvcf/pexec", "/v2/nvcf/exec"
pytestmark = pytest.mark.asyncio(loop_scope="module")


class World:
    """A gateway and a function without a worker, until the test makes one."""

    def __init__(self, stack: Stack, gateway: Gateway, settings: dict[str, str]) -> None:
        self.stack = stack
        self.settings = settings
        self.gateway = gateway
        self.function = f"/functions/{stack.demo.function_id}"
        self.http = httpx.AsyncClient(
            base_url=gateway.url,
            headers={"authorization": f"Bearer {stack.demo.api_key}"},
            timeout=PATIENCE_S,
        )

    def call(
        self, kind: str = PEXEC, body: object = None, **headers: str
    ) -> "asyncio.Task[httpx.Response]":
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return start(self.http.post(kind + self.function, json=body or {}, headers=named))

    def poll(
        self, request_id: str, kind: str = PEXEC, seconds: int = 60
    ) -> "asyncio.Task[httpx.Response]":
        headers = {"nvcf-poll-seconds": str(seconds)}
        return start(self.http.get(f"{kind}/status/{request_id}", headers=headers))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="stack-") as folder:
        stack = Stack(Path(folder))
        try:
            await stack.nats.start()
            stack.demo = await register(stack.nats.url)
            settings = {"OBJECTS__FOLDER": f"{folder}/objects", "QUEUE__LEASE_S": "30"}
            gateway = await asyncio.to_thread(stack.gateway, **settings)
            found = World(stack, gateway, settings)
            yield found
            await found.http.aclose()
        finally:
            await stack.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def worker(world: World) -> AsyncIterator[PollingWorker]:
    async with (
        asyncio.timeout(PATIENCE_S),
        polling_worker(world.stack.nats.url, world.stack.demo.version_id) as found,
    ):
        yield found


async def test_a_call_by_path_gets_the_response_of_the_inference_path(
    world: World, worker: PollingWorker
) -> None:
    call = world.call(body={"a": 1}, nvcf_poll_seconds="5")
    lease, envelope = await worker.take()
    assert (envelope.method, envelope.path, envelope.body) == (b"POST", b"/", b'{"a":1}')
    headers = dict(envelope.headers)
    assert headers[b"nvcf-poll-seconds"] == b"3600"
    assert headers[b"nvcf-invocation-region"] == b"local"
    assert b"nvcf-feature-disable-worker-compatibility" not in headers
    assert (await worker.respond(envelope, 201, b"made", x_own="1")).status_code == 200
    lease.ack()
    response = await call
    assert (response.status_code, response.content) == (201, b"made")
    assert response.headers["x-own"] == "1"
    assert response.headers["nvcf-status"] == "fulfilled"
    assert response.headers["nvcf-reqid"] == lease.request_id
    # The client has it: it is not kept.
    assert (await world.poll(lease.request_id)).status_code == 404
    found = await metrics(world.gateway.admin_url)
    called = f'method="POST",endpoint="{PEXEC}/functions/{{functionId}}"'
    assert found[f"axum_http_requests_pending{{{called}}}"] == 0


async def test_progress_reaches_a_client_at_the_end_of_its_window_and_the_result_at_once(
    world: World, worker: PollingWorker
) -> None:
    call = world.call(nvcf_poll_seconds="1")
    lease, envelope = await worker.take()
    sent = await worker.respond(
        envelope, 202, b'{"part":1}', nvcf_percent_complete="45", content_type="application/json"
    )
    assert sent.status_code == 200
    poll = await worker.polled()
    assert (poll.method, poll.path, poll.body) == (b"GET", b"/", b"")
    assert poll.request_id == lease.request_id
    response = await call
    assert (response.status_code, response.json()) == (202, {"part": 1})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["nvcf-status"] == "in-progress"
    assert response.headers["nvcf-percent-complete"] == "45"
    assert response.headers["location"] == f"{PEXEC}/status/{lease.request_id}"
    waiting = world.poll(response.headers["nvcf-reqid"])
    enveloped = world.poll(response.headers["nvcf-reqid"], EXEC)
    await worker.respond(poll, 200, b'{"all":2}', content_type="application/json")
    lease.ack()
    assert (await waiting).json() == {"all": 2}
    assert (await enveloped).json() == {
        "reqId": lease.request_id,
        "status": "fulfilled",
        "percentComplete": 100,
        "response": {"all": 2},
    }


async def test_a_call_that_waits_in_line_is_in_progress_too(world: World) -> None:
    response = await world.call(nvcf_poll_seconds="1")
    assert (response.status_code, response.json()) == (202, {})
    assert "nvcf-percent-complete" not in response.headers
    request_id = response.headers["nvcf-reqid"]
    waiting = world.poll(request_id)
    async with (
        asyncio.timeout(PATIENCE_S),
        polling_worker(world.stack.nats.url, world.stack.demo.version_id) as worker,
    ):
        lease, envelope = await worker.take()
        assert lease.request_id == request_id
        await worker.respond(envelope, 200, b"here")
        lease.ack()
    assert (await waiting).content == b"here"


async def test_a_result_that_nobody_waits_for_stays(world: World, worker: PollingWorker) -> None:
    call = world.call(nvcf_poll_seconds="1")
    lease, envelope = await worker.take()
    response = await call
    await worker.respond(envelope, 200, b"late")
    lease.ack()
    for _ in range(2):
        assert (await world.poll(response.headers["nvcf-reqid"])).content == b"late"


async def test_a_poll_reaches_the_process_that_holds_the_call_and_hears_of_its_death(
    world: World, worker: PollingWorker
) -> None:
    holder = await asyncio.to_thread(world.stack.gateway, **world.settings)
    async with httpx.AsyncClient(
        base_url=holder.url, headers=world.http.headers, timeout=PATIENCE_S
    ) as there:
        headers = {"nvcf-poll-seconds": "1"}
        first, second = [
            await there.post(PEXEC + world.function, json={}, headers=headers) for _ in range(2)
        ]
    assert (first.status_code, second.status_code) == (202, 202)
    waiting = [
        world.poll(first.headers["nvcf-reqid"]),
        world.poll(first.headers["nvcf-reqid"], EXEC),
        world.poll(second.headers["nvcf-reqid"]),
    ]
    lease, envelope = await worker.take()
    assert lease.request_id == first.headers["nvcf-reqid"]
    await worker.respond(envelope, 200, b"[1]")
    lease.ack()
    assert (await waiting[0]).content == b"[1]"
    assert (await waiting[1]).json()["response"] == [1]
    other, _ = await worker.take()

    async def state() -> str:
        view = await world.http.get(f"/v2/requests/{lease.request_id}")
        return str(view.json()["state"])

    assert await until(state, lambda found: found == "done")
    holder.program.process.kill()
    lost = await waiting[2]
    assert (lost.status_code, lost.json()["reason"]) == (410, "holder_lost")
    # What was finished is not lost with its holder.
    assert (await world.poll(first.headers["nvcf-reqid"])).content == b"[1]"
    kept = await world.poll(first.headers["nvcf-reqid"], EXEC)
    assert kept.json()["response"] == [1]
    gone = await world.poll(second.headers["nvcf-reqid"], EXEC)
    assert (gone.status_code, gone.json()["reason"]) == (410, "holder_lost")
    other.ack()


async def test_a_client_that_leaves_before_it_has_an_id_cancels_its_call(
    world: World, worker: PollingWorker
) -> None:
    call = world.call()
    lease, _ = await worker.take()
    call.cancel()
    assert await worker.cancelled() == lease.request_id
    lease.ack()
    assert (await world.poll(lease.request_id)).status_code == 404


async def test_a_worker_that_takes_no_question_is_504(world: World, worker: PollingWorker) -> None:
    call = world.call()
    lease, envelope = await worker.take_deaf()
    await worker.respond(envelope, 202)
    response = await call
    assert response.status_code == 504
    assert response.json()["detail"] == "The worker did not acknowledge the status request"
    lease.ack()


async def test_a_request_that_is_delivered_again_after_a_202_has_lost_its_worker(
    world: World, worker: PollingWorker
) -> None:
    call = world.call()
    lease, envelope = await worker.take()
    await worker.respond(envelope, 202)
    await worker.polled()
    # Another worker has it, and asks as that envelope says.
    assert await worker.may_run(envelope, deliveries=2) == 410
    response = await call
    assert (response.status_code, response.json()["reason"]) == (502, "worker_lost")
    lease.ack()


async def test_events_come_as_they_are_sent_and_have_no_window(
    world: World, worker: PollingWorker
) -> None:
    headers = {"accept": "text/event-stream", "nvcf-poll-seconds": "1"}
    request = world.http.build_request("POST", PEXEC + world.function, json={}, headers=headers)
    call = start(world.http.send(request, stream=True))
    lease, envelope = await worker.take()
    go_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n"
        await go_on.wait()
        yield b"data: 2\n\n"

    posting = start(worker.post(envelope, body()))
    response = await call
    events = response.aiter_bytes()
    assert await anext(events) == b"data: 1\n\n"
    go_on.set()
    assert [event async for event in events] == [b"data: 2\n\n"]
    assert (await posting).status_code == 200
    lease.ack()


async def test_a_large_response_is_elsewhere(world: World, worker: PollingWorker) -> None:
    for kind, status in ((PEXEC, 302), (EXEC, 200)):
        call = world.call(kind, {"requestBody": {}})
        lease, envelope = await worker.take()
        await worker.respond(envelope, 302, location="https://o.example/x")
        lease.ack()
        response = await call
        assert response.status_code == status
        if kind == PEXEC:
            assert response.headers["location"] == "https://o.example/x"
        else:
            assert response.json()["responseReference"] == "https://o.example/x"


async def test_an_envelope_is_for_the_gateway(world: World, worker: PollingWorker) -> None:
    wanted = {"requestHeader": {"pollDurationSeconds": 1}, "requestBody": [1, 2]}
    call = world.call(EXEC, wanted, x_sideko_sdk_language="Python")
    lease, envelope = await worker.take()
    assert envelope.body == b"[1,2]"
    response = await call
    assert response.status_code == 202
    assert response.json() == {"reqId": lease.request_id, "status": "in-progress"}
    await worker.respond(envelope, 422, b'{"detail":"no"}')
    lease.ack()
    failed = await world.poll(lease.request_id, EXEC)
    assert failed.status_code == 422
    assert failed.json()["response"] == {"detail": "no"}
    call = world.call(EXEC, {"requestBody": {}}, x_sideko_sdk_language="Python")
    lease, envelope = await worker.take()
    await worker.respond(envelope, 200, b'{"a": 1}')
    lease.ack()
    assert json.loads((await call).json()["response"]) == {"a": 1}


async def test_what_cannot_be_is_refused(world: World) -> None:
    unknown = f"{PEXEC}/status/{new_uuid()}"
    called = PEXEC + world.function
    for method, path, headers, status in (
        ("GET", unknown, {}, 404),
        ("GET", f"{PEXEC}/status/x", {}, 400),
        ("POST", unknown, {}, 405),
        ("GET", called, {}, 405),
        ("POST", f"{PEXEC}/functions/x", {}, 400),
        ("POST", f"{PEXEC}/functions/{new_uuid()}", {}, 404),
        ("POST", f"{called}/versions/{new_uuid()}", {}, 404),
        ("POST", called, {"authorization": "Bearer no"}, 401),
        ("GET", unknown, {"authorization": "Bearer no"}, 401),
        ("POST", called, {"nvcf-poll-seconds": "3601"}, 400),
        ("GET", unknown, {"nvcf-poll-seconds": "soon"}, 400),
        ("POST", called, {"nvcf-input-asset-references": "x"}, 400),
        ("POST", called, {"nvcf-input-asset-references": new_uuid()}, 404),
        ("POST", EXEC + world.function, {"content-length": "0"}, 400),
        ("GET", f"{EXEC}/x", {}, 404),
    ):
        response = await world.http.request(method, path, headers=headers)
        assert response.status_code == status, (method, path, headers, response.text)
        assert response.headers["content-type"] == "application/problem+json"
        if status == 405:
            assert response.headers["allow"] in ("GET, OPTIONS", "POST, OPTIONS")


async def test_another_account_sees_nothing(world: World, worker: PollingWorker) -> None:
    call = world.call(nvcf_poll_seconds="1")
    lease, envelope = await worker.take()
    assert (await call).status_code == 202
    await worker.respond(envelope, 200, b"mine")
    lease.ack()
    other = await register(world.stack.nats.url, account="another")
    headers = {"authorization": f"Bearer {other.api_key}"}

    async def status() -> int:
        path = f"{PEXEC}/status/{lease.request_id}"
        return (await world.http.get(path, headers=headers)).status_code

    assert await until(status, lambda found: found != 401) == 404


async def test_pages_may_call_every_route_and_metrics_name_the_routes(world: World) -> None:
    asks = {"origin": "https://page", "access-control-request-method": "POST"}
    for path in (
        PEXEC + world.function,
        f"{EXEC}{world.function}/versions/{world.stack.demo.version_id}",
        f"{PEXEC}/status/{new_uuid()}",
        f"{EXEC}/status/{new_uuid()}",
    ):
        response = await world.http.options(path, headers=asks)
        assert response.status_code == 204
        assert response.headers["access-control-allow-origin"] == "*"
        assert response.headers["access-control-max-age"] == "86400"
        plain = await world.http.options(path)
        assert plain.status_code == 204
        assert "OPTIONS" in plain.headers["allow"]
    response = await world.http.get(
        f"{PEXEC}/status/{new_uuid()}", headers={"origin": "https://page"}
    )
    assert response.headers["access-control-allow-origin"] == "*"
    found = await metrics(world.gateway.admin_url)
    route = f'endpoint="{PEXEC}/status/{{requestId}}"'
    assert any(route in name and 'status="404"' in name for name in found)
