"""NVIDIA's worker as an external worker, without anything in between."""

import asyncio
import io
import json
import os
import signal
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from grpc import StatusCode

from queueing.open import nats_callout_config
from tests.support.nats_logins import guarded
from tests.support.nats_server import NatsServer
from tests.support.nvcf_calls import NvcfIds
from tests.support.nvcf_worker import NvcfWorker, nvcf_worker
from tests.support.programs import gateway
from tests.support.waiting import PATIENCE_S, until

V2 = "/v2/nvcf"
CLUSTERS = [
    {
        "name": "theirs",
        "backend": "external",
        "gpus": [{"name": "L40S", "instance_types": [{"name": "any"}]}],
    }
]


class NvidiaWorld:
    """One gateway with a deployed version, and where its workers connect to."""

    def __init__(self, api: httpx.AsyncClient, grpc_address: str, nats_url: str) -> None:
        self.api = api
        self.grpc_address = grpc_address
        self.nats_url = nats_url
        self.function_id = self.version_id = self.token = self.token_id = ""

    async def call(self, method: str, path: str, json: object = None) -> Any:
        response = await self.api.request(method, f"{V2}/{path}", json=json)
        assert response.is_success, response.text
        return response.json() if response.content else None

    async def deploy(self) -> None:
        function = {"name": "echo", "inferenceUrl": "/", "containerImage": "any"}
        made = (await self.call("POST", "functions", function))["function"]
        self.function_id, self.version_id = made["id"], made["versionId"]
        path = f"functions/{self.function_id}/versions/{self.version_id}"
        spec = {"gpu": "L40S", "backend": "theirs", "minInstances": 2, "maxInstances": 2}
        await self.call("POST", f"deployments/{path}", {"deploymentSpecifications": [spec]})
        token = await self.call("POST", f"registrationTokens/{path}", {})
        self.token, self.token_id = token["token"], token["tokenId"]

    async def until_status(self, status: str) -> None:
        async def shown() -> str:
            path = f"functions/{self.function_id}/versions/{self.version_id}"
            found: str = (await self.call("GET", path))["function"]["status"]
            return found

        await until(shown, lambda found: found == status, timeout_s=2 * PATIENCE_S)

    async def worker(self, stack: AsyncExitStack, name: str) -> NvcfWorker:
        ids = NvcfIds(name, self.function_id, self.version_id)
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
        env = {
            **settings,
            "CLUSTERS": json.dumps(CLUSTERS),
            "WORKER_GRPC__LISTEN": "127.0.0.1:0",
            "EDGE__LISTEN": "127.0.0.1:0",
            "ATTACH__LISTEN": "127.0.0.1:0",
            "ADMIN__LISTEN": "127.0.0.1:0",
            "CONTROL__SECRETS_KEY_FILE": str(folder / "master.key"),
            "CONTROL__WORKER_LEASE_S": "6",
            "PROVISION__FOLDER": str(folder / "instances"),
            "OBJECTS__FOLDER": str(folder / "objects"),
            "DRAIN__GRACE_S": "0",
        }
        program = gateway("serve", env={f"GATEWAY_{name}": value for name, value in env.items()})
        stack.callback(program.stop, signal.SIGKILL)
        serves = await asyncio.to_thread(program.wait_event, "grpc.ready")
        ready = await asyncio.to_thread(program.wait_event, "gateway.ready")
        api = httpx.AsyncClient(base_url=f"http://{ready['listen'][0]}", timeout=2 * PATIENCE_S)
        stack.push_async_callback(api.aclose)
        secret = program.output.split("Bootstrap secret: ")[1].split()[0]
        bearer = {"authorization": f"Bearer {secret}"}
        token = (await api.post("/v1/admin/keys", headers=bearer)).json()["value"]
        api.headers["authorization"] = f"Bearer {token}"
        world = NvidiaWorld(api, f"127.0.0.1:{serves['ports'][0]}", nats_url)
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
            answers = [
                await world.api.post(f"/f/{world.function_id}/x", content=b"hello")
                for _ in range(6)
            ]
            assert [answer.status_code for answer in answers] == [200] * 6
            assert {answer.json()["body"] for answer in answers} == {"hello"}
        await world.until_status("DEGRADING")
        answer = await world.api.post(f"/f/{world.function_id}/x", content=b"again")
        assert answer.json() == {"worker": "pod-1", "body": "again"}
        await world.call("DELETE", f"registrationTokens/{world.token_id}")

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


@pytest.mark.timeout(180)
async def test_nvidias_worker_gets_assets_and_stores_a_large_response(tmp_path: Path) -> None:
    async with running_nvidia_world("open", tmp_path) as world, AsyncExitStack() as stack:
        for name in ("pod-1", "pod-2"):
            await world.worker(stack, name)
        await world.until_status("ACTIVE")
        body = os.urandom(6_000_000)
        made = await world.call(
            "POST", "assets", {"contentType": "image/png", "description": "a picture"}
        )
        upload = await world.api.put(
            made["uploadUrl"],
            content=body,
            headers={
                "content-type": "image/png",
                "x-amz-meta-nvcf-asset-description": "a picture",
                "authorization": "",
            },
        )
        assert upload.status_code == 200, upload.text
        redirected = await world.api.post(
            f"{V2}/pexec/functions/{world.function_id}",
            content=b"{}",
            headers={"nvcf-input-asset-references": made["assetId"]},
        )
        assert redirected.status_code == 302, redirected.text
        location = redirected.headers["location"]
        assert location.startswith(str(world.api.base_url))
        async with httpx.AsyncClient() as client:
            packed = await client.get(location)
        with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
            (name,) = archive.namelist()
            assert name == f"{redirected.headers['nvcf-reqid']}.response"
            assert archive.read(name) == body
