"""A gateway that serves NVIDIA's workers: gRPC ``nvcf.Worker``, and NATS with or without logins."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

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

    async def deploy(self, workers: int = 2) -> None:
        function = {"name": "echo", "inferenceUrl": "/", "containerImage": "any"}
        made = (await self.call("POST", "functions", function))["function"]
        self.function_id, self.version_id = made["id"], made["versionId"]
        path = f"functions/{self.function_id}/versions/{self.version_id}"
        spec = {"gpu": "L40S", "backend": "theirs", "minInstances": workers}
        spec["maxInstances"] = workers
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
        await world.deploy(workers)
        yield world
