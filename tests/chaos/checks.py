"""The rules that a history must keep. Pure: a history in, its violations out.

Each check is a function whose name is the rule. Rules allow for what a fault makes unavoidable and
for nothing else, so a fault counts only for the calls whose gateway, function or broker it hit.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.chaos.history import Call, End, Fault, FaultKind, History, Kind, Run

IN_FLIGHT_S = 0.25
"""A request that an agent sent just before its client was told is under way for as long."""
GRACE_S = 2.0
"""The gateway waits as long after the poll window for a response head (``docs/wire.md`` §6.2)."""
BOUND_S = 15.0
"""What a loaded machine may add to any period."""
VANISHED_S = 60.0
"""Within this time the end of a peer is noticed that could not tell it."""
BACKLOG_S = 30.0
"""After a fault, calls may still wait behind those that it held up."""
RECONNECT_S = 10.0
"""A program waits for up to 5 s before it tries the broker again; a lost attempt takes 5 s."""
TAIL_S = 3.0
"""Other effects of a fault end as long after it."""
SHORT_WINDOW_S = 1.0
"""Calls with such a window may be too late behind others, also without a fault."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What a check found.

    ``numbers`` are the calls, if it is about calls; ``at`` is when it was seen; ``shape`` tells
    findings of a check apart that may have different causes.
    """

    check: str
    text: str
    numbers: tuple[int, ...] = ()
    at: float = 0.0
    shape: str = ""


Check = Callable[[History], Iterator[Violation]]


def nothing_runs_after_its_first_byte(history: History) -> Iterator[Violation]:
    """A run starts only while neither client nor gateway have the head of an earlier one."""
    for call in history.calls:
        heads = [at for at in (call.head_at, call.gateway_head_at) if at]
        if not call.is_served or not heads:
            continue
        for run in _started_after(history, call, min(heads)):
            yield Violation(
                "nothing_runs_after_its_first_byte",
                f"call {call.number} started at {run.server} {run.started_at - min(heads):.3f} s "
                "after its response had begun",
                (call.number,),
                run.started_at,
            )


def nothing_runs_after_its_client_was_told(history: History) -> Iterator[Violation]:
    """A call that got an error of the gateway is not started afterwards."""
    for call in history.calls:
        if call.is_served or not call.head_at:
            continue
        for run in _started_after(history, call, call.head_at):
            yield Violation(
                "nothing_runs_after_its_client_was_told",
                f"call {call.number} started at {run.server} {run.started_at - call.head_at:.3f} s "
                f"after its client was told {call.outcome}",
                (call.number,),
                run.started_at,
                call.outcome,
            )


def nothing_hangs(history: History) -> Iterator[Violation]:
    """Every call ends within its window, and a response within its time, plus what faults add."""
    for call in history.calls:
        late_s = call.ended_at - call.started_at - _allowed_s(history, call)
        if call.end is End.GAVE_UP or late_s > 0:
            yield Violation(
                "nothing_hangs",
                f"call {call.number} ({call.kind}, window {call.window_s:g} s) ended as "
                f"{call.outcome!r} after {call.ended_at - call.started_at:.1f} s",
                (call.number,),
                call.ended_at,
            )


def nothing_has_another_calls_data(history: History) -> Iterator[Violation]:
    """Neither a client nor an inference server gets what belongs to another call."""
    every: list[Call | Run] = [*history.calls, *history.runs]
    for one in every:
        if one.foreign:
            where = "its client" if isinstance(one, Call) else one.server
            yield Violation(
                "nothing_has_another_calls_data",
                f"call {one.number}: {where} got {one.foreign}",
                (one.number,),
                one.started_at,
            )


def no_clean_end_of_a_cut_response(history: History) -> Iterator[Violation]:
    """A response that looks complete is complete."""
    for call in history.calls:
        if call.end is End.WHOLE and call.missing:
            yield Violation(
                "no_clean_end_of_a_cut_response",
                f"call {call.number} ({call.kind}) ended cleanly without {call.missing}",
                (call.number,),
                call.ended_at,
            )


def outcomes_are_those_of_the_faults(history: History) -> Iterator[Violation]:
    """A call fails only in a way that a fault of its own parts explains."""
    for call in history.calls:
        if call.end in (End.LEFT, End.GAVE_UP) or _is_success(call):
            continue
        if not any(_explains(history, fault, call) for fault in history.faults):
            if call.status in _LATE and call.window_s <= SHORT_WINDOW_S:
                continue
            if call.status == OVERLOADED and _had_line(history, call):
                continue
            yield Violation(
                "outcomes_are_those_of_the_faults",
                f"call {call.number} ({call.kind} by {call.gateway} to {call.function}, "
                f"window {call.window_s:g} s) ended as {call.outcome!r} "
                f"after {call.ended_at - call.started_at:.2f} s",
                (call.number,),
                call.ended_at,
                call.outcome,
            )


def nothing_that_waits_is_lost_with_the_broker(history: History) -> Iterator[Violation]:
    """A call that waited, and that no worker had begun, is not refused when the broker loses it.

    While a worker of its function has a fault, nobody knows what that has begun; and one that the
    loss did not end can be refused because of a later fault.
    """
    layout = history.layout
    for fault in history.faults:
        if fault.target != layout.broker or fault.kind not in _LOSSES:
            continue
        for call in history.calls:
            if call.status != UNAVAILABLE or call.is_served or history.runs_of.get(call.number):
                continue
            sent_s = IN_FLIGHT_S + (call.paced_s if call.kind is Kind.SLOW_UPLOAD else 0.0)
            # Pipelined calls end together: a head tells when this one was refused.
            told_at = call.head_at or call.ended_at
            waited = call.started_at + sent_s < fault.began_at <= told_at
            until = max(fault.ended_at, told_at)
            others = history.faults_during(fault.began_at, until, TAIL_S)
            hit = {call.gateway, layout.broker, *layout.parts_of(call.function)}
            if waited and not any(other.target in hit for other in others if other is not fault):
                yield Violation(
                    "nothing_that_waits_is_lost_with_the_broker",
                    f"call {call.number} waited for {fault.began_at - call.started_at:.2f} s "
                    f"when {fault} began, and was told {call.outcome}",
                    (call.number,),
                    told_at,
                )


def max_concurrency_is_kept(history: History) -> Iterator[Violation]:
    """An inference server never has more runs than its agent may send.

    Runs that an agent started before it was killed do not count: the next one cannot know of them.
    """
    by_server: dict[str, list[Run]] = {}
    for run in history.runs:
        by_server.setdefault(run.server, []).append(run)
    limit = history.layout.max_concurrency
    for server, runs in sorted(by_server.items()):
        starts = history.agent_starts.get(history.layout.agent_of(server), [])
        running: list[Run] = []
        for run in sorted(runs, key=lambda run: run.started_at):
            since = max((at for at in starts if at <= run.started_at), default=0.0)
            running = [
                other
                for other in running
                if other.started_at >= since
                and (not other.ended_at or other.ended_at > run.started_at)
            ]
            running.append(run)
            if len(running) > limit:
                yield Violation(
                    "max_concurrency_is_kept",
                    f"{server} ran {len(running)} requests with a limit of {limit}",
                    tuple(other.number for other in running),
                    run.started_at,
                )


def nothing_is_left(history: History) -> Iterator[Violation]:
    """After the last call no part holds more than it did before the first."""
    for gauge in history.gauges:
        if gauge.value > gauge.allowed:
            yield Violation(
                "nothing_is_left",
                f"{gauge.part}: {gauge.name} is {gauge.value:g}, not at most {gauge.allowed:g}",
            )


CHECKS: tuple[Check, ...] = (
    nothing_runs_after_its_first_byte,
    nothing_runs_after_its_client_was_told,
    nothing_hangs,
    nothing_has_another_calls_data,
    no_clean_end_of_a_cut_response,
    outcomes_are_those_of_the_faults,
    nothing_that_waits_is_lost_with_the_broker,
    max_concurrency_is_kept,
    nothing_is_left,
)


def violations_of(history: History, checks: Iterable[Check] = CHECKS) -> list[Violation]:
    """Return what every check finds."""
    return [violation for check in checks for violation in check(history)]


def _started_after(history: History, call: Call, at: float) -> Iterator[Run]:
    for run in history.runs_of.get(call.number, []):
        if run.started_at > at + IN_FLIGHT_S and not _was_held_up(history, run, at):
            yield run


def _was_held_up(history: History, run: Run, sent_before: float) -> bool:
    """Return whether the server was paused when a request sent before then reached it."""
    return any(
        fault.kind is FaultKind.PAUSE
        and fault.target == run.server
        and fault.began_at <= sent_before
        and run.started_at <= fault.ended_at + IN_FLIGHT_S
        for fault in history.faults
    )


def _allowed_s(history: History, call: Call) -> float:
    """Return how long a call may last.

    A head comes within the window; faults of the gateway itself hold it up. What follows the head,
    and the request's body before it, is as slow as the slowest part.
    """
    allowed_s = call.window_s + GRACE_S + call.paced_s + BOUND_S
    for fault in history.faults_during(call.started_at, call.ended_at, TAIL_S):
        is_own = fault.target == call.gateway
        if not (is_own or call.head_at or fault.kind is FaultKind.CUT):
            continue
        if fault.kind is FaultKind.CUT:
            # TCP sends again after a pause that is at most as long as what it waited so far.
            allowed_s += 2 * (fault.ended_at - fault.began_at)
        elif is_own or fault.kind is FaultKind.PAUSE:
            allowed_s += fault.ended_at - fault.began_at
    return allowed_s


def _had_line(history: History, call: Call) -> bool:
    """Return whether more calls of its function were open than its slots take, when it began."""
    layout = history.layout
    slots = layout.max_concurrency * len(layout.agents[call.function])
    at = call.started_at
    line = [
        other
        for other in history.calls
        if other.function == call.function and other.started_at <= at < other.ended_at
    ]
    return len(line) - 1 > slots


def _is_success(call: Call) -> bool:
    return call.end is End.WHOLE and call.is_served and call.status == expected_status(call.kind)


def expected_status(kind: Kind) -> int:
    """Return the status with which an inference server responds."""
    return 422 if kind is Kind.ERROR else 200


INFERENCE_FAILED = 500
"""Status of a call whose inference server broke off."""
UNAVAILABLE = 503
"""Status of a call that cannot be put into its queue, or was lost with it."""
OVERLOADED = 429
"""Status of a call that is refused because others wait."""
_LATE = frozenset({OVERLOADED, 504})
"""Statuses of a call that no worker reaches in its window."""
_BROKER = frozenset({*_LATE, UNAVAILABLE, 502})
_STARTS = frozenset({FaultKind.KILL, FaultKind.RESTART})
_LOSSES = frozenset({*_STARTS, FaultKind.FAILOVER, FaultKind.DISCONNECT, FaultKind.FLUSH})
"""After these the broker may lack what it had."""
_UNNOTICED = frozenset({FaultKind.DISCONNECT, FaultKind.FLUSH})
"""These faults of the broker explain that a call is late, and no failure."""
_OWN_GATEWAY: dict[FaultKind, frozenset[End | int]] = {
    FaultKind.KILL: frozenset({End.CUT, End.STALE, End.REFUSED}),
    # Only new connections and such that were idle: what it has, it finishes.
    FaultKind.RESTART: frozenset({End.STALE, End.REFUSED}),
    FaultKind.PAUSE: frozenset({*_LATE, UNAVAILABLE, 502}),
    FaultKind.CUT: frozenset({End.CUT, *_LATE, UNAVAILABLE, 502}),
}
_WORKER: dict[FaultKind, frozenset[End | int]] = {
    FaultKind.KILL: frozenset({End.CUT, INFERENCE_FAILED, 502, *_LATE}),
    FaultKind.RESTART: _LATE,
    # A lease ends in the meantime, and with it what was fetched of a body.
    FaultKind.PAUSE: frozenset({502, *_LATE}),
    FaultKind.CUT: frozenset({End.CUT, INFERENCE_FAILED, 502, *_LATE}),
}


def _explains(history: History, fault: Fault, call: Call) -> bool:
    """Return whether a fault makes the end of a call that failed unavoidable."""
    how: End | int = call.status if call.end is End.WHOLE else call.end
    tail_s = BACKLOG_S if how in _LATE else RECONNECT_S if how == UNAVAILABLE else TAIL_S
    if fault.kind is FaultKind.CUT:
        tail_s += fault.ended_at - fault.began_at
    if not (fault.began_at <= call.ended_at and fault.ended_at + tail_s >= call.started_at):
        return False
    layout = history.layout
    if fault.target == call.gateway:
        # On a shared address, a process that starts accepts nothing before it can serve.
        is_starting = how == UNAVAILABLE and fault.kind in _STARTS
        return how in _OWN_GATEWAY[fault.kind] or (
            is_starting and call.gateway not in layout.shared
        )
    if fault.target == layout.broker:
        return how in (_LATE if fault.kind in _UNNOTICED else _BROKER)
    if layout.function_of(fault.target) != call.function or how not in _WORKER[fault.kind]:
        return False
    if how == INFERENCE_FAILED and not history.runs_of.get(call.number):
        # What was sent just before may have run. A server that refuses has run nothing.
        return call.started_at <= fault.began_at + IN_FLIGHT_S
    # Before its head a call goes to another worker.
    return how is not End.CUT or call.head_at > 0
