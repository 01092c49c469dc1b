"""Plays scheduler and kubelet: runs the containers of pods as processes of this machine."""

import asyncio
import base64
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

from gateway.provision.kubernetes.manifests import AGENT, INFERENCE
from runtime.tasks import spawn
from tests.kubernetes.cluster import CONTROL_S, PODS, SECRETS, Cluster
from tests.support.free_ports import free_port
from tests.support.programs import Program, worker_agent
from tests.support.waiting import PATIENCE_S

Document = dict[str, Any]


class RunningPod:
    """The processes of one pod."""

    def __init__(self, pod: Document, agent: Document, function: Document) -> None:
        self.admin_port = free_port()
        self.hook = pod["spec"]["containers"][0]["lifecycle"]["preStop"]["httpGet"]
        port = function["PORT"]
        self.function = Program(
            [sys.executable, "-m", "gateway.examples.inference", "--port", port], function
        )
        # In a pod of its own no other program has the port.
        address = {"WORKER_ADMIN__LISTEN": f"127.0.0.1:{self.admin_port}"}
        self.agent = worker_agent({**agent, **address})
        self.has_drained = False

    async def end(self, session: aiohttp.ClientSession) -> None:
        """End it as a kubelet does: the hook, the function's container, the sidecar."""
        headers = {one["name"]: one["value"] for one in self.hook["httpHeaders"]}
        url = f"http://127.0.0.1:{self.admin_port}{self.hook['path']}"
        async with session.get(url, headers=headers) as response:
            self.has_drained = response.status == 200
        await asyncio.to_thread(self.function.stop)
        await asyncio.to_thread(self.agent.stop)

    def kill(self) -> None:
        for program in (self.function, self.agent):
            program.process.kill()
            program.wait_end()


class Kubelet:
    """Runs every pod of a namespace; ``ended`` are those that it has ended, ``running`` by name."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S))
        self.running: dict[str, RunningPod] = {}
        self.ended: list[RunningPod] = []

    @asynccontextmanager
    async def runs(self) -> AsyncIterator[None]:
        task = spawn(self._run(), "tests.kubelet")
        try:
            async with self._session:
                yield
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        finally:
            for pod in self.running.values():
                pod.kill()

    async def _run(self) -> None:
        while True:
            for pod in await self._cluster.objects(PODS):
                name = pod["metadata"]["name"]
                if name not in self.running and not pod["metadata"].get("deletionTimestamp"):
                    await self._start(name, pod)
                elif name in self.running and pod["metadata"].get("deletionTimestamp"):
                    ended = self.running.pop(name)
                    self.ended.append(ended)
                    await ended.end(self._session)
                    path = f"{PODS}/{name}"
                    await self._cluster.call("DELETE", path, {"gracePeriodSeconds": 0})
            await asyncio.sleep(CONTROL_S)

    async def _start(self, name: str, pod: Document) -> None:
        binding = {"metadata": {"name": name}, "target": {"name": "node-1"}}
        await self._cluster.call("POST", f"{PODS}/{name}/binding", {**binding})
        spec = pod["spec"]
        agent = await self._environment(_container(spec["initContainers"], AGENT))
        function = await self._environment(_container(spec["containers"], INFERENCE))
        self.running[name] = RunningPod(pod, agent, function)

    async def _environment(self, container: Document) -> dict[str, str]:
        found = {}
        for one in container["env"]:
            if "valueFrom" not in one:
                found[one["name"]] = one.get("value", "")
                continue
            reference = one["valueFrom"]["secretKeyRef"]
            secret = await self._cluster.get(SECRETS, reference["name"])
            assert secret is not None
            found[one["name"]] = base64.b64decode(secret["data"][reference["key"]]).decode()
        return found


def _container(containers: list[Document], name: str) -> Document:
    return next(one for one in containers if one["name"] == name)
