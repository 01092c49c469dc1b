"""The plans of a run follow from its seed, and keep enough of the system alive."""

from itertools import islice

from tests.chaos.history import FaultKind, Kind
from tests.chaos.load import sessions
from tests.chaos.payloads import event, foreign_part, payload
from tests.chaos.plan import faults, fixed_faults
from tests.chaos.world import BACK, FRONT, LAYOUT, LAYOUTS

LINKS = {
    **dict.fromkeys((*LAYOUT.servers, LAYOUT.broker), (BACK,)),
    **dict.fromkeys(LAYOUT.gateways, (FRONT, BACK)),
}


def test_a_seed_repeats_its_calls_and_faults() -> None:
    def planned(seed: int) -> object:
        calls = sessions(seed, tuple(LAYOUT.agents), LAYOUT.gateways)
        return faults(seed, LAYOUT, LINKS, 600), list(islice(calls, 100))

    assert planned(1) == planned(1)
    assert planned(1) != planned(2)


def test_a_plan_hits_every_part_in_every_way_and_one_gateway_lives() -> None:
    planned = faults(1, LAYOUT, LINKS, 3600)
    assert {fault.kind for fault in planned} == {
        *(FaultKind.KILL, FaultKind.PAUSE, FaultKind.RESTART, FaultKind.CUT)
    }
    parts = {*LAYOUT.gateways, *LAYOUT.servers, *LAYOUT.servers.values(), LAYOUT.broker}
    assert {target for fault in planned for target in fault.targets} == parts
    assert any(fault.is_one_process for fault in planned)
    assert {fault.link for fault in planned} == {"", FRONT, BACK}
    dead = [(f.at_s, f.at_s + f.lasts_s, f.targets[0]) for f in planned if len(f.targets) == 1]
    for began, _, target in dead:
        others = {name for at, until, name in dead if at <= began < until}
        assert not {*LAYOUT.gateways} <= {*others, target}
        assert not {*LAYOUT.agents["function-1"]} <= {*others, target}


def test_a_plan_with_sentinels_does_everything_to_the_master_and_programs_faults_to_the_rest() -> (
    None
):
    layout = LAYOUTS["sentinel"]
    links = {**LINKS, **dict.fromkeys((layout.broker, *layout.spares), (BACK,))}
    planned = faults(1, layout, links, 3600)
    on_master = {fault.kind for fault in planned if fault.targets == (layout.broker,)}
    assert on_master == set(FaultKind)
    assert set(layout.spares) <= {target for fault in planned for target in fault.targets}
    assert not any(
        fault.kind in layout.broker_kinds and fault.targets != (layout.broker,) for fault in planned
    )


def test_without_networks_nothing_is_cut() -> None:
    for planned in (faults(1, LAYOUT, {}, 3600), fixed_faults(LAYOUT, {})):
        assert FaultKind.CUT not in {fault.kind for fault in planned}
    assert FaultKind.CUT in {fault.kind for fault in fixed_faults(LAYOUT, LINKS)}


def test_all_kinds_of_calls_are_made() -> None:
    planned = islice(sessions(1, tuple(LAYOUT.agents), LAYOUT.gateways), 400)
    calls = [call for session in planned for call in session.calls]
    assert {call.kind for call in calls} == set(Kind)
    assert [call.number for call in calls] == list(range(1, len(calls) + 1))
    assert any(call.is_chunked for call in calls)
    assert any(call.leaves_s is not None for call in calls)
    assert any(call.part_pause_s for call in calls)


def test_data_of_another_call_is_noticed() -> None:
    whole = payload(12, 1000)
    assert len(whole) == 1000
    assert foreign_part(whole[:500], 12, whole) == ""
    assert "not data of call 12" in foreign_part(payload(13, 1000), 12, whole)
    assert foreign_part(event(1, 0) + event(2, 1), 1, event(1, 0) + event(1, 1)) != ""
    assert foreign_part(whole + b"x", 12, whole) != ""
