"""Leaders end, in every way, while clients call: instances go on, and no call fails.

One gateway serves the calls and the workers' heartbeats, others lead one after the other.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from gateway.provision.local.orphans import kill_orphans
from gateway.provision.local.processes import read_identity, state_of
from runtime.tasks import spawn
from tests.support.control_plane import admin_token
from tests.support.programs import Program, wait_gone
from tests.support.stack import Gateway, Stack
from tests.support.waiting import PATIENCE_S, until

CALLERS = 4
TEMPLATE = "process://{python} -P -m gateway.examples.inference --port {port}"
CLUSTER = {
    "name": "local",
    "gpus": [{"name": "CPU", "instance_types": [{"name": "local"}]}],
    "images": {"demo": TEMPLATE},
}


class Plane(NamedTuple):
    """A gateway that serves and never leads, and settings with which others lead."""

    stack: Stack
    serving: Gateway
    settings: dict[str, str]
    instances: Path
    token: dict[str, str]

    def client(self, **headers: str) -> httpx.AsyncClient:
        own = {**self.token, **headers}
        return httpx.AsyncClient(base_url=self.serving.url, headers=own, timeout=PATIENCE_S)

    def leading(self) -> Program:
        """Start a candidate."""
        return self.stack.gateway(**self.settings).program

    def pids(self) -> dict[str, int]:
        """Return the processes of all instances by the name of the file that records them."""
        files = self.instances.glob("running/*/*.pid")
        found = {f"{file.parent.name}/{file.stem}": read_identity(file) for file in files}
        return {name: identity.pid for name, identity in found.items() if identity is not None}

    @asynccontextmanager
    async def deployed(self, instances: int) -> AsyncIterator[str]:
        """Deploy a function while the block runs; return its id."""
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
        spec = {
            "gpu": "CPU",
            "backend": "local",
            "instanceType": "local",
            "minInstances": instances,
            "maxInstances": instances,
            "maxRequestConcurrency": 4,
        }
        async with self.client() as client:
            made = await client.post("/v2/nvcf/functions", json=function)
            assert made.status_code == 200, made.text
            ids = made.json()["function"]
            version = f"functions/{ids['id']}/versions/{ids['versionId']}"
            path = f"/v2/nvcf/deployments/{version}"
            asked = await client.post(path, json={"deploymentSpecifications": [spec]})
            assert asked.status_code == 200, asked.text

            async def status() -> str:
                shown = await client.get(f"/v2/nvcf/{version}")
                return str(shown.json()["function"]["status"])

            await until(status, lambda found: found == "ACTIVE", timeout_s=3 * PATIENCE_S)
            yield ids["id"]
            assert await status() == "ACTIVE"
            assert (await client.delete(path)).status_code == 200


@asynccontextmanager
async def running_plane(stack: Stack, folder: Path) -> AsyncIterator[Plane]:
    shared = {
        "CONTROL__SECRETS_KEY_FILE": str(folder / "master.key"),
        "OBJECTS__FOLDER": str(folder / "objects"),
        "CLUSTERS": json.dumps([CLUSTER]),
    }
    serving = stack.gateway(**shared, ROLES="invocation,api")
    token = {"authorization": f"Bearer {await admin_token(serving.program, serving.url)}"}
    leading = {
        **shared,
        "ROLES": "invocation,api,provision",
        "CONTROL__API_URL": serving.url,
        "PROVISION__FOLDER": str(folder / "instances"),
        "PROVISION__STOP_GRACE_S": "2",
        "PROVISION__WORKER_COMMAND": f"{sys.executable} -P -m worker_agent",
    }
    try:
        yield Plane(stack, serving, leading, folder / "instances", token)
    finally:
        await stack.stop()
        kill_orphans(folder / "instances")


class Calls:
    """Calls that begin one after the other until `stop`; ``failures`` had no full response."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._is_over = False
        self.count = 0
        self.failures: list[str] = []
        what = [("POST", "/echo", b"x")] * CALLERS + [("GET", "/sse?events=20&interval_ms=50", b"")]
        self._tasks = [spawn(self._repeat(*one), "calls") for one in what]

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


async def ends(leader: Program, number: int) -> None:
    leader.send(number)
    await asyncio.to_thread(leader.wait_end)


async def adopted(leader: Program, count: int) -> None:
    """Wait until a leader has adopted so many instances."""
    await until(
        lambda: leader.output.count('"event":"provision.instance_adopted"'),
        lambda found: found == count,
        timeout_s=2 * PATIENCE_S,
    )


@pytest.mark.timeout(240)
async def test_no_call_fails_while_leaders_end_and_instances_go_on(
    stack: Stack, tmp_path: Path
) -> None:
    async with running_plane(stack, tmp_path) as plane:
        first = plane.leading()
        async with plane.deployed(2) as function_id:
            pids = plane.pids()
            assert len(pids) == 4
            async with plane.client(**{"function-id": function_id}) as client:
                calls = Calls(client)
                await calls.more()
                second = plane.leading()
                await ends(first, signal.SIGKILL)
                await adopted(second, 2)
                await calls.more()
                third = plane.leading()
                await ends(second, signal.SIGTERM)
                await adopted(third, 2)
                await calls.more()
                # The only one, stopped and started again.
                await ends(third, signal.SIGTERM)
                await calls.more()
                fourth = plane.leading()
                await adopted(fourth, 2)
                await calls.more()
                await calls.stop()
            assert calls.failures == []
            assert plane.pids() == pids
            assert None not in [state_of(pid) for pid in pids.values()]
        await asyncio.to_thread(wait_gone, list(pids.values()))
        await until(lambda: os.listdir(plane.instances / "running"), lambda left: not left)
