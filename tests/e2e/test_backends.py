"""The behaviour of instances that are local processes, and of those that others start."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.provision.local.orphans import kill_orphans
from gateway.provision.local.processes import read_identity
from tests.support.backend_behaviour import BackendBehaviour, ScaledBehaviour
from tests.support.free_ports import free_port
from tests.support.programs import Program, worker_agent
from tests.support.provisioned import DEPLOY_S, Plane, Version, running_plane
from tests.support.stack import Stack
from tests.support.waiting import until

GPUS = [{"name": "CPU", "instance_types": [{"name": "any"}]}]


class LocalHosting:
    """This machine, with the processes that the gateway starts on it."""

    end_reason = "the inference server ended by signal SIGKILL"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        template = "process://{python} -P -m gateway.examples.inference --port {port}"
        self.cluster: Mapping[str, Any] = {
            "name": "local",
            "gpus": GPUS,
            "images": {"demo": template},
        }
        self.settings: Mapping[str, str] = {
            "PROVISION__WORKER_COMMAND": f"{sys.executable} -P -m worker_agent"
        }

    async def provide(self, version: Version, count: int) -> None:
        pass

    def processes(self) -> dict[str, int]:
        files = self.folder.glob("running/*/*.pid")
        found = {f"{file.parent.name}/{file.stem}": read_identity(file) for file in files}
        return {name: identity.pid for name, identity in found.items() if identity is not None}

    async def kill_server(self) -> None:
        (pid,) = [pid for name, pid in self.processes().items() if name.endswith("/inference")]
        os.kill(pid, signal.SIGKILL)

    async def bring_back(self) -> None:
        pass

    async def until_empty(self) -> None:
        running = self.folder / "running"
        await until(lambda: os.listdir(running), lambda left: not left, timeout_s=DEPLOY_S)


class ExternalHosting:
    """Machines of others: model servers with an agent beside each, started by the test."""

    end_reason = "its worker says that it cannot serve"

    def __init__(self) -> None:
        self.cluster: Mapping[str, Any] = {"name": "ours", "backend": "external", "gpus": GPUS}
        self.settings: Mapping[str, str] = {}
        self._servers: dict[int, Program] = {}
        self._agents: list[Program] = []

    async def provide(self, version: Version, count: int) -> None:
        made = await version.call("POST", f"registrationTokens/{version.path}", {})
        for _ in range(count):
            port = free_port()
            self._start_server(port)
            self._agents.append(
                worker_agent(
                    {
                        "WORKER_CONTROL__URL": str(version.client.base_url).rstrip("/"),
                        "WORKER_CONTROL__TOKEN": made["token"],
                        "WORKER_INFERENCE__PORT": str(port),
                        "WORKER_HEALTH__PORT": str(port),
                        "WORKER_ADMIN__LISTEN": "127.0.0.1:0",
                    }
                )
            )

    def processes(self) -> dict[str, int]:
        running = [agent.pid for agent in self._agents if agent.process.poll() is None]
        return {str(pid): pid for pid in running}

    async def kill_server(self) -> None:
        (server,) = self._servers.values()
        server.stop(signal.SIGKILL)

    async def bring_back(self) -> None:
        (port,) = self._servers
        self._start_server(port)

    async def until_empty(self) -> None:
        await until(self.processes, lambda left: not left, timeout_s=DEPLOY_S)
        for agent in self._agents:
            assert agent.wait_end() == 0
            assert "worker.told_to_stop" in agent.output

    def kill(self) -> None:
        for program in (*self._agents, *self._servers.values()):
            program.stop(signal.SIGKILL)

    def _start_server(self, port: int) -> None:
        argv = [sys.executable, "-P", "-m", "gateway.examples.inference", "--port", str(port)]
        self._servers[port] = Program(argv)


class TestLocalProcesses(ScaledBehaviour):
    @pytest.fixture
    async def plane(self, stack: Stack, tmp_path: Path) -> AsyncIterator[Plane]:
        hosting = LocalHosting(tmp_path / "instances")
        async with running_plane(stack, hosting, tmp_path) as plane:
            try:
                yield plane
            finally:
                await stack.stop()
                kill_orphans(hosting.folder)


class TestExternalWorkers(BackendBehaviour):
    @pytest.fixture
    async def plane(self, stack: Stack, tmp_path: Path) -> AsyncIterator[Plane]:
        hosting = ExternalHosting()
        async with running_plane(stack, hosting, tmp_path) as plane:
            try:
                yield plane
            finally:
                hosting.kill()
