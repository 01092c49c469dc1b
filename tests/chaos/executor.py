"""Carries out the planned faults and remembers when each began and when it had healed."""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from runtime.tasks import spawn
from tests.chaos.history import Fault, FaultKind, Gauge, Layout
from tests.chaos.parts import Part
from tests.chaos.plan import PlannedFault

READY_S = 60.0
"""A part that does not serve as long after its start is a finding."""


class Target(Protocol):
    """What is hit."""

    parts: dict[str, Part]
    layout: Layout

    async def part(self, target: str) -> Part:
        """Return the part that ``target`` is now."""

    async def do(self, kind: FaultKind, number: int, lasts_s: float) -> None:
        """Do to the broker what is none of a process's faults; return when it is over."""

    async def settled(self, timeout_s: float) -> bool:
        """Wait until the broker has recovered; return False if that takes longer."""

    async def restored(self, timeout_s: float) -> bool:
        """Wait until the broker can do without one of its spares again."""


class Executor:
    """Hits parts, and of those that replace each other one at a time.

    So a fault begins late while such a part has not healed. ``failures`` should stay empty.
    """

    def __init__(self, world: Target) -> None:
        self.faults: list[Fault] = []
        self.failures: list[Gauge] = []
        self._world = world
        layout = world.layout
        self._brokers = (layout.broker, *layout.spares)
        groups = [layout.gateways, self._brokers, *map(layout.parts_of, layout.agents)]
        self._turns = {
            name: turn for group in groups for turn in [asyncio.Lock()] for name in group
        }
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, planned: Sequence[PlannedFault], started_at: float) -> None:
        """Carry out the faults, each at its time after ``started_at``."""
        self._tasks = [spawn(self._carry_out(fault, started_at), "fault") for fault in planned]

    async def heal(self) -> None:
        """Wait until the last fault is over, and start what has ended by itself."""
        await asyncio.gather(*self._tasks)
        for part in self._world.parts.values():
            if not part.is_running:
                self.failures.append(Gauge(part.name, "ends without a fault", 1, 0))
                part.start()
                await part.ready(READY_S)

    async def _carry_out(self, planned: PlannedFault, started_at: float) -> None:
        await asyncio.sleep(started_at + planned.at_s - time.monotonic())
        for target in planned.targets:
            async with self._turns[target]:
                part = await self._world.part(target)
                began_at = time.monotonic()
                await self._hit(part, planned)
                if target in self._brokers and not await self._world.settled(READY_S):
                    self.failures.append(Gauge(target, "recoveries that took too long", 1, 0))
                self.faults.append(
                    Fault(planned.kind, target, began_at, time.monotonic(), planned.link)
                )
                if target in self._brokers and not await self._world.restored(READY_S):
                    self.failures.append(Gauge(target, "spares that did not come back", 1, 0))

    async def _hit(self, part: Part, planned: PlannedFault) -> None:
        if planned.kind is FaultKind.PAUSE:
            part.pause()
            await asyncio.sleep(planned.lasts_s)
            part.resume()
        elif planned.kind is FaultKind.CUT:
            link = part.links[planned.link]
            link.cut()
            await asyncio.sleep(planned.lasts_s)
            link.restore()
        elif planned.is_one_process:
            part.kill_one_process(planned.number)
            await self._wait_ready(part)
        elif planned.kind not in (FaultKind.KILL, FaultKind.RESTART):
            await self._world.do(planned.kind, planned.number, planned.lasts_s)
        else:
            if planned.kind is FaultKind.KILL:
                part.kill()
            elif not await part.stop():
                self.failures.append(Gauge(part.name, "did not end after SIGTERM", 1, 0))
            await asyncio.sleep(planned.lasts_s)
            part.start()
            await self._wait_ready(part)

    async def _wait_ready(self, part: Part) -> None:
        if not await part.ready(READY_S):
            self.failures.append(Gauge(part.name, "starts that took too long", 1, 0))
