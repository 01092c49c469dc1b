"""A stand-in for NVIDIA's worker, in the order of its own calls, with grpcio and nats-py.

NATS login by token ─▶ metadata credentials ─▶ ConnectOnce ─▶ subscribe to cancels
─▶ CONSUMER.INFO, ProvisionRegionalWorker if there is none ─▶ MSG.NEXT ─▶ POST attach ─▶ ack
"""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from runtime.tasks import spawn
from tests.support.nvcf_calls import NvcfCalls, NvcfIds, nvcf_calls
from tests.support.nvcf_nats import nvcf_token
from tests.support.waiting import PATIENCE_S
from wire.nvcf_pb2 import WorkerInvokeFunctionRequest


class NvcfWorker:
    """One worker that responds with its own name and the request's body.

    To a request with input assets it responds with these, as a large response.
    """

    def __init__(self, calls: NvcfCalls, client: Client, http: httpx.AsyncClient) -> None:
        self.calls = calls
        self.client = client
        self._http = http
        self.cancelled: list[str] = []
        self.answered = 0

    @property
    def name(self) -> str:
        return self.calls.ids.instance_id

    async def bind(self) -> JetStreamContext.PullSubscription:
        """Register, and find the queue."""
        await self.calls.metadata()
        session = await self.calls.connect_once()
        self.calls.token = session.nvcfWorkerToken
        version_id = self.calls.ids.version_id
        await self.client.subscribe(f"nvcf.cancel.{version_id}", cb=self._cancel)
        stream = f"rq_{session.connectedRegion}_{version_id}"
        jetstream = self.client.jetstream()
        try:
            await jetstream.consumer_info(stream, f"{stream}_workers")
        except NotFoundError:
            await self.calls.provision(session.connectedRegion)
            await jetstream.consumer_info(stream, f"{stream}_workers")
        return await jetstream.pull_subscribe_bind(consumer=f"{stream}_workers", stream=stream)

    async def run(self) -> None:
        """Serve until it is cancelled."""
        queue = await self.bind()
        while True:
            with suppress(nats.errors.TimeoutError):
                for message in await queue.fetch(1, timeout=1.0):
                    await self._serve(message)

    async def _serve(self, message: Msg) -> None:
        work = WorkerInvokeFunctionRequest.FromString(message.data)
        config = work.statelessConfig.connectionConfigs[0].http1Config
        body = json.dumps({"worker": self.name, "body": work.requestBody.decode()}).encode()
        answer = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        if work.inputAssetReference:
            answer = await self._stored(work, await self._assets(work))
        posted = await self._http.post(
            f"{config.targetURI}/v2/nvcf/worker/request-attach",
            content=answer,
            headers={
                "authorization": f"Bearer {config.responseAuthorizationToken}",
                "content-type": "application/octet-stream+h1",
            },
        )
        assert posted.status_code == 200, posted.text
        await message.ack()
        self.answered += 1

    async def _assets(self, work: Any) -> bytes:
        """Get the input assets, each with the URL that came and with a new one."""
        first = {one.assetId: one.reference for one in work.inputAssetReference}
        refreshed = await self.calls.assets(work.requestId, list(first))
        assert {one.assetId for one in refreshed} == first.keys()
        parts = []
        for one in refreshed:
            bodies = [
                (await self._http.get(url)).content for url in (first[one.assetId], one.reference)
            ]
            assert bodies[0] == bodies[1]
            parts.append(bodies[1])
        return b"".join(parts)

    async def _stored(self, work: Any, body: bytes) -> bytes:
        """Store a response as one that is too large is; return the one for the client."""
        assert work.largeResponseUrl == ""
        location = await self.calls.large_download(work.requestId)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(f"{work.requestId}.response", body)
        put = await self._http.put(
            await self.calls.large_upload(work.requestId),
            content=packed.getvalue(),
            headers={"content-type": "application/zip"},
        )
        assert put.status_code == 200, put.text
        head = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n"
        return head.encode()

    async def _cancel(self, message: Msg) -> None:
        self.cancelled.append(message.data.decode())


@asynccontextmanager
async def nvcf_worker(
    grpc_address: str, nats_url: str, token: str, ids: NvcfIds
) -> AsyncIterator[NvcfWorker]:
    """Run a worker while the block runs."""
    async with AsyncExitStack() as stack:
        client = await nats.connect(
            nats_url,
            token=nvcf_token(token),
            name=f"worker_{ids.version_id}_{ids.instance_id}",
            connect_timeout=PATIENCE_S,
            allow_reconnect=False,
        )
        stack.push_async_callback(client.close)
        calls = await stack.enter_async_context(nvcf_calls(grpc_address, token, ids))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE_S))
        worker = NvcfWorker(calls, client, http)
        task = spawn(worker.run(), "nvcf-worker")
        try:
            yield worker
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
