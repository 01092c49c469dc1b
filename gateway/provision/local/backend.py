"""A `gateway.provision.backend.Backend` that runs instances as processes of this machine.

All gateway processes of a machine share a folder, in which each instance has one
(`gateway.provision.local.folder`), deleted when the instance ends. A gateway process that ends
leaves its instances to the one that leads next, if options say so.
"""

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.domain.model import Instance
from gateway.provision.backend import InstanceStatus, LaunchSpec, OnChange
from gateway.provision.launch import image_of
from gateway.provision.local.command import (
    INHERITED,
    Allocation,
    inference_command,
    running_server,
    worker_command,
)
from gateway.provision.local.folder import InstanceFolder, InstanceRecord, open_running, take_all
from gateway.provision.local.instance import LocalInstance, Run
from gateway.provision.local.processes import machine_of
from runtime.events import emit
from runtime.ids import new_uuid
from runtime.version import program_version

_log = logging.getLogger("gateway.provision")

TemplateOf = Callable[[str, str], str | None]
"""Returns the command template that a cluster has for a container image, `None` if it has none."""


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How instances are run.

    ``folder`` is shared by all gateway processes of this machine. ``worker`` is the command of the
    worker agent. ``drain_s`` is how many seconds a worker may take to finish its requests.
    ``outlive``: instances go on when the gateway process ends.
    """

    folder: Path
    template_of: TemplateOf
    worker: tuple[str, ...] = (sys.executable, "-m", "worker_agent")
    python: str = sys.executable
    host: str = "127.0.0.1"
    drain_s: float = 30.0
    outlive: bool = True


class ProcessBackend:
    """Runs instances as processes. Call `open` first and `close` last."""

    def __init__(self, options: ProcessOptions, clock: Callable[[], float] = time.time) -> None:
        """``clock`` returns Unix seconds."""
        self._options = options
        self._clock = clock
        self._owner = new_uuid()
        self._running: Path | None = None
        self._instances: dict[str, LocalInstance] = {}
        self._on_change: OnChange | None = None
        self._inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self.machine = ""
        """Same in all gateway processes that can adopt each other's instances, once open."""

    async def open(self) -> None:
        """Create the folder. Raises `OSError`."""
        self._running = await asyncio.to_thread(open_running, self._options.folder)
        self.machine = machine_of(self._running)

    async def close(self, grace_s: float = 0.0) -> None:
        """Stop every instance, and return when none of their processes runs any more."""
        instances = list(self._instances.values())
        for instance in instances:
            instance.stop(grace_s)
        for instance in instances:
            await instance.wait_ended()

    async def adopt(self) -> None:
        """Take over all instances of this machine that no gateway process has."""
        for folder in await asyncio.to_thread(
            take_all, self._require_running(), frozenset(self._instances)
        ):
            await self._adopt(folder)

    def release(self) -> None:
        """Leave all instances to the next gateway process that adopts them.

        Those that do not outlive this process are stopped.
        """
        for instance_id, instance in list(self._instances.items()):
            if not self._options.outlive:
                instance.stop(self._options.drain_s)
                continue
            del self._instances[instance_id]
            instance.release()
            emit(_log, "provision.instance_left", instance_id=instance_id)

    async def _adopt(self, folder: InstanceFolder) -> None:
        try:
            record = folder.read()
        except (OSError, ValueError) as error:
            # Of another version of the gateway, or damaged: what cannot be managed is ended.
            killed = await asyncio.to_thread(folder.kill_all)
            emit(
                _log,
                "provision.bad_record",
                logging.WARNING,
                folder=str(folder.path),
                error=str(error),
                processes=sorted(killed),
            )
            folder.remove()
            return
        instance = self._make(record.instance)
        self._instances[record.instance.instance_id] = instance
        instance.adopt(folder, record.commands)
        emit(
            _log,
            "provision.instance_adopted",
            instance_id=record.instance.instance_id,
            started_by=record.owner,
            gateway=record.gateway,
        )

    def listen(self, on_change: OnChange) -> None:
        """Call ``on_change`` whenever the status of an instance has changed."""
        self._on_change = on_change

    def is_known(self, cluster: str) -> bool:  # noqa: ARG002
        """Whether the instances are known: always."""
        return True

    def version_ids(self) -> Iterable[tuple[str, str]]:
        """Return the function id and version id of every version that has an instance here."""
        records = [instance.record for instance in self._instances.values()]
        return {(record.function_id, record.version_id) for record in records}

    def instance_ids(self) -> set[str]:
        """Return the ids of all instances."""
        return set(self._instances)

    def statuses(self, version_id: str) -> Mapping[str, InstanceStatus]:
        """Return the statuses of one version's instances, by instance id."""
        return {
            instance_id: instance.status
            for instance_id, instance in self._instances.items()
            if instance.record.version_id == version_id
        }

    async def start(self, launch: LaunchSpec) -> None:
        """Start an instance that is new or DOWN. Do nothing for any other."""
        instance = self._instances.get(launch.instance.instance_id)
        if instance is None:
            instance = self._make(launch.instance)
            self._instances[launch.instance.instance_id] = instance
        instance.start(launch, self._run_of)

    def record(self, instance_id: str) -> Instance | None:
        """Return the record with which an instance was started; `None` if it is not here."""
        instance = self._instances.get(instance_id)
        return None if instance is None else instance.record

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

    def _make(self, record: Instance) -> LocalInstance:
        return LocalInstance(
            record,
            self._require_running(),
            self._clock,
            self._handle_change,
            outlives=self._options.outlive,
        )

    def _handle_change(self, instance: LocalInstance) -> None:
        record = instance.record
        if instance.has_stopped and self._instances.pop(record.instance_id, None) is not None:
            instance.remove()
        if self._on_change is not None:
            self._on_change(record.function_id, record.version_id)

    def _run_of(self, launch: LaunchSpec, folder: Path) -> Run:
        options, inherited = self._options, self._inherited
        template = options.template_of(launch.spec.backend, image_of(launch))
        address = running_server(launch, template)
        host, port = address or (options.host, _free_port(options.host))
        allocation = Allocation(host, port, folder / "secrets.json", options.host)
        commands = {}
        if address is None:
            commands["inference"] = inference_command(
                launch, template, allocation, options.python, inherited
            )
        commands["worker"] = worker_command(
            launch, options.worker, allocation, options.drain_s, inherited
        )
        record = InstanceRecord(
            launch.instance,
            {name: command.argv for name, command in commands.items()},
            (host, port),
            program_version(),
            self._owner,
        )
        return Run(commands, record)

    def _require_running(self) -> Path:
        if self._running is None:
            raise AssertionError("the backend is not open")
        return self._running


def _free_port(host: str) -> int:
    """Return a port that is free now. Another program may take it before the server does."""
    with socket.create_server((host, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
