"""A request body on its way: collected before its call is offered, handed out, counted."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.invocation.collection import (
    BATCH_BYTES,
    STEP_BYTES,
    CollectionBounds,
    UploadSpace,
)
from gateway.invocation.machine import Invocation
from gateway.invocation.states import DONE, QUEUED, RECEIVING, Outcome
from gateway.invocation.upload import Upload, smaller_limit
from runtime.timers import Timers
from tests.support.invocation_world import INLINE, REQUESTED_AT_NS, World
from tests.support.recorder import RecordedResponseWriter, RecordedSpool, Script
from wire.decoded_envelope import decode_envelope

KIB = 1024
IN_MEMORY = CollectionBounds(256 * KIB, 512 * KIB)
IN_FILES = CollectionBounds(64 * KIB, 1024 * KIB, 2048 * KIB, 4096 * KIB)


def body_of(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def send(world: World, body: bytes, step: int = 20_000) -> None:
    """Send ``body`` as the client does; a file's write that begins has ended before the next."""
    for at in range(0, len(body), step):
        world.invocation.request_data(body[at : at + step])
        while any(file.running is not None for file in world.spool.files):
            world.spool.finish()


def fetch(world: World, name: str = "worker") -> RecordedResponseWriter:
    """Fetch the rest of the body, as a worker that is quick does."""
    worker = RecordedResponseWriter(world.script, name)
    assert world.fetch(worker)
    read_all(world)
    return worker


def read_all(world: World) -> None:
    while any(file.running is not None for file in world.spool.files):
        world.spool.finish()


def whole(world: World, worker: RecordedResponseWriter) -> bytes:
    return decode_envelope(world.queue.envelopes[0]).body + worker.sent


def assert_nothing_is_left(world: World) -> None:
    assert (world.space.memory_bytes, world.space.spool_bytes) == (0, 0)
    assert all(file.is_closed for file in world.spool.files)


def test_a_body_that_nobody_wants_any_more_is_let_go() -> None:
    space = UploadSpace(CollectionBounds(), RecordedSpool(Script()).open)
    upload = Upload(100_000, space)
    upload.add(b"x" * 90_000)
    upload.take_first_part()
    assert space.memory_bytes == 90_000 - INLINE
    upload.abort()
    sink = RecordedResponseWriter(Script(), "worker")
    sink.send_head(200, [], None)
    upload.attach(sink)
    assert (sink.sent, space.memory_bytes) == (b"", 0)


@pytest.mark.parametrize(
    ("limit", "other", "smaller"), [(0, 0, 0), (5, 0, 5), (0, 5, 5), (5, 7, 5), (7, 5, 5)]
)
def test_the_smaller_limit_holds_and_0_is_none(limit: int, other: int, smaller: int) -> None:
    assert smaller_limit(limit, other) == smaller


# Collected in memory


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_body_is_offered_when_it_is_whole(is_announced: bool) -> None:
    body = body_of(100_000)
    world = World(body_bytes=len(body) if is_announced else None, bounds=IN_MEMORY)
    world.invocation.request_data(body[:1])
    world.invocation.first_part_end()
    send(world, body[1:-1])
    assert world.script.lines == []
    assert world.invocation.state is RECEIVING
    send(world, body[-1:])
    world.invocation.request_end()
    assert world.script.take() == ["client.pause", "queue.publish"]
    worker = fetch(world)
    assert worker.head is not None
    assert worker.head[2] == len(body) - INLINE
    assert whole(world, worker) == body
    assert worker.over


def test_a_body_that_stalls_is_never_offered_and_ends_with_its_client() -> None:
    world = World(body_bytes=None, bounds=IN_MEMORY)
    world.invocation.request_data(b"z")
    world.invocation.first_part_end()
    world.invocation.request_broken()
    assert world.script.lines == ["registry.finished"]
    assert world.invocation.outcome is Outcome.CLIENT_GONE
    assert_nothing_is_left(world)


def test_a_chunked_body_of_any_length_that_fits_into_the_envelope_needs_no_get() -> None:
    world = World(body_bytes=None, bounds=IN_MEMORY)
    send(world, body_of(INLINE), step=1000)
    world.invocation.request_end()
    envelope = decode_envelope(world.queue.envelopes[0])
    assert (envelope.body, envelope.request_token) == (body_of(INLINE), None)


def test_a_body_that_is_announced_too_large_flows_through_at_once() -> None:
    world = World(body_bytes=300 * KIB, bounds=IN_MEMORY)
    world.invocation.request_data(body_of(INLINE))
    assert world.script.lines == ["client.pause", "queue.publish"]


def test_a_chunked_body_that_becomes_too_large_flows_from_there_on() -> None:
    body = body_of(400 * KIB)
    world = World(body_bytes=None, bounds=IN_MEMORY)
    collected = INLINE + IN_MEMORY.memory_bytes
    send(world, body[:collected])
    assert world.script.lines == []
    send(world, body[collected : collected + 1])
    assert world.script.take() == ["client.pause", "queue.publish"]
    worker = fetch(world)
    assert world.script.lines[-1] == "client.resume"
    assert world.space.memory_bytes == 0
    send(world, body[collected + 1 :])
    world.invocation.request_end()
    assert whole(world, worker) == body
    assert worker.over


def test_without_room_in_the_process_bodies_flow_through() -> None:
    world = World(body_bytes=200 * KIB, bounds=IN_MEMORY)
    world.space.memory_bytes = IN_MEMORY.memory_total_bytes
    world.invocation.request_data(body_of(INLINE + 1))
    assert world.invocation.state is QUEUED
    world.invocation.request_broken()
    assert world.space.memory_bytes == IN_MEMORY.memory_total_bytes


# Collected in a file


def test_a_long_body_goes_to_a_file_and_a_client_that_is_faster_waits() -> None:
    body = body_of(INLINE + 2 * BATCH_BYTES)
    world = World(body_bytes=len(body), bounds=IN_FILES)
    world.invocation.request_data(body[: INLINE + 64 * KIB])
    assert world.script.take() == []
    world.invocation.request_data(body[INLINE + 64 * KIB : INLINE + 100 * KIB])
    assert world.script.take() == [f"spool.write {100 * KIB}"]
    world.invocation.request_data(body[INLINE + 100 * KIB : INLINE + 356 * KIB])
    assert world.script.take() == ["client.pause"]
    # What the client had sent before it was paused.
    world.invocation.request_data(body[INLINE + 356 * KIB : INLINE + 360 * KIB])
    world.spool.finish()
    assert world.script.lines[-1] == "client.resume"
    assert f"spool.write {260 * KIB}" in world.script.take()
    world.invocation.request_data(body[INLINE + 360 * KIB :])
    world.invocation.request_end()
    assert world.invocation.state is RECEIVING
    world.spool.finish()
    assert world.script.take() == ["client.pause", "queue.publish"]
    assert world.space.spool_bytes == 360 * KIB
    assert world.space.memory_bytes == len(body) - INLINE - 360 * KIB
    assert whole(world, fetch(world)) == body


def test_a_full_disk_lets_the_body_flow_through() -> None:
    body = body_of(500 * KIB)
    world = World(body_bytes=len(body), bounds=IN_FILES)
    world.invocation.request_data(body[: 200 * KIB])
    assert world.invocation.state is RECEIVING
    world.spool.finish(is_good=False)
    assert world.script.take()[-2:] == ["client.pause", "queue.publish"]
    assert (world.space.memory_bytes, world.space.spool_bytes) == (200 * KIB - INLINE, 0)
    worker = fetch(world)
    send(world, body[200 * KIB :])
    world.invocation.request_end()
    assert whole(world, worker) == body
    assert_nothing_is_left(world)


def test_without_room_for_files_the_body_flows_through() -> None:
    world = World(body_bytes=500 * KIB, bounds=IN_FILES)
    world.space.spool_bytes = IN_FILES.spool_total_bytes
    world.invocation.request_data(body_of(200 * KIB))
    assert world.invocation.state is QUEUED
    assert world.spool.files == []


def test_when_memory_is_used_up_a_small_body_goes_to_a_file_too() -> None:
    world = World(body_bytes=50_000, bounds=IN_FILES)
    world.space.memory_bytes = IN_FILES.memory_total_bytes
    world.invocation.request_data(body_of(INLINE + 1))
    assert world.script.take() == ["spool.write 1", "client.pause"]


def test_a_file_that_cannot_be_read_breaks_the_workers_get() -> None:
    body = body_of(500 * KIB)
    world = World(body_bytes=len(body), bounds=IN_FILES)
    send(world, body)
    worker = RecordedResponseWriter(world.script, "worker")
    world.fetch(worker)
    world.spool.finish(is_good=False)
    assert world.script.lines[-1] == "worker.abort"
    assert_nothing_is_left(world)
    world.attach().invocation.response_broken()
    assert world.problem()["reason"] == "worker_lost"


def test_a_client_that_leaves_while_a_file_is_written_leaves_nothing() -> None:
    world = World(body_bytes=500 * KIB, bounds=IN_FILES)
    world.invocation.request_data(body_of(200 * KIB))
    world.invocation.request_broken()
    world.spool.finish()
    assert world.invocation.state is DONE
    assert_nothing_is_left(world)


# Handed out


def test_a_slow_worker_is_sent_no_more_than_it_takes() -> None:
    body = body_of(INLINE + 3 * STEP_BYTES)
    world = World(body_bytes=len(body), bounds=IN_MEMORY)
    send(world, body)
    worker = RecordedResponseWriter(world.script, "worker")

    def pause(line: str) -> None:
        if line.startswith("worker.body"):
            world.invocation.rest_pause_writing()

    world.script.on_line = pause
    world.fetch(worker)
    assert len(worker.sent) == STEP_BYTES
    world.invocation.rest_resume_writing()
    assert len(worker.sent) == 2 * STEP_BYTES
    world.invocation.rest_resume_writing()
    world.invocation.rest_resume_writing()
    world.invocation.request_end()
    assert whole(world, worker) == body


@pytest.mark.parametrize("bounds", [IN_MEMORY, IN_FILES])
@pytest.mark.parametrize("is_read", [True, False])
def test_a_collected_body_is_handed_out_again_after_its_worker_died(
    bounds: CollectionBounds, is_read: bool
) -> None:
    body = body_of(200 * KIB)
    world = World(body_bytes=len(body), bounds=bounds)
    send(world, body)
    world.invocation.request_end()
    first = RecordedResponseWriter(world.script, "first")
    world.fetch(first)
    if is_read:
        read_all(world)
    world.invocation.rest_broken()
    world.attach().invocation.response_broken()
    assert world.invocation.state is QUEUED
    second = fetch(world, "second")
    assert whole(world, second) == body
    assert second.over
    world.attach().head()
    assert_nothing_is_left(world)


def test_a_second_worker_takes_a_collected_body_over_from_the_first() -> None:
    body = body_of(INLINE + 3 * BATCH_BYTES)
    world = World(body_bytes=len(body), bounds=IN_FILES)
    send(world, body)
    world.invocation.request_end()
    first = RecordedResponseWriter(world.script, "first")
    world.fetch(first)
    world.spool.finish()
    assert first.sent == body[INLINE : INLINE + len(first.sent)] != b""
    # The file is being read for the first one.
    second = fetch(world, "second")
    assert first.over
    assert whole(world, second) == body


def test_a_collected_body_is_not_handed_out_again_while_a_response_comes() -> None:
    body = body_of(100_000)
    world = World(body_bytes=len(body), bounds=IN_MEMORY)
    send(world, body)
    world.invocation.request_end()
    fetch(world)
    world.attach()
    assert not world.fetch(RecordedResponseWriter(world.script, "second"))
    world.head()
    assert_nothing_is_left(world)
    assert not world.fetch(RecordedResponseWriter(world.script, "third"))


def test_a_worker_whose_response_begins_first_still_gets_the_body() -> None:
    body = body_of(100_000)
    world = World(body_bytes=len(body), bounds=IN_MEMORY)
    send(world, body)
    world.invocation.request_end()
    world.attach().head()
    assert whole(world, fetch(world)) == body
    assert_nothing_is_left(world)


BOUNDS = [IN_MEMORY, IN_FILES, CollectionBounds(), CollectionBounds(0, 0, 300 * KIB, 300 * KIB)]
PIECE = 30_000
EVENTS = st.lists(
    st.sampled_from(["client", "file", "full", "pause", "resume", "get", "get over"]), max_size=40
)
TO_THE_END = ["client", "file", "get", "resume", "file"] * 40


class Play:
    """Gives a client's, a disk's and a worker's events to an upload, whatever their order."""

    def __init__(self, body: bytes, bounds: CollectionBounds, *, is_announced: bool) -> None:
        self.world = World(body_bytes=len(body) if is_announced else None, bounds=bounds)
        self.body = body
        self.sent = 0
        self.worker: RecordedResponseWriter | None = None
        self.acts = {
            "client": self.send,
            "file": lambda: self.end_operation(is_full=False),
            "full": lambda: self.end_operation(is_full=True),
            "pause": lambda: self.read(self.world.invocation.rest_pause_writing),
            "resume": lambda: self.read(self.world.invocation.rest_resume_writing),
            "get": self.get,
            "get over": self.get_over,
        }

    def send(self) -> None:
        invocation = self.world.invocation
        if self.sent < len(self.body) and invocation.state is not DONE:
            data = self.body[self.sent : self.sent + PIECE]
            self.sent += len(data)
            invocation.request_data(data)
            invocation.first_part_end()
            if self.sent == len(self.body):
                invocation.request_end()

    def end_operation(self, *, is_full: bool) -> None:
        for file in self.world.spool.files:
            if file.running is not None:
                file.finish(is_good=not is_full or not isinstance(file.running, bytes))

    def read(self, event: Callable[[], None]) -> None:
        if self.worker is not None and not self.worker.over:
            event()

    def get(self) -> None:
        if self.worker is None and self.world.invocation.state is QUEUED:
            self.fetch()

    def get_over(self) -> None:
        invocation = self.world.invocation
        if self.worker is not None and not self.worker.over and invocation.state is QUEUED:
            invocation.rest_broken()
            self.fetch()

    def fetch(self) -> None:
        self.worker = RecordedResponseWriter(self.world.script, "worker")
        self.world.fetch(self.worker)


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.booleans(), st.sampled_from(BOUNDS), st.sampled_from([40_000, 150_000, 400_000]))
def test_whatever_happens_a_worker_gets_the_body_as_it_was_sent(
    events: list[str], is_announced: bool, bounds: CollectionBounds, size: int
) -> None:
    body = body_of(size)
    play = Play(body, bounds, is_announced=is_announced)
    for event in [*events, *TO_THE_END]:
        play.acts[event]()
    world = play.world
    if world.invocation.state is DONE:
        assert "get over" in events
        assert world.problem()["reason"] == "worker_lost"
    else:
        assert play.worker is not None
        assert play.worker.over
        assert whole(world, play.worker) == body
        world.attach().head()
    assert_nothing_is_left(world)


# The poll window


def test_the_poll_window_begins_when_the_body_is_there() -> None:
    world = World(body_bytes=10)
    world.invocation.request_data(b"x" * 9)
    world.now = 162.0
    world.invocation.deadline_passed(162.0, 1)
    assert world.script.lines == []
    assert world.invocation.state is RECEIVING
    world.now = 180.0
    world.invocation.request_data(b"x")
    world.invocation.request_end()
    assert world.invocation.deadline == world.invocation.due_at == 180.0 + 62.0
    assert world.invocation.offered_at == 180.0
    envelope = decode_envelope(world.queue.envelopes[0])
    assert envelope.requested_at_ns == REQUESTED_AT_NS + 80_000_000_000
    world.invocation.deadline_passed(241.9, 1)
    assert world.invocation.state is QUEUED
    world.invocation.deadline_passed(242.0, 1)
    world.invocation.position_known(0, 1)
    assert world.problem()["reason"] == "poll_timeout"


def test_a_body_that_came_with_its_head_moves_no_time() -> None:
    world = World(body_bytes=4)
    world.now = 100.01
    world.invocation.request_data(b"ping")
    assert world.invocation.deadline == 162.0
    assert world.invocation.due_at is None
    envelope = decode_envelope(world.queue.envelopes[0])
    assert envelope.requested_at_ns == REQUESTED_AT_NS


def test_the_window_stands_still_while_a_worker_waits_for_the_client() -> None:
    world = World(body_bytes=INLINE + 10)
    world.invocation.request_data(b"a" * INLINE)
    world.now = 110.0
    world.fetch(RecordedResponseWriter(world.script, "worker"))
    world.now = 162.0
    world.invocation.deadline_passed(162.0, 1)
    assert world.invocation.state is QUEUED
    world.now = 300.0
    world.invocation.request_data(b"a" * 10)
    world.invocation.request_end()
    # 10 s had passed before the worker began to wait.
    assert world.invocation.deadline == 300.0 + 52.0
    world.invocation.deadline_passed(352.0, 1)
    world.invocation.position_known(0, 1)
    assert world.problem()["reason"] == "poll_timeout"


def test_a_window_that_stood_still_with_little_left_is_over_in_time() -> None:
    world = World(body_bytes=INLINE + 10)
    world.invocation.request_data(b"a" * INLINE)
    timers: Timers[Invocation] = Timers(now=world.now)
    timers.schedule(world.invocation.deadline, world.invocation)
    world.now = 161.5
    world.fetch(RecordedResponseWriter(world.script, "worker"))
    for tick in range(1615, 1626):
        world.now = tick / 10
        for invocation in timers.advance(world.now):
            invocation.deadline_passed(world.now, 1)
            timers.schedule(invocation.deadline, invocation)
    world.invocation.rest_broken()
    assert world.invocation.deadline == 163.0
    assert timers.advance(162.9) == []
    assert timers.advance(163.1) == [world.invocation]


def test_the_window_goes_on_while_a_worker_reads_nothing_or_no_more() -> None:
    world = World(body_bytes=INLINE + 10)
    world.invocation.request_data(b"a" * INLINE)
    world.fetch(RecordedResponseWriter(world.script, "worker"))
    world.now = 120.0
    world.invocation.rest_pause_writing()
    assert world.invocation.deadline == 182.0
    world.now = 130.0
    world.invocation.rest_resume_writing()
    world.now = 150.0
    world.invocation.rest_broken()
    assert world.invocation.deadline == 202.0


def test_a_body_that_flows_for_as_long_as_a_whole_invocation_may_last_is_a_408() -> None:
    world = World(body_bytes=10)
    world.now = 3700.0
    world.invocation.deadline_passed(3700.0, 1)
    assert world.invocation.deadline == 3705.0
    world.invocation.deadline_passed(3705.0, 1)
    assert world.problem()["status"] == 408
    assert world.invocation.outcome is Outcome.TOO_LONG


# Too large


@pytest.mark.parametrize("bounds", [IN_MEMORY, CollectionBounds()])
def test_a_chunked_body_above_the_limit_is_a_413(bounds: CollectionBounds) -> None:
    world = World(body_bytes=None, bounds=bounds, max_body_bytes=10)
    world.invocation.request_data(b"x" * 11)
    assert world.problem()["status"] == 413
    assert "queue.publish" not in world.script.lines
    assert_nothing_is_left(world)


def test_a_limit_of_the_function_holds_too() -> None:
    world = World(body_bytes=None, max_body_bytes=10, function_max_body_bytes=5)
    world.invocation.request_data(b"x" * 6)
    assert world.problem()["status"] == 413


def test_a_worker_that_reads_a_body_which_becomes_too_large_sees_it_break() -> None:
    world = World(body_bytes=None, max_body_bytes=INLINE)
    world.invocation.request_data(b"x")
    world.invocation.first_part_end()
    worker = RecordedResponseWriter(world.script, "worker")
    world.fetch(worker)
    world.script.take()
    world.invocation.request_data(b"x" * INLINE)
    assert world.script.lines[1:4] == ["queue.withdraw", "worker.abort", "registry.finished"]
    assert world.problem()["status"] == 413


def test_a_body_that_becomes_too_large_during_the_response_breaks_the_stream() -> None:
    world = World(body_bytes=None, max_body_bytes=INLINE)
    world.invocation.request_data(b"x")
    world.invocation.first_part_end()
    world.fetch(RecordedResponseWriter(world.script, "worker"))
    world.attach().head()
    world.invocation.request_data(b"x" * INLINE)
    assert world.script.lines[-1] == "client.abort"
    assert world.invocation.outcome is Outcome.BAD_REQUEST
