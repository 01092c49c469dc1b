"""A gateway that serves, gateways that lead, and what runs the instances of any backend.

One gateway serves the calls and the workers' heartbeats and never leads; a test starts, kills and
replaces others that lead.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx

from runtime.tasks import spawn
from tests.support.programs import Program
from tests.support.stack import Gateway, Stack
from tests.support.waiting import PATIENCE_S, until

DEPLOY_S = 3 * PATIENCE_S
"""Bound of what starts processes, on a busy machine."""
CONCURRENCY = 4
CALLERS = 4
V2 = "/v2/nvcf"
GPUS = [{"name": "CPU", "instance_types": [{"name": "any"}]}]
"""What each cluster offers."""


class Version:
    """One version that is deployed on the plane's cluster, as its owner has it."""

    def __init__(self, client: httpx.AsyncClient, function_id: str, version_id: str) -> None:
        self.client = client
        self.function_id = function_id
        self.version_id = version_id
        self.path = f"functions/{function_id}/versions/{version_id}"
        self.url = f"/f/{function_id}"

    async def call(self, method: str, path: str, json: object = None) -> Any:
        """Call the REST API; it must succeed."""
        response = await self.client.request(method, f"{V2}/{path}", json=json)
        assert response.is_success, response.text
        return response.json() if response.content else None

    async def deploy(self, least: int, most: int, backend: str, concurrency: int) -> None:
        spec = {
            "gpu": "CPU",
            "backend": backend,
            "minInstances": least,
            "maxInstances": most,
            "maxRequestConcurrency": concurrency,
        }
        body = {"deploymentSpecifications": [spec]}
        await self.call("POST", f"deployments/{self.path}", body)

    async def set_counts(self, least: int, most: int) -> None:
        """Change the minimum and the maximum of instances."""
        counts = {"minInstances": least, "maxInstances": most}
        body = {"deploymentSpecifications": [counts]}
        await self.call("PUT", f"deployments/{self.path}", body)

    async def undeploy(self, *, graceful: bool = False) -> None:
        await self.call("DELETE", f"deployments/{self.path}?graceful={str(graceful).lower()}")

    async def status(self) -> str:
        return str((await self.call("GET", self.path))["function"]["status"])

    async def instances(self) -> list[dict[str, Any]]:
        """Return the instances that can serve."""
        shown = (await self.call("GET", self.path))["function"]
        return [one for one in shown.get("activeInstances", ()) if one["healthy"]]

    async def instance_ids(self) -> set[str]:
        return {one["instanceId"] for one in await self.instances()}

    async def errors(self) -> str:
        """Return why instances do not run."""
        shown = (await self.call("GET", f"deployments/{self.path}"))["deployment"]
        return "\n".join(info["error"] for info in shown.get("healthInfo") or ())

    async def until(self, status: str, instances: int | None = None) -> None:
        """Wait until the version has a status, and so many instances that can serve."""

        async def state() -> tuple[str, int]:
            return await self.status(), len(await self.instances())

        def is_so(found: tuple[str, int]) -> bool:
            return found[0] == status and instances in {None, found[1]}

        await until(state, is_so, timeout_s=DEPLOY_S, what=f"{status} with {instances} instances")

    async def echo(self) -> None:
        response = await self.client.post(f"{self.url}/echo", content=b"hello")
        assert (response.status_code, response.content) == (200, b"hello"), response.text

    async def slow(self, seconds: int) -> int:
        """Return the status of a call that takes so long."""
        return (await self.client.get(f"{self.url}/slow?seconds={seconds}")).status_code


class Hosting(Protocol):
    """What runs the instances of one backend: the part of the world that is not the gateway's.

    ``cluster`` is its cluster in the settings; ``settings`` are further ones of gateways that lead.
    ``end_reason`` is in the reason of an instance whose inference server was killed.
    """

    cluster: Mapping[str, Any]
    settings: Mapping[str, str]
    end_reason: str

    async def provide(self, version: Version, count: int) -> None:
        """See to it that ``count`` instances run, where the gateway does not start them."""

    def processes(self) -> dict[str, int]:
        """Return the processes of all instances by a name that outlives a leader."""

    async def kill_server(self) -> None:
        """Kill the inference server of one instance."""

    async def bring_back(self) -> None:
        """Let what supervises the server start it again, where that is not the gateway."""

    async def until_empty(self) -> None:
        """Wait until nothing is left of any instance; it must have drained."""


class Plane:
    """The gateways of one system, with what runs its instances."""

    def __init__(self, stack: Stack, hosting: Hosting, folder: Path) -> None:
        self.stack = stack
        self.hosting = hosting
        shared = {
            "CONTROL__SECRETS_KEY_FILE": str(folder / "master.key"),
            "OBJECTS__FOLDER": str(folder / "objects"),
            "CONTROL__WORKER_LEASE_S": "3",
            "CLUSTERS": json.dumps([hosting.cluster]),
        }
        self.serving: Gateway = stack.gateway(**shared, ROLES="invocation,api")
        self._leading = {
            **shared,
            "ROLES": "invocation,api,provision",
            "CONTROL__API_URL": self.serving.url,
            "PROVISION__FOLDER": str(folder / "instances"),
            "PROVISION__STOP_GRACE_S": "5",
            "PROVISION__IDLE_S": "1",
            **hosting.settings,
        }
        self._headers: dict[str, str] = {}

    async def open(self) -> None:
        """Take the first key."""
        secret = self.serving.program.output.split("Bootstrap secret: ")[1].split()[0]
        bearer = {"authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(base_url=self.serving.url, timeout=PATIENCE_S) as client:
            made = await client.post("/v1/admin/keys", headers=bearer)
        self._headers = {"authorization": f"Bearer {made.json()['value']}"}

    def candidate(self) -> Program:
        """Start a gateway that leads as soon as no other one does."""
        return self.stack.gateway(**self._leading).program

    @asynccontextmanager
    async def registered(self) -> AsyncIterator[Version]:
        """Create a function; a client of the gateway is open while the block runs."""
        function = {
            "name": "demo",
            "inferenceUrl": "/echo",
            "containerImage": "demo",
            "health": {
                "protocol": "HTTP",
                "uri": "/health",
                "port": 8000,
                "timeout": "PT5S",
                "expectedStatusCode": 200,
            },
        }
        async with httpx.AsyncClient(
            base_url=self.serving.url, headers=self._headers, timeout=DEPLOY_S
        ) as client:
            made = await client.post(f"{V2}/functions", json=function)
            assert made.status_code == 200, made.text
            ids = made.json()["function"]
            yield Version(client, ids["id"], ids["versionId"])

    @asynccontextmanager
    async def version(
        self, least: int, most: int, concurrency: int = CONCURRENCY
    ) -> AsyncIterator[Version]:
        """Deploy a function and wait until its least instances serve."""
        async with self.registered() as version:
            await version.deploy(least, most, self.hosting.cluster["name"], concurrency)
            await self.hosting.provide(version, least)
            await version.until("ACTIVE", least)
            yield version


@asynccontextmanager
async def running_plane(stack: Stack, hosting: Hosting, folder: Path) -> AsyncIterator[Plane]:
    plane = Plane(stack, hosting, folder)
    await plane.open()
    yield plane


class Calls:
    """Calls that begin one after the other until `stop`; ``failures`` had no full response."""

    def __init__(self, version: Version) -> None:
        self._client = version.client
        self._is_over = False
        self.count = 0
        self.failures: list[str] = []
        what = [("POST", "/echo", b"x")] * CALLERS + [("GET", "/sse?events=20&interval_ms=50", b"")]
        self._tasks = [
            spawn(self._repeat(method, version.url + path, body), "calls")
            for method, path, body in what
        ]

    async def more(self) -> None:
        """Wait until there have been further calls."""
        before = self.count
        await until(lambda: self.count, lambda count: count >= before + 20)

    async def stop(self) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _repeat(self, method: str, target: str, body: bytes) -> None:
        while not self._is_over:
            try:
                response = await self._client.request(method, target, content=body)
                if response.status_code != 200:
                    self.failures.append(f"{response.status_code} {response.text[:200]}")
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
            self.count += 1


async def end_leader(leader: Program, number: int = signal.SIGKILL) -> None:
    """End a gateway that leads, and wait until it has ended."""
    leader.send(number)
    await asyncio.to_thread(leader.wait_end)


async def until_leading(candidate: Program) -> None:
    await asyncio.to_thread(candidate.wait_event, "leader.began", 2 * PATIENCE_S)
