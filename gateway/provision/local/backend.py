"""A `gateway.provision.backend.Backend` that runs instances as processes of this machine.

Each gateway process has a folder of its own (`gateway.provision.local.orphans`). Each instance has
a folder in it with ``inference.log``, ``worker.log`` and ``secrets.json``, deleted when it ends.
"""

import asyncio
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.provision.backend import InstanceStatus, LaunchSpec, OnChange
from gateway.provision.launch import image_of
from gateway.provision.local.command import (
    INHERITED,
    Allocation,
    Command,
    inference_command,
    running_server,
    worker_command,
)
from gateway.provision.local.instance import LocalInstance
from gateway.provision.local.orphans import OwnedFolder, kill_orphans, take_ended_ids
from runtime.ids import new_uuid

TemplateOf = Callable[[str, str], str | None]
"""Returns the command template that a cluster has for a container image, `None` if it has none."""


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How instances are run.

    ``folder`` is shared by all gateway processes of this machine. ``worker`` is the command of the
    worker agent. ``drain_s`` is how many seconds a worker may take to finish its requests.
    """

    folder: Path
    template_of: TemplateOf
    worker: tuple[str, ...] = (sys.executable, "-m", "worker_agent")
    python: str = sys.executable
    host: str = "127.0.0.1"
    drain_s: float = 30.0


class ProcessBackend:
    """Runs instances as processes. Call `open` first and `close` last."""

    def __init__(self, options: ProcessOptions, clock: Callable[[], float] = time.time) -> None:
        """``clock`` returns Unix seconds."""
        self._options = options
        self._clock = clock
        self._folder: OwnedFolder | None = None
        self._instances: dict[str, LocalInstance] = {}
        self._on_change: OnChange | None = None
        self._inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}

    async def open(self) -> None:
        """Kill the orphans of dead gateway processes and create the folder. Raises `OSError`."""
        owner = new_uuid()
        self._folder = await asyncio.to_thread(OwnedFolder.open, self._options.folder, owner)

    async def close(self, grace_s: float = 0.0) -> None:
        """Stop every instance, and return when none of their processes runs any more."""
        instances = list(self._instances.values())
        for instance in instances:
            instance.stop(grace_s)
        for instance in instances:
            await instance.wait_ended()
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    async def remove_orphans(self) -> set[str]:
        """Kill the processes of gateway processes of this machine that have died meanwhile.

        Return the ids of all instances that any gateway process of this machine has found ended
        in this way since the last call.
        """
        await asyncio.to_thread(kill_orphans, self._options.folder, self._require_folder().name)
        return await asyncio.to_thread(take_ended_ids, self._options.folder)

    def listen(self, on_change: OnChange) -> None:
        """Call ``on_change`` whenever the status of an instance has changed."""
        self._on_change = on_change

    def is_known(self, cluster: str) -> bool:  # noqa: ARG002
        """Whether the instances are known: always."""
        return True

    def version_ids(self) -> Iterable[tuple[str, str]]:
        """Return the function id and version id of every version that has an instance here."""
        records = [instance.launch.instance for instance in self._instances.values()]
        return {(record.function_id, record.version_id) for record in records}

    def instance_ids(self) -> set[str]:
        """Return the ids of all instances."""
        return set(self._instances)

    def statuses(self, version_id: str) -> Mapping[str, InstanceStatus]:
        """Return the statuses of one version's instances, by instance id."""
        return {
            instance_id: instance.status
            for instance_id, instance in self._instances.items()
            if instance.launch.instance.version_id == version_id
        }

    async def start(self, launch: LaunchSpec) -> None:
        """Start an instance that is new or DOWN. Do nothing for any other."""
        instance_id = launch.instance.instance_id
        folder = self._require_folder() / instance_id
        instance = self._instances.get(instance_id)
        if instance is None:
            folder.mkdir(mode=0o700, exist_ok=True)
            instance = LocalInstance(
                launch, folder, self._commands, self._clock, self._handle_change
            )
            self._instances[instance_id] = instance
        instance.start(launch)

    def stop(self, instance_id: str, grace_s: float) -> None:
        """Stop an instance; it is dropped once it has ended."""
        if (instance := self._instances.get(instance_id)) is not None:
            instance.stop(grace_s)

    def fail(self, instance_id: str, reason: str) -> None:
        """End an unhealthy instance at once; it becomes DOWN."""
        if (instance := self._instances.get(instance_id)) is not None:
            instance.fail(reason)

    def log_tail(self, instance_id: str) -> str:
        """Return the last lines of an instance's logs; empty if there are none."""
        instance = self._instances.get(instance_id)
        return "" if instance is None else instance.log_tail()

    def _handle_change(self, instance: LocalInstance) -> None:
        record = instance.launch.instance
        if instance.has_stopped and self._instances.pop(record.instance_id, None) is not None:
            if self._folder is not None:
                shutil.rmtree(self._folder.path / record.instance_id, ignore_errors=True)
        if self._on_change is not None:
            self._on_change(record.function_id, record.version_id)

    def _commands(self, launch: LaunchSpec, folder: Path) -> tuple[Command | None, Command]:
        options, inherited = self._options, self._inherited
        template = options.template_of(launch.spec.backend, image_of(launch))
        address = running_server(launch, template)
        host, port = address or (options.host, _free_port(options.host))
        allocation = Allocation(host, port, folder / "secrets.json", options.host)
        inference = None
        if address is None:
            inference = inference_command(launch, template, allocation, options.python, inherited)
        return inference, worker_command(
            launch, options.worker, allocation, options.drain_s, inherited
        )

    def _require_folder(self) -> Path:
        if self._folder is None:
            raise AssertionError("the backend is not open")
        return self._folder.path


def _free_port(host: str) -> int:
    """Return a port that is free now. Another program may take it before the server does."""
    with socket.create_server((host, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
