"""A worker of another make, in the test's own process: it responds when, and as, the test says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

from queueing.interface import Lease
from queueing.nats.consumer import PullConsumer
from tests.support.queue_harness import OPTIONS, connected
from tests.support.waiting import PATIENCE_S
from wire.decoded_envelope import Envelope, decode_envelope
from wire.worker_api import ATTACH_PATH, RUN_PATH


class PollingWorker:
    """Takes one request after the other; nothing happens to a request but what the test does."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._leases: asyncio.Queue[Lease] = asyncio.Queue()
        self._polls: asyncio.Queue[Envelope] = asyncio.Queue()
        self._cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.consumer: PullConsumer

    def on_lease(self, lease: Lease) -> None:
        self._leases.put_nowait(lease)

    def on_cancel(self, request_id: str) -> None:
        self._cancelled.put_nowait(request_id)

    async def take(self) -> tuple[Lease, Envelope]:
        """Return the next request, and listen for its polls from now on."""
        lease = await self._leases.get()
        await self.consumer.listen_for_polls(lease.request_id, self._on_poll)
        return lease, decode_envelope(lease.envelope)

    async def take_deaf(self) -> tuple[Lease, Envelope]:
        """Return the next request, and listen for no polls."""
        lease = await self._leases.get()
        return lease, decode_envelope(lease.envelope)

    async def polled(self) -> Envelope:
        """Return the next poll."""
        return await self._polls.get()

    async def cancelled(self) -> str:
        """Return the id of the next request that is cancelled."""
        return await self._cancelled.get()

    async def respond(
        self, envelope: Envelope, status: int, body: bytes = b"", **headers: str
    ) -> httpx.Response:
        """Send one response by POST attach; return what the gateway answers."""
        lines = [
            f"HTTP/1.1 {status} X",
            *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items()),
        ]
        head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode()
        return await self.post(envelope, head + body)

    async def post(
        self, envelope: Envelope, content: bytes | AsyncIterator[bytes]
    ) -> httpx.Response:
        """Make one POST attach; return what the gateway answers."""
        return await self._http.post(
            envelope.target_uri.decode() + ATTACH_PATH.decode(),
            headers={"authorization": f"Bearer {envelope.response_token}"},
            content=content,
        )

    async def may_run(self, envelope: Envelope, deliveries: int) -> int:
        """Ask whether to run a request that was delivered again; return the status."""
        asked = await self._http.post(
            envelope.target_uri.decode() + RUN_PATH.decode(),
            headers={
                "authorization": f"Bearer {envelope.response_token}",
                "nvcf-reqid": envelope.request_id,
                "nvcf-deliveries": str(deliveries),
            },
        )
        return asked.status_code

    def _on_poll(self, envelope: bytes, acknowledge: Callable[[], None]) -> None:
        acknowledge()
        self._polls.put_nowait(decode_envelope(envelope))


@asynccontextmanager
async def polling_worker(
    url: str, version_id: str, region: str = "local"
) -> AsyncIterator[PollingWorker]:
    """Run a worker of the version at the nats-server at ``url`` for the length of the block."""
    async with connected(url, OPTIONS) as connection, httpx.AsyncClient(timeout=PATIENCE_S) as http:
        worker = PollingWorker(http)
        worker.consumer = PullConsumer(
            connection,
            region=region,
            version_id=version_id,
            on_lease=worker.on_lease,
            on_cancel=worker.on_cancel,
        )
        worker.consumer.start()
        worker.consumer.want(4)
        try:
            yield worker
        finally:
            await worker.consumer.close()
