"""Each rule of runs with keys can be violated, and is kept by what is allowed."""

from dataclasses import replace

import pytest

from tests.chaos.keyed_history import (
    Attempt,
    Ended,
    KeyedCheck,
    KeyedFault,
    KeyedHistory,
    all_responses_of_a_key_are_the_same,
    another_request_gets_no_response,
    every_end_is_explained,
    no_key_runs_twice,
    nothing_is_unknown_without_a_fault,
    the_run_tested_something,
    what_a_key_gives_is_settled,
)

SERVED = Attempt(7, 0, "gateway-1", 1.0, 2.0, Ended.WHOLE, 200, "", "b1", "r1", is_served=True)
REPLAYED = replace(SERVED, gateway="gateway-2", started_at=3.0, ended_at=4.0, is_replayed=True)
REUSED = replace(
    SERVED, variant=1, status=422, reason="idempotency_key_reused", is_served=False, body="b2"
)
UNKNOWN = replace(
    SERVED, status=502, reason="outcome_unknown", is_served=False, body="b3", started_at=9.0
)
KILLED = KeyedFault("gateway-1", 0.5, 1.5)
POLLED = replace(REPLAYED, polls=2)
FINAL = replace(REPLAYED, is_final=True)
REFUSED = [replace(REUSED, is_final=True, body=body, request_id=body) for body in ("x", "y")]


def history(*attempts: Attempt, runs: tuple[int, ...] = (14,), faults: int = 0) -> KeyedHistory:
    return KeyedHistory(
        list(attempts),
        list(runs),
        [KILLED, KeyedFault("agent-1", 0.5, 1.5)][:faults],
        ("gateway-1", "gateway-2"),
        ("store",),
    )


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        (no_key_runs_twice, history(runs=(14, 14))),
        (no_key_runs_twice, history(runs=(14, 15))),
        (all_responses_of_a_key_are_the_same, history(SERVED, replace(REPLAYED, body="b9"))),
        (all_responses_of_a_key_are_the_same, history(SERVED, replace(REPLAYED, request_id="r9"))),
        (all_responses_of_a_key_are_the_same, history(replace(SERVED, missing="is not its own"))),
        (another_request_gets_no_response, history(replace(SERVED, variant=1))),
        (every_end_is_explained, history(replace(SERVED, end=Ended.GAVE_UP))),
        (every_end_is_explained, history(replace(SERVED, end=Ended.CUT))),
        (every_end_is_explained, history(replace(SERVED, is_served=False, status=500, reason="x"))),
        (every_end_is_explained, history(replace(FINAL, end=Ended.REFUSED), faults=1)),
        (nothing_is_unknown_without_a_fault, history(SERVED, UNKNOWN)),
        (nothing_is_unknown_without_a_fault, history(replace(UNKNOWN, reason="holder_lost"))),
        (what_a_key_gives_is_settled, history(FINAL, replace(FINAL, body="b9"))),
        (what_a_key_gives_is_settled, history(SERVED, replace(FINAL, status=503, is_served=False))),
        (the_run_tested_something, history(SERVED)),
        (the_run_tested_something, history(SERVED, REPLAYED, REUSED, faults=2)),
    ],
)
def test_a_violation_is_found(check: KeyedCheck, bad: KeyedHistory) -> None:
    assert list(check(bad))


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (no_key_runs_twice, history(runs=(14, 16, 19))),
        (all_responses_of_a_key_are_the_same, history(SERVED, REPLAYED, REUSED, UNKNOWN)),
        (another_request_gets_no_response, history(SERVED, REUSED)),
        (every_end_is_explained, history(SERVED, replace(SERVED, end=Ended.CUT), faults=1)),
        (every_end_is_explained, history(replace(SERVED, end=Ended.LEFT), REUSED, UNKNOWN)),
        (nothing_is_unknown_without_a_fault, history(SERVED, UNKNOWN, faults=1)),
        (what_a_key_gives_is_settled, history(SERVED, FINAL, FINAL)),
        (what_a_key_gives_is_settled, history(SERVED, replace(UNKNOWN, is_final=True))),
        (what_a_key_gives_is_settled, history(*REFUSED)),
        (the_run_tested_something, history(SERVED, POLLED, REUSED, faults=2)),
    ],
)
def test_what_is_allowed_is_no_violation(check: KeyedCheck, good: KeyedHistory) -> None:
    assert not list(check(good))
