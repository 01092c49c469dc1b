"""The table of an invocation's life against the machine: every event in every state."""

import inspect
from collections.abc import Callable

import pytest

from gateway.attach.exchanges import AttachGet
from gateway.invocation.collection import CollectionBounds
from gateway.invocation.headers import encoded_head
from gateway.invocation.machine import Invocation
from gateway.invocation.states import TRANSITIONS, Event, Outcome, State, impossible
from gateway.routing.cancel_after import CallBounds
from http1.stream import Headers
from queueing.interface import QueueFull, QueueUnavailable
from tests.support.invocation_world import INLINE, World
from tests.support.recorder import RecordedPost, RecordedResponseWriter
from wire.http1 import InnerHead

BOUNDS = CallBounds(queue_s=5, run_s=10)
Situation = Callable[[], World]
UNENCODABLE: Headers = [(b"host", b"f"), (b"\xff", b"x")]


def receiving(data: bytes, body_bytes: int | None = INLINE + 10) -> World:
    world = World(body_bytes=body_bytes)
    if data:
        world.invocation.request_data(data)
    return world


def unencodable() -> World:
    return World(body_bytes=1, headers=UNENCODABLE)


def collecting(body_bytes: int | None, headers: Headers | None = None) -> World:
    """Receiving, with a bound for one body that is small, and a file that takes bytes."""
    bounds = CollectionBounds(1, 0, 2 * INLINE, 2 * INLINE)
    world = World(body_bytes=body_bytes, headers=headers, bounds=bounds)
    world.invocation.request_data(b"a" * (INLINE + 10))
    return world


def limited() -> World:
    """Queued, with a body of unknown length that is nearly too large."""
    world = World(body_bytes=None, max_body_bytes=INLINE)
    world.invocation.request_data(b"a")
    world.invocation.first_part_end()
    return world


def flowing() -> World:
    """Queued, and a worker waits for the client's body."""
    world = limited()
    assert world.fetch(RecordedResponseWriter(world.script, "worker"))
    return world


def long_body() -> World:
    """Queued, with a rest of the body to fetch."""
    return receiving(b"a" * INLINE)


def fetched() -> World:
    """Queued, and a worker has fetched the rest of the body."""
    world = long_body()
    assert world.fetch(RecordedResponseWriter(world.script, "worker"))
    return world


def slow(world: World) -> World:
    world.client.is_slow = True
    return world


def ending(world: World) -> World:
    slow(world).invocation.response_end()
    return world


def expired(world: World) -> World:
    world.invocation.deadline_passed(162.0, 1)
    return world


def done(world: World) -> World:
    world.invocation.shut_down()
    return world


def polled() -> World:
    """Queued, and a 202 is no response."""
    return World(is_polled=True).publish()


def taking() -> World:
    """Pending: the body of a 202 arrives."""
    return polled().attach().head(202)


def asked() -> World:
    """Pending: the worker was asked for the response."""
    world = taking()
    world.invocation.response_end()
    return world


def pausing() -> World:
    """Pending: the worker will be asked in a moment, because its last 202 came at once."""
    world = asked().attach().head(202)
    world.invocation.response_end()
    return world


def asked_bounded() -> World:
    """Pending, and the client has said how long it may run."""
    world = World(is_polled=True, cancel_after=BOUNDS)
    world.invocation.request_end()
    world.attach().head(202).invocation.response_end()
    return world


def polled_long_body() -> World:
    """Pending, with a rest of the body that nobody fetched."""
    world = World(body_bytes=None, max_body_bytes=INLINE, is_polled=True)
    world.invocation.request_data(b"a")
    world.invocation.first_part_end()
    return world.attach().head(202)


def free(world: World) -> World:
    """A worker has told of a free slot."""
    world.channels.is_free = True
    return world


def sent_long_body() -> World:
    """Sent over a channel, with a rest of the body to fetch."""
    world = free(receiving(b"a" * (INLINE - 1)))
    world.invocation.request_data(b"a")
    return world


def sent_flowing() -> World:
    """Sent over a channel, and its worker fetches the body."""
    world = sent_long_body()
    assert world.fetch(RecordedResponseWriter(world.script, "worker"))
    return world


def sent_limited() -> World:
    """Sent over a channel, with a body of unknown length that is nearly too large."""
    world = free(World(body_bytes=None, max_body_bytes=INLINE))
    world.invocation.request_data(b"a")
    world.invocation.first_part_end()
    return world


def abandoned() -> World:
    """Attached, and the channel over which the call was sent is lost."""
    world = World().send().attach()
    world.invocation.handed_back(was_run=True, was_sent=True)
    return world


def bounded(bounds: CallBounds = BOUNDS, *, is_sent: bool = False) -> World:
    """Queued, or sent, and the client has said how long that may last."""
    world = World(cancel_after=bounds)
    world.channels.is_free = is_sent
    world.invocation.request_end()
    world.channels.is_free = False
    world.script.take()
    return world


def run_bounded() -> World:
    """Queued, and a worker is known to have it."""
    world = bounded()
    world.invocation.lease_known(0, 105.0)
    return world


SITUATIONS: dict[State, list[Situation]] = {
    State.RECEIVING: [
        lambda: receiving(b""),
        lambda: receiving(b"a", None),
        unencodable,
        lambda: collecting(INLINE + 20),
        lambda: collecting(INLINE + 10),
        lambda: collecting(INLINE + 10, UNENCODABLE),
        lambda: free(receiving(b"a", None)),
        lambda: free(receiving(b"a" * 10, INLINE + 10)),
        lambda: free(collecting(INLINE + 10)),
    ],
    State.SENT: [
        lambda: World().send(),
        lambda: slow(World().send()),
        sent_long_body,
        sent_flowing,
        sent_limited,
        lambda: World(is_polled=True).send(),
        lambda: bounded(is_sent=True),
    ],
    State.QUEUED: [
        lambda: World().publish(),
        lambda: slow(World().publish()),
        long_body,
        fetched,
        limited,
        flowing,
        polled,
        bounded,
        lambda: bounded(CallBounds(whole_s=5)),
        run_bounded,
    ],
    State.EXPIRED: [
        lambda: expired(World().publish()),
        lambda: expired(long_body()),
        lambda: expired(limited()),
    ],
    State.PENDING: [taking, asked, asked_bounded, pausing, polled_long_body, lambda: slow(asked())],
    State.ATTACHED: [
        lambda: polled().attach(),
        lambda: asked().attach(),
        lambda: World().publish().attach(),
        lambda: fetched().attach(),
        lambda: flowing().attach(),
        lambda: World().send().attach(),
        abandoned,
        lambda: bounded().attach(),
    ],
    State.STREAMING: [
        lambda: World().stream(),
        lambda: slow(World().stream()),
        lambda: flowing().attach().head(),
        lambda: bounded().attach().head(),
    ],
    State.ENDING: [
        lambda: ending(World().stream()),
        lambda: ending(bounded().attach().head()),
    ],
    State.DONE: [
        lambda: done(World()),
        lambda: done(World().publish()),
        lambda: done(World().stream()),
    ],
}
"""Ways into each state; together they reach every next state that the table allows."""


def _rest_requested(world: World) -> None:
    worker = RecordedResponseWriter(world.script, "another worker")
    world.invocation.rest_requested(AttachGet(world.invocation, worker))


def _responded(world: World) -> None:
    world.invocation.responded(
        InnerHead(200, [], None), None, b"yes", 101.0, 0.001, b"i-1", Outcome.ANSWERED
    )


def _responded_encoded(world: World) -> None:
    head = InnerHead(200, [], None)
    world.invocation.responded(
        head, encoded_head(head), b"yes", 101.0, 0.001, b"i-1", Outcome.ANSWERED
    )


def _responded_202(world: World) -> None:
    head = InnerHead(202, [], None)
    world.invocation.responded(head, None, b"", 101.0, 0.001, b"i-1", Outcome.ANSWERED)


FIRE: dict[Event, list[Callable[[World], object]]] = {
    Event.DROPPED_LATE: [
        lambda w: w.invocation.dropped_late(1),
        lambda w: w.invocation.dropped_late(2),
    ],
    Event.BODY_TOO_LARGE: [lambda w: w.invocation.body_too_large(1)],
    Event.REQUEST_DATA: [
        lambda w: w.invocation.request_data(b"x"),
        lambda w: w.invocation.request_data(b"x" * INLINE),
    ],
    Event.FIRST_PART_END: [lambda w: w.invocation.first_part_end()],
    Event.REQUEST_END: [lambda w: w.invocation.request_end()],
    Event.REQUEST_BROKEN: [lambda w: w.invocation.request_broken()],
    Event.CANCELLED: [lambda w: w.invocation.cancelled()],
    Event.PAUSE_WRITING: [lambda w: w.invocation.pause_writing()],
    Event.RESUME_WRITING: [lambda w: w.invocation.resume_writing()],
    Event.SPOOL_WRITTEN: [
        lambda w: w.invocation.spool_written(is_written=True),
        lambda w: w.invocation.spool_written(is_written=False),
    ],
    Event.SPOOL_READ: [lambda w: w.invocation.spool_read(b"")],
    Event.PUBLISH_FAILED: [
        lambda w: w.invocation.publish_failed(QueueFull("full")),
        lambda w: w.invocation.publish_failed(QueueUnavailable("lost")),
    ],
    Event.UNDELIVERABLE: [lambda w: w.invocation.undeliverable()],
    Event.LEASED: [lambda w: w.invocation.leased(b"i", 101.0)],
    Event.HANDED_BACK: [
        lambda w: w.invocation.handed_back(was_run=False, was_sent=False),
        lambda w: w.invocation.handed_back(was_run=True, was_sent=True),
    ],
    Event.RESPONDED: [_responded, _responded_encoded, _responded_202],
    Event.POLL_FAILED: [
        lambda w: w.invocation.poll_failed(1),
        lambda w: w.invocation.poll_failed(7),
    ],
    Event.RUN_REQUESTED: [
        lambda w: w.invocation.run_requested(2, is_running=False),
        lambda w: w.invocation.run_requested(2, is_running=True),
    ],
    Event.REST_REQUESTED: [_rest_requested],
    Event.REST_PAUSE_WRITING: [lambda w: w.invocation.rest_pause_writing()],
    Event.REST_RESUME_WRITING: [lambda w: w.invocation.rest_resume_writing()],
    Event.REST_BROKEN: [lambda w: w.invocation.rest_broken()],
    Event.ATTACHED: [lambda w: w.invocation.attached(RecordedPost(w.script, "other"), 101.0, -1)],
    Event.RESPONSE_INTERIM: [lambda w: w.invocation.response_interim(103, [])],
    Event.RESPONSE_HEAD: [
        lambda w: w.invocation.response_head(200, [], None, None, 101.0),
        lambda w: w.invocation.response_head(202, [], None, None, 101.0),
    ],
    Event.RESPONSE_DATA: [lambda w: w.invocation.response_data(b"y")],
    Event.RESPONSE_CHUNK: [lambda w: w.invocation.response_chunk(b"1\r\ny\r\n", 1)],
    Event.RESPONSE_END: [lambda w: w.invocation.response_end()],
    Event.RESPONSE_BROKEN: [lambda w: w.invocation.response_broken()],
    Event.RESPONSE_INVALID: [lambda w: w.invocation.response_invalid(400, "bad")],
    Event.DEADLINE_PASSED: [
        lambda w: w.invocation.deadline_passed(162.0, 1),
        lambda w: w.invocation.deadline_passed(9999.0, 1),
    ],
    Event.BOUND_PASSED: [
        lambda w: w.invocation.bound_passed(106.0),
        lambda w: w.invocation.bound_passed(9999.0),
    ],
    Event.LEASE_KNOWN: [
        lambda w: w.invocation.lease_known(0, 106.0),
        lambda w: w.invocation.lease_known(3, 106.0),
    ],
    Event.POSITION_KNOWN: [lambda w: w.invocation.position_known(1, 1)],
    Event.SHUT_DOWN: [lambda w: w.invocation.shut_down()],
}


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_every_event_in_every_state_leads_where_the_table_says(state: State, event: Event) -> None:
    expected = TRANSITIONS.get((state, event))
    reached = set()
    for situation in SITUATIONS[state]:
        for fire in FIRE[event]:
            world = situation()
            assert world.invocation.state is state
            if expected is None:
                message = f"^{event.name} is impossible in {state.name}$"
                with pytest.raises(AssertionError, match=message):
                    fire(world)
                assert world.invocation.state is state
            else:
                fire(world)
                reached.add(world.invocation.state)
    assert reached == (expected or set())


def test_every_public_method_of_the_machine_is_an_event() -> None:
    methods = {
        name
        for name, _ in inspect.getmembers(Invocation, inspect.isfunction)
        if not name.startswith("_")
    }
    # They have no effect: the queue reports positions itself, and trailers are dropped.
    assert methods - {"published", "request_trailers"} == {event.value for event in Event}


def test_an_impossible_event_is_named_with_its_state() -> None:
    assert str(impossible(State.QUEUED, Event.RESPONSE_HEAD)) == (
        "RESPONSE_HEAD is impossible in QUEUED"
    )


def test_an_invocation_shows_its_state_and_its_outcome() -> None:
    world = World()
    request_id = world.invocation.request_id
    assert repr(world.invocation) == f"<Invocation {request_id} RECEIVING>"
    world.invocation.request_broken()
    assert repr(world.invocation) == f"<Invocation {request_id} DONE client_gone>"
