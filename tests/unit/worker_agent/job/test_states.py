"""The table of a job's life against the machine: every event in every state."""

import inspect
from collections.abc import Callable

import pytest

from http1.stream import Failure
from tests.support.job_bench import FIRE, Bench
from worker_agent.job.machine import Job
from worker_agent.job.states import TRANSITIONS, Event, State, impossible


def whole() -> Bench:
    """The response arrived at once and is being delivered."""
    bench = Bench().forward()
    bench.job.response_whole(200, [], 0, b"")
    return bench


def streamed() -> Bench:
    """The response was streamed to its end."""
    bench = Bench().stream()
    bench.job.response_end()
    return bench


def cancelled(bench: Bench) -> Bench:
    bench.job.cancel()
    return bench


def with_rest() -> Bench:
    """A request of 4 bytes, none of them in the envelope."""
    return Bench(has_rest=True, length=b"4")


def filled() -> Bench:
    """All of the body was sent on; its end is still to come."""
    bench = with_rest().forward()
    bench.job.rest_data(b"1234")
    return bench


def overtaken() -> Bench:
    """The process stood still, and another worker may have the request."""
    bench = with_rest().forward()
    bench.lease.is_lapsed = True
    return bench


def overtaken_opening() -> Bench:
    bench = Bench().begin()
    bench.lease.is_lapsed = True
    return bench


def overtaken_and_filled() -> Bench:
    bench = filled()
    bench.lease.is_lapsed = True
    return bench


def filled_stream() -> Bench:
    bench = with_rest().stream()
    bench.job.rest_data(b"1234")
    return bench


def hinted() -> Bench:
    """An interim response has opened the POST."""
    bench = Bench().forward()
    bench.job.response_interim(103, [])
    return bench


def posted() -> Bench:
    bench = with_rest().stream()
    bench.job.posted()
    return bench


GRPC = ((b"content-type", b"application/grpc"),)


def grpc_stream() -> Bench:
    return Bench(has_rest=True, length=b"4", more=GRPC).stream()


def broken_off() -> Bench:
    """The response broke off before the connection to the gateway was open."""
    bench = Bench().stream()
    bench.job.response_broken(Failure.CLOSED, is_stale=False)
    return bench


SITUATIONS: dict[State, list[Callable[[], Bench]]] = {
    State.OPENING: [lambda: Bench().begin()],
    State.FORWARDING: [
        lambda: Bench().forward(),
        lambda: with_rest().forward(),
        filled,
        overtaken,
        overtaken_and_filled,
        hinted,
    ],
    State.STREAMING: [
        lambda: Bench().stream(),
        lambda: with_rest().stream(),
        filled_stream,
        posted,
        broken_off,
        grpc_stream,
    ],
    State.DELIVERING: [whole, streamed],
    State.DONE: [lambda: cancelled(Bench()), lambda: cancelled(Bench().stream())],
}
"""Ways into each state; together they reach every next state that the table allows."""

ONLY_FOR = {
    (State.OPENING, Event.BEGIN): [lambda: Bench(method=b"BAD METHOD")],
    (State.OPENING, Event.RUN_ENDED): [overtaken_opening],
}
"""Further ways into a state in which only one event makes sense."""


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_every_event_in_every_state_leads_where_the_table_says(state: State, event: Event) -> None:
    expected = TRANSITIONS.get((state, event))
    reached = set()
    for situation in [*SITUATIONS[state], *ONLY_FOR.get((state, event), [])]:
        for fire in FIRE[event]:
            bench = situation()
            assert bench.job.state is state
            if expected is None:
                message = f"^{event.name} is impossible in {state.name}$"
                with pytest.raises(AssertionError, match=message):
                    fire(bench)
                assert bench.job.state is state
            else:
                fire(bench)
                reached.add(bench.job.state)
    assert reached == (expected or set())


def test_every_public_method_of_the_machine_is_an_event() -> None:
    methods = {
        name for name, _ in inspect.getmembers(Job, inspect.isfunction) if not name.startswith("_")
    }
    assert methods == {event.value for event in Event}


def test_an_impossible_event_is_named_with_its_state() -> None:
    assert str(impossible(State.OPENING, Event.RESPONSE_HEAD)) == (
        "RESPONSE_HEAD is impossible in OPENING"
    )


def test_a_job_shows_its_state_and_its_outcome() -> None:
    bench = Bench().begin()
    request_id = bench.job.request_id
    assert repr(bench.job) == f"<Job {request_id} OPENING>"
    bench.job.cancel()
    assert repr(bench.job) == f"<Job {request_id} DONE cancelled>"
