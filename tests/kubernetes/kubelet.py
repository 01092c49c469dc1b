"""Plays scheduler and kubelet: runs the containers of pods as processes of this machine."""

import asyncio
import base64
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from gateway.provision.kubernetes.manifests import AGENT, INFERENCE
from runtime.tasks import spawn
from tests.kubernetes.cluster import PODS, SECRETS, Cluster, repeated
from tests.support.free_ports import free_ports
from tests.support.programs import Program, worker_agent
from tests.support.waiting import PATIENCE_S

Document = dict[str, Any]
SIGNALLED = 128
"""What a container's exit code is above the number of the signal that ended it."""


class RunningPod:
    """The processes of one pod, and the status that a kubelet writes for it.

    A pod has a network of its own, and its programs here have not: the ports that it asks for are
    replaced by free ones.
    """

    def __init__(self, pod: Document, agent: Document, function: Document) -> None:
        self._admin_port, port = free_ports(2)
        self._hook = pod["spec"]["containers"][0]["lifecycle"]["preStop"]["httpGet"]
        self._function_env = {**function, "PORT": str(port), "INFERENCE_PORT": str(port)}
        self._restarts = 0
        self._ended: Document | None = None
        self.function = self._start_function()
        self.agent = worker_agent(
            {
                **agent,
                "WORKER_INFERENCE__PORT": str(port),
                "WORKER_HEALTH__PORT": str(port),
                "WORKER_ADMIN__LISTEN": f"127.0.0.1:{self._admin_port}",
            }
        )
        self.ending: asyncio.Task[None] | None = None
        self.has_drained = False
        self.status: Document = {}
        """As it was written last."""

    def _start_function(self) -> Program:
        port = self._function_env["PORT"]
        argv = [sys.executable, "-P", "-m", "gateway.examples.inference", "--port", port]
        return Program(argv, self._function_env)

    def restart(self) -> None:
        """Start the function's container again, at the end of its back-off."""
        self._restarts += 1
        self.function = self._start_function()

    async def observe(self, session: aiohttp.ClientSession) -> Document:
        """Return the status of the pod now: a container that has ended waits for its back-off."""
        code = self.function.process.poll()
        state: Document = {"running": {}}
        if code is not None:
            self._ended = {
                "exitCode": code if code >= 0 else SIGNALLED - code,
                "reason": "Error",
                "message": self.function.output[-500:],
            }
            state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
        container = {
            "name": INFERENCE,
            "image": "x",
            "imageID": "",
            "ready": code is None,
            "restartCount": self._restarts,
            "state": state,
            "lastState": {} if self._ended is None else {"terminated": self._ended},
        }
        is_ready = code is None and await self._is_ready(session)
        ready = {"type": "Ready", "status": "True" if is_ready else "False"}
        return {"phase": "Running", "conditions": [ready], "containerStatuses": [container]}

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        """Ask what the readiness probe of the agent asks."""
        try:
            async with session.get(f"http://127.0.0.1:{self._admin_port}/health/ready") as found:
                return found.status == 200
        except aiohttp.ClientError:
            return False

    async def end(self, session: aiohttp.ClientSession) -> None:
        """End it as a kubelet does: the hook, the function's container, the sidecar."""
        headers = {one["name"]: one["value"] for one in self._hook["httpHeaders"]}
        url = f"http://127.0.0.1:{self._admin_port}{self._hook['path']}"
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
        self.running: dict[str, RunningPod] = {}
        self.ended: list[RunningPod] = []

    @asynccontextmanager
    async def runs(self) -> AsyncIterator[None]:
        """Play while the block runs."""
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                repeated(lambda: self._run(session)),
            ):
                yield
        finally:
            for pod in self.running.values():
                pod.kill()

    async def _run(self, session: aiohttp.ClientSession) -> None:
        for pod in await self._cluster.objects(PODS):
            name = pod["metadata"]["name"]
            running = self.running.get(name)
            if pod["metadata"].get("deletionTimestamp"):
                await self._end(name, session)
            elif running is None:
                await self._start(name, pod)
            else:
                await self._report(name, running, session)

    async def _report(self, name: str, pod: RunningPod, session: aiohttp.ClientSession) -> None:
        status = await pod.observe(session)
        if status != pod.status:
            path = f"{PODS}/{name}/status"
            await self._cluster.call(
                "PATCH", path, {"status": status}, "application/merge-patch+json"
            )
            pod.status = status

    async def _end(self, name: str, session: aiohttp.ClientSession) -> None:
        """Begin to end a pod, or remove one that has ended."""
        pod = self.running.get(name)
        if pod is not None and pod.ending is None:
            pod.ending = spawn(pod.end(session), "tests.kubelet")
        if pod is None or (pod.ending is not None and pod.ending.done()):
            await self._cluster.call("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
            if pod is not None:
                self.ended.append(self.running.pop(name))

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
