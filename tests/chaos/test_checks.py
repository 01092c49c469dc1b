"""Every check finds what it is for, and allows what faults make unavoidable."""

from dataclasses import replace

import pytest

from tests.chaos.checks import (
    BACKLOG_S,
    BOUND_S,
    CHECKS,
    GRACE_S,
    IN_FLIGHT_S,
    RECONNECT_S,
    TAIL_S,
    violations_of,
)
from tests.chaos.history import (
    Call,
    End,
    Fault,
    FaultKind,
    Gauge,
    History,
    Kind,
    Layout,
    Run,
)

LAYOUT = Layout(
    gateways=("g1", "g2"),
    shared=("g1",),
    agents={"f1": ("a1", "a2"), "f2": ("a3",)},
    servers={"a1": "i1", "a2": "i2", "a3": "i3"},
    max_concurrency=2,
)
CALL = Call(
    number=1,
    kind=Kind.SMALL,
    function="f1",
    gateway="g1",
    window_s=5,
    paced_s=0,
    started_at=100.0,
    ended_at=100.3,
    end=End.WHOLE,
    status=200,
    head_at=100.2,
    is_served=True,
)
RUN = Run(
    number=1, server="i1", pid=7, started_at=100.1, first_at=100.2, ended_at=100.3, how="ends"
)
AGAIN = replace(RUN, server="i2", started_at=103.0, first_at=103.0, ended_at=103.1)
TOLD = replace(CALL, status=504, reason="poll_timeout", is_served=False)


def found(history: History) -> list[str]:
    return [violation.check for violation in violations_of(history)]


def fault(
    kind: FaultKind, target: str, began_at: float = 99.0, ended_at: float = 100.0
) -> list[Fault]:
    return [Fault(kind, target, began_at, ended_at, "back" if kind is FaultKind.CUT else "")]


def test_a_good_history_has_no_violation() -> None:
    calls = [
        CALL,
        replace(CALL, number=2, kind=Kind.ERROR, status=422),
        replace(CALL, number=3, end=End.LEFT, status=0, head_at=0.0, is_served=False),
    ]
    gauges = [Gauge("g1", "descriptors", 20, 20)]
    assert found(History(LAYOUT, calls, [RUN], gauges=gauges)) == []


BROKER_KILLED = fault(FaultKind.KILL, "nats", 101.0, 102.0)
BAD = {
    "nothing_runs_after_its_first_byte": History(LAYOUT, [CALL], [RUN, AGAIN]),
    "nothing_runs_after_its_client_was_told": History(
        LAYOUT, [TOLD], [AGAIN], fault(FaultKind.KILL, "a1")
    ),
    "nothing_hangs": History(LAYOUT, [replace(CALL, ended_at=105.1 + GRACE_S + BOUND_S)]),
    "nothing_has_another_calls_data": History(LAYOUT, [replace(CALL, foreign="call 2")]),
    "no_clean_end_of_a_cut_response": History(LAYOUT, [replace(CALL, missing="3 bytes")]),
    "outcomes_are_those_of_the_faults": History(LAYOUT, [TOLD]),
    "nothing_that_waits_is_lost_with_the_broker": History(
        LAYOUT, [replace(TOLD, status=503, head_at=102.0, ended_at=102.0)], faults=BROKER_KILLED
    ),
    "max_concurrency_is_kept": History(
        LAYOUT, runs=[replace(RUN, number=n, ended_at=0.0) for n in (1, 2, 3)]
    ),
    "nothing_is_left": History(LAYOUT, gauges=[Gauge("g1", "descriptors", 21, 20)]),
}


def test_every_check_can_fail() -> None:
    assert sorted(BAD) == sorted(check.__name__ for check in CHECKS)


@pytest.mark.parametrize("check", BAD)
def test_a_bad_history_violates_exactly_its_check(check: str) -> None:
    assert found(BAD[check]) == [check]


# Runs


def test_a_second_run_before_the_first_byte_is_allowed() -> None:
    early = replace(AGAIN, started_at=CALL.head_at + IN_FLIGHT_S)
    assert found(History(LAYOUT, [CALL], [RUN, early])) == []


def test_the_head_that_only_the_gateway_had_counts() -> None:
    left = replace(CALL, end=End.LEFT, ended_at=104.0, head_at=103.9)
    runs = [RUN, AGAIN]
    assert found(History(LAYOUT, [left], runs)) == []
    known = replace(left, gateway_head_at=100.2)
    assert found(History(LAYOUT, [known], runs)) == ["nothing_runs_after_its_first_byte"]


@pytest.mark.parametrize("call", [CALL, TOLD])
def test_a_paused_inference_server_starts_later_what_was_sent_before(call: Call) -> None:
    paused = fault(FaultKind.PAUSE, "i2", 100.1, AGAIN.started_at - 0.1)
    agents = fault(FaultKind.PAUSE, "a2", 100.1, AGAIN.started_at - 0.1)
    assert found(History(LAYOUT, [call], [AGAIN], paused)) == []
    assert len(found(History(LAYOUT, [call], [AGAIN], agents))) == 1


def test_runs_of_an_agent_that_was_killed_do_not_count_for_the_next_one() -> None:
    runs = [replace(RUN, number=n, started_at=100.0 + n, ended_at=110.0) for n in (1, 2, 3, 4)]
    assert found(History(LAYOUT, runs=runs)) == ["max_concurrency_is_kept"] * 2
    assert found(History(LAYOUT, runs=runs, agent_starts={"a1": [50.0, 102.5]})) == []


def test_a_run_that_has_ended_does_not_count() -> None:
    runs = [replace(RUN, number=n, started_at=100.0 + n, ended_at=102.9) for n in (1, 2)]
    assert found(History(LAYOUT, runs=[*runs, replace(RUN, number=3, started_at=103.0)])) == []


def test_an_inference_server_that_gets_another_calls_data_is_found() -> None:
    runs = [replace(RUN, foreign="call 2")]
    assert found(History(LAYOUT, [CALL], runs)) == ["nothing_has_another_calls_data"]


# Ends


def test_a_call_that_the_harness_ended_hangs() -> None:
    hanging = replace(CALL, end=End.GAVE_UP, ended_at=101.0)
    assert found(History(LAYOUT, [hanging])) == ["nothing_hangs"]


def test_a_pause_of_its_gateway_holds_a_call_up_and_that_of_another_does_not() -> None:
    late = replace(CALL, ended_at=110.0 + GRACE_S + BOUND_S, head_at=0.0, end=End.LEFT)
    assert found(History(LAYOUT, [late], faults=fault(FaultKind.PAUSE, "g1", 101.0, 107.0))) == []
    for other in ("g2", "a1"):
        paused = fault(FaultKind.PAUSE, other, 101.0, 107.0)
        assert found(History(LAYOUT, [late], faults=paused)) == ["nothing_hangs"]


CUT = replace(CALL, end=End.CUT)
CUT_BEFORE = replace(CUT, head_at=0.0, status=0, is_served=False)


def refused(status: int) -> Call:
    return replace(TOLD, status=status)


@pytest.mark.parametrize(
    ("call", "kind", "target"),
    [
        (CUT, FaultKind.KILL, "g1"),
        (CUT_BEFORE, FaultKind.KILL, "g1"),
        (CUT, FaultKind.KILL, "a1"),
        (CUT, FaultKind.KILL, "i2"),
        (CUT, FaultKind.CUT, "a2"),
        (replace(CUT_BEFORE, end=End.REFUSED), FaultKind.RESTART, "g1"),
        (replace(CUT_BEFORE, end=End.STALE), FaultKind.RESTART, "g1"),
        (refused(503), FaultKind.KILL, "nats"),
        (refused(503), FaultKind.PAUSE, "nats"),
        (refused(504), FaultKind.PAUSE, "a1"),
        (refused(502), FaultKind.KILL, "a1"),
    ],
)
def test_a_failure_is_allowed_that_its_fault_explains(
    call: Call, kind: FaultKind, target: str
) -> None:
    assert found(History(LAYOUT, [call], faults=fault(kind, target))) == []


@pytest.mark.parametrize(
    ("call", "kind", "target"),
    [
        (CUT, FaultKind.KILL, "g2"),
        (CUT, FaultKind.KILL, "a3"),
        (CUT, FaultKind.KILL, "nats"),
        (CUT, FaultKind.PAUSE, "a1"),
        (CUT, FaultKind.RESTART, "a1"),
        (CUT, FaultKind.RESTART, "g1"),
        (CUT_BEFORE, FaultKind.KILL, "a1"),
        (refused(503), FaultKind.KILL, "g1"),
        (refused(503), FaultKind.RESTART, "g1"),
        (refused(503), FaultKind.KILL, "a1"),
        (refused(500), FaultKind.PAUSE, "a1"),
        (refused(401), FaultKind.KILL, "nats"),
        (refused(400), FaultKind.KILL, "i1"),
    ],
)
def test_a_failure_is_found_that_its_fault_does_not_explain(
    call: Call, kind: FaultKind, target: str
) -> None:
    history = History(LAYOUT, [call], faults=fault(kind, target))
    assert found(history) == ["outcomes_are_those_of_the_faults"]


@pytest.mark.parametrize("kind", [FaultKind.KILL, FaultKind.RESTART])
def test_a_gateway_alone_on_its_address_may_refuse_until_it_can_serve(kind: FaultKind) -> None:
    for gateway, expected in (("g1", ["outcomes_are_those_of_the_faults"]), ("g2", [])):
        call = replace(refused(503), gateway=gateway)
        assert found(History(LAYOUT, [call], faults=fault(kind, gateway))) == expected


@pytest.mark.parametrize(
    ("call", "tail_s"), [(TOLD, BACKLOG_S), (refused(503), RECONNECT_S), (refused(502), TAIL_S)]
)
def test_a_fault_explains_nothing_that_begins_long_after_it(call: Call, tail_s: float) -> None:
    for late_s, expected in ((0.1, ["outcomes_are_those_of_the_faults"]), (-0.1, [])):
        end = call.started_at - tail_s - late_s
        history = History(LAYOUT, [call], faults=fault(FaultKind.KILL, "nats", end - 1, end))
        assert found(history) == expected


def test_a_dead_inference_server_fails_only_what_it_may_have_run() -> None:
    late = refused(500)
    killed = fault(FaultKind.KILL, "i1", late.started_at - 1, late.ended_at + 1)
    assert found(History(LAYOUT, [late], faults=killed)) == ["outcomes_are_those_of_the_faults"]
    assert found(History(LAYOUT, [late], [RUN], killed)) == []
    before = fault(FaultKind.KILL, "i1", late.started_at, late.ended_at + 1)
    assert found(History(LAYOUT, [late], faults=before)) == []


def test_a_short_window_may_end_without_a_fault() -> None:
    assert found(History(LAYOUT, [replace(TOLD, window_s=1)])) == []


def test_a_call_is_refused_because_of_others_only_while_others_wait() -> None:
    slots = LAYOUT.max_concurrency * len(LAYOUT.agents["f1"])
    refused_one = refused(429)
    others = [
        replace(CALL, number=10 + n, started_at=refused_one.started_at - 1)
        for n in range(slots + 1)
    ]
    assert found(History(LAYOUT, [refused_one, *others])) == []
    assert found(History(LAYOUT, [refused_one, *others[1:]])) == [
        "outcomes_are_those_of_the_faults"
    ]


def test_only_what_waited_and_was_not_begun_must_outlive_the_broker() -> None:
    lost = replace(TOLD, status=503, ended_at=102.0)
    new = replace(lost, started_at=BROKER_KILLED[0].began_at + 0.1)
    begun = replace(RUN, ended_at=0.0)
    assert found(History(LAYOUT, [new], faults=BROKER_KILLED)) == []
    assert found(History(LAYOUT, [lost], [begun], BROKER_KILLED)) == []
    killed = [*BROKER_KILLED, *fault(FaultKind.KILL, "a2", 101.0, 102.0)]
    assert found(History(LAYOUT, [lost], faults=killed)) == []
