"""The behaviour of instances that are processes of this machine."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.provision.local.orphans import kill_orphans
from gateway.provision.local.processes import read_identity
from tests.support.backend_behaviour import ScaledBehaviour
from tests.support.provisioned import DEPLOY_S, GPUS, Plane, Version, running_plane
from tests.support.stack import Stack
from tests.support.waiting import until


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
