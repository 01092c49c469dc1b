"""A gateway that serves NVIDIA's workers: gRPC ``nvcf.Worker``, and NATS with or without logins."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from queueing.open import nats_callout_config
from tests.support.control_plane import ControlPlane, running_control_plane
from tests.support.nats_logins import guarded
from tests.support.nats_server import NatsServer
from tests.support.nvcf_calls import NvcfIds
from tests.support.nvcf_worker import NvcfWorker, nvcf_worker
from tests.support.waiting import PATIENCE_S, until


class NvidiaWorld:
    """One gateway with a deployed version, and where its workers connect to."""

    def __init__(self, plane: ControlPlane, grpc_address: str, nats_url: str) -> None:
        self.plane = plane
        self.grpc_address = grpc_address
        self.nats_url = nats_url
        self.token = self.token_id = ""

    async def deploy(self, workers: int) -> None:
        await self.plane.register()
        await self.plane.deploy(workers, workers)
        self.token, self.token_id = await self.plane.token()

    async def until_status(self, status: str) -> None:
        def is_so(shown: Any) -> bool:
            return bool(shown["status"] == status)

        await until(self.plane.shown, is_so, timeout_s=2 * PATIENCE_S)

    async def invoke(self, body: bytes) -> httpx.Response:
        return await self.plane.api.post(f"/f/{self.plane.function_id}/x", content=body)

    async def worker(self, stack: AsyncExitStack, name: str) -> NvcfWorker:
        ids = NvcfIds(name, self.plane.function_id, self.plane.version_id)
        return await stack.enter_async_context(
            nvcf_worker(self.grpc_address, self.nats_url, self.token, ids)
        )


@asynccontextmanager
async def nats_of(kind: str, folder: Path) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Run a NATS server; return its URL, and the gateway's settings for it.

    ``kind`` is ``open``, or ``callout`` for one that asks the gateway who may log in.
    """
    if kind == "open":
        server, settings = NatsServer(folder), {}
    else:
        nats = guarded(folder)
        server, logins = nats.server, nats.logins
        server.config += nats_callout_config(logins.operator_seed.read_text())
        settings = {
            "NATS__CREDENTIALS_FILE": str(logins.gateway_credentials),
            "NATS__SYSTEM_CREDENTIALS_FILE": str(logins.system_credentials),
            "NATS__OPERATOR_SEED_FILE": str(logins.operator_seed),
            "NATS__CALLOUT": "true",
        }
    await server.start()
    try:
        yield server.url, {"NATS__URLS": server.url, **settings}
    finally:
        await server.kill()


@asynccontextmanager
async def running_nvidia_world(
    kind: str, folder: Path, workers: int = 2
) -> AsyncIterator[NvidiaWorld]:
    """Run a gateway with a version that is deployed for ``workers``; ``kind`` as in `nats_of`."""
    async with AsyncExitStack() as stack:
        nats_url, settings = await stack.enter_async_context(nats_of(kind, folder))
        settings |= {"WORKER_GRPC__LISTEN": "127.0.0.1:0", "CONTROL__WORKER_LEASE_S": "6"}
        plane = await stack.enter_async_context(running_control_plane(folder, settings))
        serves = await asyncio.to_thread(plane.program.wait_event, "grpc.ready")
        world = NvidiaWorld(plane, f"127.0.0.1:{serves['ports'][0]}", nats_url)
        await world.deploy(workers)
        yield world
