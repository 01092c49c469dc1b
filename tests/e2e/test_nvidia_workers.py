"""NVIDIA's worker as an external worker, without anything in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from grpc import StatusCode

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

    async def deploy(self) -> None:
        await self.plane.register()
        await self.plane.deploy(2, 2)
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
    """Run a NATS server; return its URL, and the gateway's settings for it."""
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
async def running_nvidia_world(kind: str, folder: Path) -> AsyncIterator[NvidiaWorld]:
    async with AsyncExitStack() as stack:
        nats_url, settings = await stack.enter_async_context(nats_of(kind, folder))
        settings |= {"WORKER_GRPC__LISTEN": "127.0.0.1:0", "CONTROL__WORKER_LEASE_S": "6"}
        plane = await stack.enter_async_context(running_control_plane(folder, settings))
        serves = await asyncio.to_thread(plane.program.wait_event, "grpc.ready")
        world = NvidiaWorld(plane, f"127.0.0.1:{serves['ports'][0]}", nats_url)
        await world.deploy()
        yield world


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["callout", "open"])
async def test_nvidias_workers_make_a_version_active_and_answer_its_calls(
    kind: str, tmp_path: Path
) -> None:
    async with running_nvidia_world(kind, tmp_path) as world, AsyncExitStack() as stack:
        one = await world.worker(stack, "pod-1")
        async with AsyncExitStack() as leaving:
            await world.worker(leaving, "pod-2")
            await world.until_status("ACTIVE")
            answers = [await world.invoke(b"hello") for _ in range(6)]
            assert [answer.status_code for answer in answers] == [200] * 6
            assert {answer.json()["body"] for answer in answers} == {"hello"}
        await world.until_status("DEGRADING")
        answer = await world.invoke(b"again")
        assert answer.json() == {"worker": "pod-1", "body": "again"}
        await world.plane.call("DELETE", f"registrationTokens/{world.token_id}")

        async def is_refused() -> bool:
            try:
                await one.calls.connect_once()
            except grpc.aio.AioRpcError as error:
                return error.code() is StatusCode.PERMISSION_DENIED
            return False

        await until(is_refused)
        if kind == "callout":
            await until(lambda: one.client.is_closed, timeout_s=2 * PATIENCE_S)
            await world.until_status("DEGRADED")
