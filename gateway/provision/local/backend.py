"""The backend whose instances are processes on this machine.

Each reconciler has a folder of its own (`gateway.provision.local.orphans`); each instance has a
folder in it with ``inference.log``, ``worker.log`` and ``secrets.json``, removed with it.
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

from gateway.provision.backend import Holding, OnChange, Order
from gateway.provision.local.command import (
    INHERITED,
    Command,
    Seat,
    image_of,
    inference_command,
    worker_command,
)
from gateway.provision.local.instance import Resident
from gateway.provision.local.orphans import Folder, clear, take_gone
from wire.ids import uuid4_text

TemplateOf = Callable[[str, str], str | None]
"""Returns a cluster's command template for a container image."""


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How instances are run.

    ``folder`` is shared by all reconcilers of this machine. ``worker`` is the agent's command.
    ``drain_s`` is what a worker may take to finish once it is told to end.
    """

    folder: Path
    template_of: TemplateOf
    worker: tuple[str, ...] = (sys.executable, "-m", "worker_agent")
    python: str = sys.executable
    host: str = "127.0.0.1"
    drain_s: float = 30.0


class ProcessBackend:
    """A `gateway.provision.backend.Backend`. `open` it first, `close` it last."""

    def __init__(self, options: ProcessOptions, clock: Callable[[], float] = time.time) -> None:
        """``clock`` gives Unix seconds."""
        self._options = options
        self._clock = clock
        self._folder: Folder | None = None
        self._residents: dict[str, Resident] = {}
        self._on_change: OnChange | None = None
        self._inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}

    async def open(self) -> None:
        """Kill what dead reconcilers of this machine left, and begin. Raises `OSError`."""
        owner = uuid4_text(os.urandom(16))
        self._folder = await asyncio.to_thread(Folder.open, self._options.folder, owner)

    async def close(self, grace_s: float = 0.0) -> None:
        """Stop every instance, and return when nothing runs any more."""
        residents = list(self._residents.values())
        for resident in residents:
            resident.stop(grace_s)
        for resident in residents:
            await resident.ended()
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    async def clear_remains(self) -> set[str]:
        """Kill what reconcilers of this machine left that died meanwhile.

        Return the ids of all instances that ended so since a leader of this machine asked last.
        """
        await asyncio.to_thread(clear, self._options.folder, self._opened().name)
        return await asyncio.to_thread(take_gone, self._options.folder)

    def listen(self, on_change: OnChange) -> None:
        """Call ``on_change`` whenever an instance has changed."""
        self._on_change = on_change

    def held(self) -> Iterable[tuple[str, str]]:
        """Return function id and version id of all instances."""
        instances = [resident.order.instance for resident in self._residents.values()]
        return {(one.function_id, one.version_id) for one in instances}

    def instance_ids(self) -> set[str]:
        """Return the ids of all instances."""
        return set(self._residents)

    def holdings(self, version_id: str) -> Mapping[str, Holding]:
        """Return the instances of one version."""
        return {
            instance_id: resident.holding
            for instance_id, resident in self._residents.items()
            if resident.order.instance.version_id == version_id
        }

    async def start(self, order: Order) -> None:
        """Start an instance, or start it again."""
        folder = self._opened() / order.instance.instance_id
        resident = self._residents.get(order.instance.instance_id)
        if resident is None:
            folder.mkdir(mode=0o700, exist_ok=True)
            resident = Resident(order, folder, self._commands, self._clock, self._changed)
            self._residents[order.instance.instance_id] = resident
        resident.start(order)

    def stop(self, instance_id: str, grace_s: float) -> None:
        """Stop an instance; once it has ended, it is held no longer."""
        if (resident := self._residents.get(instance_id)) is not None:
            resident.stop(grace_s)

    def fail(self, instance_id: str, reason: str) -> None:
        """End an instance at once, as a failure."""
        if (resident := self._residents.get(instance_id)) is not None:
            resident.fail(reason)

    def tail(self, instance_id: str) -> str:
        """Return the last lines of an instance's logs."""
        resident = self._residents.get(instance_id)
        return "" if resident is None else resident.tail()

    def _changed(self, resident: Resident) -> None:
        instance = resident.order.instance
        if resident.is_gone and self._residents.pop(instance.instance_id, None) is not None:
            if self._folder is not None:
                shutil.rmtree(self._folder.path / instance.instance_id, ignore_errors=True)
        if self._on_change is not None:
            self._on_change(instance.function_id, instance.version_id)

    def _commands(self, order: Order, folder: Path) -> tuple[Command, Command]:
        options = self._options
        seat = Seat(options.host, _free_port(options.host), folder / "secrets.json")
        template = options.template_of(order.spec.backend, image_of(order))
        return (
            inference_command(order, template, seat, options.python, self._inherited),
            worker_command(order, options.worker, seat, options.drain_s, self._inherited),
        )

    def _opened(self) -> Path:
        if self._folder is None:
            raise AssertionError("the backend is not open")
        return self._folder.path


def _free_port(host: str) -> int:
    """Return a port that nobody listens on now. Somebody may take it before the server does."""
    with socket.create_server((host, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
