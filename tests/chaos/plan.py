"""The faults of a run, planned from its seed. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from tests.chaos.history import FaultKind, Layout

GAP_S = 4.0
"""Average time between the beginnings of two faults."""
MAX_AT_ONCE = 2
SHORTEST_S, LONGEST_S = 0.1, 15.0
"""Durations of pauses and cuts; each factor of two is as likely as another."""
DEAD_S = 3.0
"""A killed part is started again after at most this time."""
RECOVERY_S = 6.0
"""A part that was hit is left alone for as long."""
ROLL_EVERY_S = 120.0
"""Time between two rolling restarts of all gateways and agents."""

Links = Mapping[str, tuple[str, ...]]
"""The names of the links of each part that has some."""

_WEIGHTS = {
    FaultKind.KILL: 4,
    FaultKind.PAUSE: 4,
    FaultKind.RESTART: 2,
    FaultKind.CUT: 4,
}


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """``at_s`` after the start of the load, one of ``targets`` after the other is hit.

    ``lasts_s`` is how long each stays dead, paused or cut off. ``is_one_process`` kills one of a
    gateway's processes only.
    """

    at_s: float
    kind: FaultKind
    targets: tuple[str, ...]
    lasts_s: float = 0.0
    link: str = ""
    is_one_process: bool = False


def faults(seed: int, layout: Layout, links: Links, duration_s: float) -> list[PlannedFault]:
    """Return the faults of ``duration_s`` seconds.

    At most `MAX_AT_ONCE` parts are hit at a time, and neither all gateways nor all agents of a
    function that has several.
    """
    random = Random(f"faults {seed}")
    planned: list[PlannedFault] = []
    busy_until: dict[str, float] = {}
    at_s, roll_at_s = 0.0, ROLL_EVERY_S / 2
    while True:
        at_s += random.uniform(0.5, 2 * GAP_S - 0.5)
        if at_s >= duration_s:
            return planned
        if at_s >= roll_at_s:
            parts = (*layout.gateways, *sorted(layout.servers))
            planned.append(PlannedFault(at_s, FaultKind.RESTART, parts))
            # Nothing else meanwhile: a rolling restart has no failed calls.
            roll_at_s += ROLL_EVERY_S
            at_s += 8.0 * len(parts)
            continue
        fault = _one(random, layout, links, at_s)
        (target,) = fault.targets
        busy = {name for name, until_s in busy_until.items() if until_s > at_s}
        if len(busy) >= MAX_AT_ONCE or not _may_hit(layout, target, busy):
            continue
        busy_until[target] = at_s + fault.lasts_s + RECOVERY_S
        planned.append(fault)


def fixed_faults(layout: Layout, links: Links) -> list[PlannedFault]:
    """Return the faults of the short run: each kind of part is hit in each way that it can be."""
    gateway, other = layout.gateways
    agents = sorted(layout.servers)
    first, second, lonely = agents
    planned = [
        PlannedFault(1.0, FaultKind.KILL, (first,), 0.5),
        PlannedFault(3.0, FaultKind.PAUSE, (second,), 4.0),
        PlannedFault(5.0, FaultKind.KILL, (gateway,), 0.3, is_one_process=True),
        PlannedFault(8.0, FaultKind.KILL, (layout.servers[first],), 1.0),
        PlannedFault(10.0, FaultKind.PAUSE, (other,), 2.0),
        PlannedFault(12.0, FaultKind.KILL, (layout.broker,), 0.3),
        PlannedFault(15.0, FaultKind.RESTART, (lonely,)),
        PlannedFault(17.0, FaultKind.PAUSE, (layout.broker,), 1.0),
        PlannedFault(20.0, FaultKind.PAUSE, (layout.servers[second],), 1.5),
        PlannedFault(22.0, FaultKind.RESTART, (other,)),
    ]
    cuts = [
        PlannedFault(6.5, FaultKind.CUT, (lonely,), 3.0, "back"),
        PlannedFault(18.5, FaultKind.CUT, (gateway,), 2.0, "back"),
    ]
    return planned + [cut for cut in cuts if cut.link in links.get(cut.targets[0], ())]


def _one(random: Random, layout: Layout, links: Links, at_s: float) -> PlannedFault:
    kind = random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    parts = [*layout.gateways, *sorted(layout.servers), *sorted(layout.servers.values())]
    target = random.choice([*parts, layout.broker])
    lasts_s = SHORTEST_S * (LONGEST_S / SHORTEST_S) ** random.random()
    if kind is FaultKind.CUT:
        if names := links.get(target, ()):
            return PlannedFault(at_s, kind, (target,), lasts_s, random.choice(names))
        kind = FaultKind.PAUSE
    if kind is FaultKind.PAUSE:
        return PlannedFault(at_s, kind, (target,), lasts_s)
    if kind is FaultKind.RESTART and target not in layout.servers.values():
        return PlannedFault(at_s, kind, (target,))
    is_one_process = target == layout.gateways[0] and random.random() < 0.5
    return PlannedFault(
        at_s,
        FaultKind.KILL,
        (target,),
        random.uniform(SHORTEST_S, DEAD_S),
        is_one_process=is_one_process,
    )


def _may_hit(layout: Layout, target: str, busy: set[str]) -> bool:
    """Return whether something that does the same as ``target`` stays alive."""
    if target in busy:
        return False
    if target in layout.gateways:
        return not busy.intersection(layout.gateways)
    if function := layout.function_of(target):
        return not busy.intersection(layout.parts_of(function))
    return True
