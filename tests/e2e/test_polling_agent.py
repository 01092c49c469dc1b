"""NVCF's polling routes through the project's own worker agent."""

import asyncio
import json
import tempfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path

import httpx
import pytest

from runtime.tasks import spawn
from tests.support.raw_server import HEALTHY, Peer, RawServer
from tests.support.redis_server import running_redis_server
from tests.support.stack import Stack, register, start
from tests.support.waiting import PATIENCE_S, until

PEXEC, EXEC = "/v2/nvcf/pexec", "/v2/nvcf/exec"


def response(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


class Reporting:
    """An inference server that tells of its progress, and responds when told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.go_on = asyncio.Event()
        self.left = asyncio.Event()
        self.request_ids: list[str] = []
        self.bodies: list[bytes] = []
        self.methods: list[bytes] = []
        self.answer = response(200, b'{"all":2}')
        self.assets: list[tuple[str, bytes]] = []
        """Paths and contents of the input assets, as the headers of requests name them."""
        self.server = RawServer(self._serve)

    async def _serve(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            if b" /health " in head:
                await peer.send(HEALTHY)
                continue
            lines = [line.partition(": ") for line in head.decode().split("\r\n")]
            values = {name.lower(): value for name, _, value in lines}
            self.methods.append(head.partition(b" ")[0])
            self.bodies.append(await peer.reader.readexactly(int(values.get("content-length", 0))))
            for asset_id in filter(None, values.get("nvcf-function-asset-ids", "").split(",")):
                path = Path(values["nvcf-asset-dir"]) / asset_id
                self.assets.append((str(path), path.read_bytes()))
            self.request_ids.append(values["nvcf-reqid"])
            waiting = spawn(self.go_on.wait(), "go on")
            gone = spawn(peer.reader.read(1), "gone")
            await asyncio.wait([waiting, gone], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                self.left.set()
                return
            gone.cancel()
            await asyncio.wait([gone])
            await peer.send(self.answer)

    def report(self, percent: int, partial: object) -> None:
        """Write the progress file of the last request, as functions do."""
        request_id = self.request_ids[-1]
        document = {"id": request_id, "progress": percent, "partialResponse": partial}
        path = self.folder / request_id / "progress"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(document))
        temporary.rename(path)


class World:
    def __init__(self, stack: Stack, inference: Reporting, http: httpx.AsyncClient) -> None:
        self.stack = stack
        self.inference = inference
        self.http = http
        self.function = f"/functions/{stack.demo.function_id}"

    def call(self, kind: str, body: object, **headers: str) -> "asyncio.Task[httpx.Response]":
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return start(self.http.post(kind + self.function, json=body, headers=named))

    async def new_asset(self, content: bytes) -> str:
        """Upload an input asset; return its id."""
        made = await self.http.post(
            "/v2/nvcf/assets", json={"contentType": "text/plain", "description": "an input"}
        )
        async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
            sent = await http.put(
                made.json()["uploadUrl"],
                content=content,
                headers={
                    "content-type": "text/plain",
                    "x-amz-meta-nvcf-asset-description": "an input",
                },
            )
        assert sent.status_code == 200
        return str(made.json()["assetId"])

    async def runs(self) -> str:
        """Return the id of the next request at the inference server."""
        count = len(self.inference.request_ids)
        await until(lambda: len(self.inference.request_ids) > count)
        return self.inference.request_ids[-1]


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """``param`` is the way of the calls: "queued", "direct", or "redis", which is queued too."""
    with tempfile.TemporaryDirectory(prefix="stack-") as folder:
        stack = Stack(Path(folder))
        (output := Path(folder) / "output").mkdir()
        inference = Reporting(output)
        async with AsyncExitStack() as cleanup:
            cleanup.push_async_callback(stack.stop)
            cleanup.callback(inference.server.stop)
            await stack.nats.start()
            await inference.server.start()
            settings: dict[str, str] = {}
            if request.param == "redis":
                server = await cleanup.enter_async_context(running_redis_server())
                settings = {"QUEUE__BACKEND": "redis", "REDIS__URLS": server.url}
            stack.demo = await register(settings.get("REDIS__URLS", stack.nats.url))
            gateway = await asyncio.to_thread(
                stack.gateway,
                ROLES="invocation,api",
                CONTROL__SECRETS_KEY_FILE=f"{folder}/master.key",
                QUEUE__DIRECT=str(request.param == "direct").lower(),
                STORE__BACKEND="redis" if settings else "nats",
                OBJECTS__FOLDER=f"{folder}/objects",
                **settings,
            )
            await asyncio.to_thread(
                stack.agent,
                INFERENCE__PORT=str(inference.server.port),
                INFERENCE__LARGE_OUTPUT_DIR=str(output),
                INFERENCE__ASSET_DIR=f"{folder}/assets",
                INFERENCE__MAX_CONCURRENCY="1",
                **settings,
            )
            key = f"Bearer {stack.demo.api_key}"
            async with (
                asyncio.timeout(PATIENCE_S),
                httpx.AsyncClient(
                    base_url=gateway.url, headers={"authorization": key}, timeout=PATIENCE_S
                ) as http,
            ):
                if request.param == "direct":
                    # The first call opens the channel.
                    inference.go_on.set()
                    await http.post(f"{PEXEC}/functions/{stack.demo.function_id}", json={})
                    inference.go_on.clear()
                yield World(stack, inference, http)


@pytest.mark.parametrize("world", ["queued", "direct", "redis"], indirect=True)
async def test_progress_then_result_and_errors_and_a_client_that_leaves(world: World) -> None:
    inference = world.inference
    call = world.call(PEXEC, {"a": 1}, nvcf_poll_seconds="1")
    request_id = await world.runs()
    assert inference.bodies[-1] == b'{"a":1}'
    inference.report(45, {"part": 1})
    pending = await call
    assert (pending.status_code, pending.json()) == (202, {"part": 1})
    assert pending.headers["nvcf-percent-complete"] == "45"
    assert pending.headers["nvcf-reqid"] == request_id
    waiting = start(world.http.get(f"{PEXEC}/status/{request_id}"))
    inference.go_on.set()
    assert (await waiting).json() == {"all": 2}

    inference.answer = response(422, b'{"error":"too long"}')
    failed = await world.call(EXEC, {"requestBody": {}})
    assert failed.status_code == 422
    assert failed.json()["errorCode"] == 422
    assert failed.json()["response"]["detail"] == "too long"

    inference.go_on.clear()
    call = world.call(PEXEC, {})
    await world.runs()
    call.cancel()
    await inference.left.wait()

    inference.left.clear()
    call = world.call(PEXEC, {}, cancel_after="run=1")
    request_id = await world.runs()
    inference.report(45, {"part": 1})
    ended = await call
    if ended.status_code == 202:
        ended = await world.http.get(f"{PEXEC}/status/{request_id}")
    assert (ended.status_code, ended.json()["reason"]) == (504, "run_timeout")
    await inference.left.wait()


@pytest.mark.parametrize("world", ["queued", "direct"], indirect=True)
async def test_a_202_of_the_inference_server_makes_the_gateway_ask_again(world: World) -> None:
    inference = world.inference
    before = len(inference.request_ids)
    inference.answer = response(202, b"{}")
    inference.go_on.set()
    call = world.call(
        PEXEC, {}, nvcf_poll_seconds="60", nvcf_feature_disable_worker_compatibility="true"
    )
    await until(lambda: len(inference.request_ids) >= before + 3)
    inference.answer = response(201, b'"made"')
    made = await call
    assert (made.status_code, made.json()) == (201, "made")
    assert len(set(inference.request_ids[before:])) == 1
    assert inference.methods[before:] == [
        b"POST",
        *[b"GET"] * (len(inference.methods) - before - 1),
    ]


@pytest.mark.parametrize("world", ["queued", "redis"], indirect=True)
async def test_input_assets_and_a_large_response(world: World) -> None:
    inference, http = world.inference, world.http
    inference.go_on.set()
    contents = [b"first", bytes(range(256)) * 2000]
    named = {
        "nvcf-input-asset-references": ",".join([await world.new_asset(one) for one in contents])
    }
    body = b"\x00\xff" * 3_000_000
    inference.answer = response(200, body)
    large = await http.post(PEXEC + world.function, json={}, headers=named)
    assert (large.status_code, large.content) == (302, b"")
    async with httpx.AsyncClient(timeout=PATIENCE_S) as anyone:
        stored = await anyone.get(large.headers["location"])
        assert (await anyone.get(large.headers["location"][:-1])).status_code == 403
    with zipfile.ZipFile(BytesIO(stored.content)) as archive:
        assert archive.read(f"{large.headers['nvcf-reqid']}.response") == body

    inference.answer = response(200, b"{}")
    by_host = await http.post(
        "/run", json={}, headers={**named, "function-id": world.stack.demo.function_id}
    )
    assert (by_host.status_code, by_host.content) == (200, b"{}")
    assert [content for _, content in inference.assets] == contents * 2
    for path, _ in inference.assets:
        await until(lambda path=path: not Path(path).exists())  # type: ignore[misc]
