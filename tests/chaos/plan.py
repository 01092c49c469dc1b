"""The faults of a run, planned from its seed. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from tests.chaos.history import FaultKind, Layout

GAP_S = 3.0
"""Average time between the beginnings of two faults, if there is a part that may be hit."""
MAX_AT_ONCE = 2
SHORTEST_S, LONGEST_S = 0.1, 15.0
"""Durations of pauses and cuts; each factor of two is as likely as another."""
DEAD_S = 3.0
"""A killed part is started again after at most this time."""
RECOVERY_S = 3.0
"""A part that was hit is left alone for as long."""
ROLL_EVERY_S = 120.0
"""Time between two rolling restarts of all gateways and agents."""
ROLL_S = 5.0
"""In a rolling restart, nothing else is hit for as long as this for each part."""
BROKERS_SHARE = 0.2
"""Share of the faults that hit the broker."""
TESTED_SHARE = 0.5
"""The same of a broker to which more can be done than to other programs."""
SPARES_SHARE = 0.2
"""Share of the broker's faults that hit a spare of it."""

Links = Mapping[str, tuple[str, ...]]
"""The names of the links of each part that has some."""

_WEIGHTS = {
    FaultKind.KILL: 4,
    FaultKind.PAUSE: 4,
    FaultKind.RESTART: 2,
    FaultKind.CUT: 4,
    FaultKind.FAILOVER: 5,
    FaultKind.DISCONNECT: 4,
    FaultKind.FLUSH: 2,
    FaultKind.BUSY: 2,
    FaultKind.FULL: 2,
}
_OF_PROGRAMS = (FaultKind.KILL, FaultKind.PAUSE, FaultKind.RESTART, FaultKind.CUT)


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

    @property
    def number(self) -> int:
        """A number that decides what the kind leaves open."""
        return int(self.at_s * 1000)


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
            at_s += ROLL_S * len(parts)
            continue
        busy = {name for name, until_s in busy_until.items() if until_s > at_s}
        everything = (*layout.gateways, *sorted(layout.servers), *sorted(layout.servers.values()))
        parts = tuple(name for name in everything if _may_hit(layout, name, busy))
        share = TESTED_SHARE if layout.broker_kinds else BROKERS_SHARE
        if layout.broker not in busy and random.random() < share:
            parts = (layout.broker,)
            if layout.spares and random.random() < SPARES_SHARE:
                parts = layout.spares
        if len(busy) < MAX_AT_ONCE and parts:
            target = random.choice(parts)
            planned.append(_one(random, layout, links.get(target, ()), at_s, target))
            if target in layout.spares:
                target = layout.broker
            rest_s = layout.broker_rest_s if target == layout.broker else 0.0
            busy_until[target] = at_s + planned[-1].lasts_s + max(RECOVERY_S, rest_s)


def fixed_faults(layout: Layout, links: Links) -> list[PlannedFault]:
    """Return the faults of the short run: each kind of part is hit in each way that it can be.

    When the broker is killed, calls of the last function wait, and nothing else has a fault.
    """
    gateway, other = layout.gateways
    first, second, lonely = sorted(layout.servers)
    planned = [
        PlannedFault(1.0, FaultKind.KILL, (first,), 0.5),
        PlannedFault(3.0, FaultKind.PAUSE, (second,), 4.0),
        PlannedFault(5.0, FaultKind.KILL, (gateway,), 0.3, is_one_process=True),
        PlannedFault(8.0, FaultKind.KILL, (layout.servers[first],), 1.0),
        PlannedFault(12.2, FaultKind.KILL, (layout.broker,), 0.3),
        PlannedFault(15.0, FaultKind.PAUSE, (other,), 2.0),
        PlannedFault(15.5, FaultKind.RESTART, (lonely,)),
        PlannedFault(17.5, FaultKind.PAUSE, (layout.broker,), 1.0),
        PlannedFault(20.0, FaultKind.PAUSE, (layout.servers[second],), 1.5),
        PlannedFault(22.0, FaultKind.RESTART, (other,)),
    ]
    cuts = [
        PlannedFault(0.5, FaultKind.CUT, (lonely,), 3.0, "back"),
        PlannedFault(18.5, FaultKind.CUT, (gateway,), 2.0, "back"),
    ]
    broker = [
        PlannedFault(7.0, FaultKind.DISCONNECT, (layout.broker,)),
        PlannedFault(9.5, FaultKind.FLUSH, (layout.broker,)),
        PlannedFault(14.0, FaultKind.FULL, (layout.broker,), 1.0),
        PlannedFault(21.5, FaultKind.BUSY, (layout.broker,), 1.5),
        PlannedFault(24.0, FaultKind.FAILOVER, (layout.broker,)),
    ]
    return [
        *planned,
        *(cut for cut in cuts if cut.link in links.get(cut.targets[0], ())),
        *(fault for fault in broker if fault.kind in layout.broker_kinds),
    ]


def _one(
    random: Random, layout: Layout, links: tuple[str, ...], at_s: float, target: str
) -> PlannedFault:
    kinds = (*_OF_PROGRAMS, *(layout.broker_kinds if target == layout.broker else ()))
    kind = random.choices(kinds, [_WEIGHTS[kind] for kind in kinds])[0]
    lasts_s = SHORTEST_S * (LONGEST_S / SHORTEST_S) ** random.random()
    if kind is FaultKind.CUT:
        if links:
            return PlannedFault(at_s, kind, (target,), lasts_s, random.choice(links))
        kind = FaultKind.PAUSE
    if kind is FaultKind.PAUSE or kind in layout.broker_kinds:
        return PlannedFault(at_s, kind, (target,), lasts_s)
    if kind is FaultKind.RESTART and target not in layout.servers.values():
        return PlannedFault(at_s, kind, (target,))
    is_one_process = target in layout.shared and random.random() < 0.5
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
