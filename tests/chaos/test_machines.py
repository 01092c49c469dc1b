"""One machine of each kind fails under load, behind HAProxy and behind nginx."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.checks import violations_of
from tests.chaos.history import Call, End, Fault, FaultKind, History
from tests.chaos.machines import GATEWAYS, LAYOUT, NODES, MachinesWorld, why_no_machines
from tests.chaos.plan import PlannedFault
from tests.chaos.report import figures, findings
from tests.chaos.run import lines_about, run
from tests.chaos.world import FRONT

LOAD_S = 42.0
LIMIT_S = 300.0
"""A run takes 75 s; longer only if something hangs, which it then reports itself."""
_BROKEN, _NO_SERVER = 502, 503
PLANNED = [
    PlannedFault(1.0, FaultKind.KILL, ("agent-1",), 1.0),
    PlannedFault(3.0, FaultKind.KILL, ("gateway-1",), 1.5),
    PlannedFault(6.0, FaultKind.KILL, ("nats-1",), 1.5),
    PlannedFault(12.0, FaultKind.KILL, ("inference-4",), 1.0),
    PlannedFault(14.0, FaultKind.KILL, ("nats-2",), 1.5),
    PlannedFault(20.0, FaultKind.CUT, ("gateway-2",), 4.0, FRONT),
    PlannedFault(22.0, FaultKind.KILL, ("nats-3",), 1.5),
    PlannedFault(30.0, FaultKind.RESTART, ("gateway-3",)),
    PlannedFault(31.0, FaultKind.RESTART, ("agent-5",)),
]
"""Each NATS server in turn: one of them leads the queues."""


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("front", ["haproxy", "nginx"])
async def test_one_machine_of_each_kind_fails_under_load(tmp_path: Path, front: str) -> None:
    if reason := why_no_machines(front):
        pytest.skip(reason)
    world = MachinesWorld(tmp_path, front)
    try:
        await world.start()
        found, clock = await run(world, 1, LOAD_S, PLANNED)
        history = behind_a_front(found)
        violations = violations_of(history)
        numbers = {number for one in violations for number in one.numbers}
        text = findings(history, violations, clock, lines_about(world, history, numbers))
        print(text, figures(history, violations, 1), sep="\n")  # noqa: T201 - the figures of the run
        assert not violations, text
    finally:
        await world.stop()


def behind_a_front(history: History) -> History:
    """Return a history in which one part stands for all gateways, and one for all NATS servers.

    Clients do not know which gateway has their call. What the front says of a gateway that broke
    off is no response: its own 502 counts as a connection that was cut.
    """
    return replace(
        history,
        layout=replace(LAYOUT, gateways=(FRONT,), shared=(FRONT,), spares=()),
        calls=[_seen(call) for call in history.calls],
        faults=[_renamed(fault) for fault in history.faults],
    )


def _seen(call: Call) -> Call:
    is_fronts = call.status == _BROKEN and not call.reason and not call.is_served
    if is_fronts and call.end is End.WHOLE:
        call = replace(call, end=End.CUT, status=0, head_at=0.0)
    return replace(call, gateway=FRONT)


def _renamed(fault: Fault) -> Fault:
    """Name the part that stands for all of the kind."""
    if fault.target in GATEWAYS:
        return replace(fault, target=FRONT)
    return replace(fault, target=NODES[0]) if fault.target in NODES else fault
