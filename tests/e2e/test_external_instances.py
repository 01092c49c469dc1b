"""The behaviour of instances that others start: workers that register."""

import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.backend_behaviour import BackendBehaviour
from tests.support.free_ports import free_port
from tests.support.programs import Program, worker_agent
from tests.support.provisioned import DEPLOY_S, GPUS, Plane, Version, running_plane
from tests.support.stack import Stack
from tests.support.waiting import until


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


class TestExternalWorkers(BackendBehaviour):
    @pytest.fixture
    async def plane(self, stack: Stack, tmp_path: Path) -> AsyncIterator[Plane]:
        hosting = ExternalHosting()
        async with running_plane(stack, hosting, tmp_path) as plane:
            try:
                yield plane
            finally:
                hosting.kill()
