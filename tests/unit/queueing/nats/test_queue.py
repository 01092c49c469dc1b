"""The life of a queued request: every event in every state."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from queueing.interface import QueueError, RunDecision
from queueing.nats.connection import DeniedHandler, NotConnected, Reply
from queueing.nats.jetstream import (
    EPOCH_GAP,
    STORAGE_EXCEEDED,
    QueueState,
    StreamState,
    max_deliveries_subject,
    naks_subject,
)
from queueing.nats.maintenance import BrokerSilent, FoundQueue
from queueing.nats.protocol import MessageHandler
from queueing.nats.queue import JetStreamQueue
from queueing.own_requests import QueueLimits, RequestState
from tests.support.waiting import until
from wire.ids import request_id

VERSION = "9b2e0c1d-0000-4000-8000-00000000000f"
STREAM = f"rq_test_{VERSION}"
REQUEST = request_id(bytes(16), 1)
NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"
PENDING, STALLED, HELD, LOST, ENDED = RequestState


def found_queue(
    created: str = "first",
    *,
    first: int = 1,
    last: int = 7,
    leased: int = 0,
    messages: int = 0,
) -> FoundQueue:
    """Return a queue of which ``leased`` was leased last; no lease is left."""
    stream = StreamState(created, first, last, messages, 1)
    return FoundQueue(stream, QueueState(created, leased, 1, 0, 0, 0, 1, 30.0))


class RecordedConnection:
    """The part of a `queueing.nats.connection.NatsConnection` that a queue uses.

    It is connected while ``is_up``, and takes frames while it ``has_room``.
    Its handlers are called also after they have unsubscribed, as by messages on their way.
    """

    max_payload_bytes = 1 << 20

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.published: list[tuple[bytes, bytes]] = []
        self.denied: DeniedHandler | None = None
        self._handlers: dict[bytes, MessageHandler] = {}
        self._inboxes = 0
        self.is_up = self.has_room = True

    def is_connected(self) -> bool:
        return self.is_up

    def inbox(self) -> bytes:
        self._inboxes += 1
        return b"_INBOX.%d" % self._inboxes

    def send(self, frame: bytes) -> bool:
        if not (self.is_up and self.has_room):
            return False
        self.sent.append(frame)
        return True

    def publish(self, subject: bytes, payload: bytes, reply: bytes = b"") -> bool:
        self.published.append((subject, payload))
        return self.is_up

    def subscribe(self, subject: bytes, handler: MessageHandler) -> None:
        self._handlers[subject] = handler

    def unsubscribe(self, subscription: object) -> None: ...

    def deliver(self, subject: bytes, headers: bytes, payload: bytes) -> None:
        """Call the handler that has subscribed to the subject, or to its siblings."""
        siblings = subject.rpartition(b".")[0] + b".*"
        handler = self._handlers.get(subject) or self._handlers[siblings]
        handler(subject, b"", headers, payload)

    def add_listener(self, listener: object, denied: DeniedHandler | None = None) -> None:
        self.denied = denied

    def remove_listener(self, listener: object) -> None: ...

    async def flush(self) -> None: ...

    async def request(self, subject: bytes, payload: bytes, timeout_s: float = 2.0) -> Reply:
        raise NotConnected


class World:
    """One queue with one request, and a clock that the test sets; see `running_world`."""

    def __init__(self, **limits: float) -> None:
        self.connection = RecordedConnection()
        self.now = 1000.0
        self.called: list[str] = []
        self.queue = JetStreamQueue(
            self.connection,  # type: ignore[arg-type]
            region="test",
            process=1,
            limits=QueueLimits(**limits),  # type: ignore[arg-type]
            clock=lambda: self.now,
        )
        self.queue.publish(VERSION, REQUEST, b"envelope", self, b"")
        request = self.queue.request(REQUEST)
        assert request is not None
        self.request = request
        _, _, self.reply_subject, *_ = self.connection.sent[0].split()

    def publish_failed(self, error: QueueError) -> None:
        self.called.append(f"publish_failed {type(error).__name__}")

    def undeliverable(self) -> None:
        self.called.append("undeliverable")

    def reach(self, state: RequestState) -> None:
        match state:
            case RequestState.PENDING:
                pass
            case RequestState.STALLED:
                self.no_stream()
            case RequestState.HELD:
                self.acknowledged()
                self.stream_found()
            case RequestState.LOST:
                self.reach(HELD)
                self.stream_replaced()
            case RequestState.ENDED:
                self.forget()
        assert (self.request.state, self.called) == (state, [])

    async def happens(self, event: str) -> None:
        """Call the method of this name below."""
        happen: Callable[[], Awaitable[None] | None] = getattr(self, event)
        if (happening := happen()) is not None:
            await happening

    # Events

    def acknowledged(self, sequence: int = 7) -> None:
        self._reply(b"", b'{"stream":"%b","seq":%d}' % (STREAM.encode(), sequence))

    def acknowledged_with_a_blank(self) -> None:
        """As nats-server 2.11 writes it."""
        self._reply(b"", b'{"stream":"%b", "seq":7}' % STREAM.encode())

    def refused(self) -> None:
        self._reply(b"", b'{"error":{"err_code":10003,"description":"bad request"}}')

    def refused_full(self) -> None:
        self._reply(b"", b'{"error":{"err_code":%d,"description":"full"}}' % STORAGE_EXCEEDED)

    def no_stream(self) -> None:
        self._reply(NO_RESPONDERS, b"")

    def stream_found(self) -> None:
        self.queue.stream_usable(VERSION, found_queue())

    def stream_replaced(self) -> None:
        self.queue.stream_usable(VERSION, found_queue("second"))

    def stream_emptied(self) -> None:
        self.queue.stream_emptied(VERSION)

    def stream_missing(self) -> None:
        self.queue.stream_unusable(VERSION, QueueError("missing"))

    def connection_lost(self) -> None:
        self.queue.disconnected()

    def connection_back(self) -> None:
        self.queue.connected()

    def broker_away(self) -> None:
        self.connection.is_up = False
        self.queue.disconnected()

    def broker_back(self) -> None:
        self.connection.is_up = True
        self.queue.connected()

    def last_delivery_failed(self) -> None:
        advisory = b'{"stream":"%b","stream_seq":7}' % STREAM.encode()
        self.connection.deliver(max_deliveries_subject(), b"", advisory)

    def handed_back(self, deliveries: int = 1) -> None:
        advisory = b'{"stream":"%b","stream_seq":7,"deliveries":%d}' % (STREAM.encode(), deliveries)
        self.connection.deliver(naks_subject(), b"", advisory)

    def started(self) -> None:
        self.queue.started(REQUEST)

    def denied(self) -> None:
        assert self.connection.denied is not None
        self.connection.denied(self.request.queue.subject + REQUEST.encode())

    def time_passed(self) -> None:
        self.now += 60.0
        self.queue.tick()

    def answered(self) -> None:
        self.queue.answered(REQUEST)

    def forget(self) -> None:
        self.queue.forget(REQUEST)

    def withdrawn(self) -> None:
        self.queue.withdraw(VERSION, REQUEST)

    async def closed(self) -> None:
        await self.queue.close()

    def reply_to(self, request: str, sequence: int) -> None:
        """Acknowledge another request."""
        subject = self.reply_subject.rpartition(b".")[0] + b"." + request.encode()
        payload = b'{"stream":"%b","seq":%d}' % (STREAM.encode(), sequence)
        self.connection.deliver(subject, b"", payload)

    def _reply(self, headers: bytes, payload: bytes) -> None:
        self.connection.deliver(self.reply_subject, headers, payload)


@asynccontextmanager
async def running_world(**limits: float) -> AsyncIterator[World]:
    """Run a world; ``limits`` as in `QueueLimits`."""
    world = World(**limits)
    await world.queue.start()
    world.connection.published.clear()
    try:
        yield world
    finally:
        await world.queue.close()


FAILED = ENDED, "publish_failed QueueUnavailable"
FAILED_AS_TOLD = ENDED, "publish_failed QueueError"
FULL = ENDED, "publish_failed QueueFull"
UNDELIVERABLE = ENDED, "undeliverable"
SILENT = ENDED, ""

TRANSITIONS: dict[str, tuple[tuple[RequestState, str], ...]] = {
    # event: after PENDING, STALLED, HELD, LOST
    "acknowledged": ((HELD, ""), (HELD, ""), (HELD, ""), (LOST, "")),
    "acknowledged_with_a_blank": ((HELD, ""), (HELD, ""), (HELD, ""), (LOST, "")),
    "refused": (FAILED, FAILED, (HELD, ""), (LOST, "")),
    "refused_full": (FULL, FULL, (HELD, ""), (LOST, "")),
    "no_stream": ((STALLED, ""), FAILED, (HELD, ""), (LOST, "")),
    "stream_found": ((PENDING, ""), (PENDING, ""), (HELD, ""), (LOST, "")),
    "stream_replaced": ((PENDING, ""), (PENDING, ""), (LOST, ""), (LOST, "")),
    "stream_emptied": ((PENDING, ""), (STALLED, ""), (LOST, ""), (LOST, "")),
    "stream_missing": ((PENDING, ""), FAILED_AS_TOLD, (HELD, ""), (LOST, "")),
    "connection_lost": ((STALLED, ""), (STALLED, ""), (HELD, ""), (LOST, "")),
    "connection_back": ((PENDING, ""), (STALLED, ""), (HELD, ""), (LOST, "")),
    "last_delivery_failed": ((PENDING, ""), (STALLED, ""), UNDELIVERABLE, (LOST, "")),
    "handed_back": ((PENDING, ""), (STALLED, ""), (HELD, ""), (LOST, "")),
    "started": ((PENDING, ""), (STALLED, ""), (HELD, ""), (LOST, "")),
    "denied": (FAILED, FAILED, (HELD, ""), (LOST, "")),
    "time_passed": (FAILED, FAILED, (HELD, ""), (STALLED, "")),
    "answered": (SILENT, SILENT, SILENT, SILENT),
    "forget": (SILENT, SILENT, SILENT, SILENT),
    "withdrawn": (SILENT, SILENT, SILENT, SILENT),
    "closed": (FAILED, FAILED, FAILED, FAILED),
}


@pytest.mark.parametrize("event", TRANSITIONS)
@pytest.mark.parametrize("state", RequestState)
async def test_every_event_in_every_state(state: RequestState, event: str) -> None:
    async with running_world() as world:
        world.reach(state)
        await world.happens(event)
        after, called = SILENT if state is ENDED else TRANSITIONS[event][state - PENDING]
        assert (world.request.state, world.called) == (after, [called] if called else [])
        assert world.queue.request(REQUEST) is (None if after is ENDED else world.request)
        assert world.request.queue.unacknowledged == (after in {PENDING, STALLED})
        assert len(world.request.queue.sequences) == (after is HELD)
        assert bool(world.request.envelope) is (after is not ENDED)


@pytest.mark.parametrize("event", TRANSITIONS)
async def test_nothing_is_called_back_after_the_end(event: str) -> None:
    for state in (PENDING, STALLED, HELD, LOST):
        async with running_world() as world:
            world.reach(state)
            await world.closed()
            called = list(world.called)
            await world.happens(event)
            assert (world.request.state, world.called) == (ENDED, called)


async def test_a_stalled_request_is_sent_again_when_the_stream_exists() -> None:
    async with running_world() as world:
        world.no_stream()
        world.stream_found()
        first, second = world.connection.sent
        assert first == second
        assert world.request.envelope in first


async def test_an_acknowledgement_after_the_end_deletes_the_message() -> None:
    async with running_world() as world:
        world.withdrawn()
        world.connection.published.clear()
        world.acknowledged()
        (published,) = world.connection.published
    assert published == (
        f"$JS.API.STREAM.MSG.DELETE.{STREAM}".encode(),
        b'{"seq":7,"no_erase":true}',
    )


# Loss


async def test_what_a_lost_stream_held_is_published_again_at_each_of_three_losses() -> None:
    async with running_world() as world:
        world.reach(LOST)
        for times in (1, 2, 3):
            world.time_passed()
            world.stream_found()
            assert world.connection.sent == [world.connection.sent[0]] * (1 + times)
            world.acknowledged(7 + times)
            assert (world.request.state, world.called) == (HELD, [])
            world.stream_emptied()
        world.time_passed()
        assert world.called == ["publish_failed QueueUnavailable"]
        assert (world.queue.republished, world.queue.losses) == (3, 1)
        assert f'nats_jetstream_publish{{stream="{STREAM}",status="Ok"}} 1' in "\n".join(
            world.queue.publishes.lines()
        )


@pytest.mark.parametrize("max_kept_bytes", [1 << 20, 0])
async def test_what_is_lost_waits_while_the_broker_is_away(max_kept_bytes: int) -> None:
    async with running_world(max_kept_bytes=max_kept_bytes) as world:
        world.reach(LOST)
        world.broker_away()
        for _ in range(10):
            world.time_passed()
        assert (world.request.state, world.called) == (LOST, [])
        world.connection.published.clear()
        world.broker_back()
        # Workers say within this time that they run it.
        assert world.connection.published[-1] == (world.request.queue.names.cancel_subject, b"?")
        world.queue.tick()
        assert world.request.state is LOST
        world.now += 0.5
        world.queue.tick()
        told = [] if max_kept_bytes else ["publish_failed QueueUnavailable"]
        assert (world.request.state, world.called) == (ENDED if told else STALLED, told)


async def test_a_worker_that_runs_what_is_lost_is_heard_before_it_is_published_again() -> None:
    async with running_world() as world:
        world.reach(LOST)
        world.broker_away()
        world.time_passed()
        world.broker_back()
        world.started()
        world.now += 1.0
        world.queue.tick()
        assert (world.request.state, world.queue.republished) == (LOST, 0)


@pytest.mark.parametrize("state", [STALLED, PENDING])
async def test_what_was_to_be_published_again_waits_for_the_broker(state: RequestState) -> None:
    async with running_world() as world:
        world.reach(LOST)
        for _ in range(3):
            world.time_passed()
            if state is PENDING:
                world.stream_found()
            assert world.request.state is state
            world.broker_away()
            world.time_passed()
            assert (world.request.state, world.called) == (LOST, [])
            world.broker_back()
        world.now += 1.0
        world.queue.tick()
        after = (STALLED, []) if state is STALLED else (ENDED, ["publish_failed QueueUnavailable"])
        assert (world.request.state, world.called) == after
        assert world.request.queue.unacknowledged == (state is STALLED)


async def test_what_was_to_be_published_again_waits_for_a_broker_that_is_silent() -> None:
    async with running_world() as world:
        world.reach(LOST)
        world.time_passed()
        world.queue.stream_unusable(VERSION, BrokerSilent("no response"))
        assert (world.request.state, world.called) == (LOST, [])
        world.time_passed()
        world.stream_found()
        assert world.request.state is PENDING
        # It takes the request, and says nothing.
        world.time_passed()
        assert (world.request.state, world.called) == (LOST, [])


async def test_what_was_to_be_published_again_is_told_if_there_can_be_no_queue() -> None:
    async with running_world() as world:
        world.reach(LOST)
        world.time_passed()
        world.stream_missing()
        assert world.called == ["publish_failed QueueError"]


async def test_what_is_published_again_waits_for_room_in_the_connection() -> None:
    async with running_world() as world:
        world.reach(LOST)
        world.time_passed()
        world.connection.has_room = False
        world.stream_found()
        assert (world.request.state, world.called) == (STALLED, [])
        world.connection.has_room = True
        world.stream_found()
        assert (world.request.state, len(world.connection.sent)) == (PENDING, 2)


async def test_the_bound_on_envelopes_counts_each_once_however_often_it_is_lost() -> None:
    async with running_world() as sample:
        envelope_bytes = len(sample.request.envelope)
    async with running_world(max_kept_bytes=envelope_bytes) as world:
        world.reach(LOST)
        for _ in range(2):
            world.time_passed()
            world.stream_found()
            world.broker_away()
            world.broker_back()
            assert world.request.state is LOST
        world.time_passed()
        world.stream_found()
        world.acknowledged(8)
        assert world.request.envelope == b""
        other = request_id(b"1" + bytes(15), 1)
        world.queue.publish(VERSION, other, b"envelope", world, b"")
        world.reply_to(other, 9)
        kept = world.queue.request(other)
        assert kept is not None
        assert kept.envelope


async def test_a_lost_request_that_had_been_leased_is_not_published_again() -> None:
    async with running_world(lease_grace_s=100.0) as world:
        world.acknowledged()
        world.queue.stream_usable(VERSION, found_queue(leased=7))
        world.stream_replaced()
        world.time_passed()
        assert (world.request.state, world.called) == (LOST, [])
        world.time_passed()
        assert world.called == ["publish_failed QueueUnavailable"]


async def test_a_lost_request_that_a_worker_runs_waits_for_its_response() -> None:
    async with running_world(claim_s=100.0) as world:
        world.acknowledged()
        world.stream_found()
        world.started()
        world.stream_replaced()
        for _ in range(3):
            world.time_passed()
            world.started()
        assert (world.request.state, world.called) == (LOST, [])
        assert len(world.connection.sent) == 1


@pytest.mark.parametrize("state", [STALLED, HELD, LOST])
async def test_a_lost_request_fails_when_its_worker_says_no_more(state: RequestState) -> None:
    async with running_world(claim_s=100.0) as world:
        world.reach(state)
        world.started()
        if state is HELD:
            world.stream_replaced()
        world.stream_found()
        world.time_passed()
        assert (world.request.state, world.called) == (LOST, [])
        world.started()
        world.time_passed()
        assert world.called == []
        world.time_passed()
        assert world.called == ["publish_failed QueueUnavailable"]
        assert world.queue.losses == 1
        assert len(world.connection.sent) == 1


async def test_a_request_that_runs_is_not_sent_again_though_its_acknowledgement_was_lost() -> None:
    async with running_world(claim_s=100.0) as world:
        world.connection_lost()
        world.started()
        world.stream_found()
        world.time_passed()
        assert (world.request.state, world.called) == (LOST, [])
        assert len(world.connection.sent) == 1


async def test_a_worker_that_began_after_the_loss_is_asked_whether_it_runs_the_request() -> None:
    async with running_world(max_runs=2, claim_s=100.0) as world:
        world.reach(LOST)
        assert world.queue.may_run(REQUEST, 2) is RunDecision.RUN
        world.connection.published.clear()
        world.time_passed()
        world.queue.tick()
        asked = [payload for _, payload in world.connection.published]
        assert asked.count(b"?") == 1
        world.started()
        world.time_passed()
        assert world.called == []


@pytest.mark.parametrize("state", [PENDING, STALLED, LOST])
async def test_what_a_worker_was_told_to_run_is_not_sent_again(state: RequestState) -> None:
    async with running_world(max_runs=2) as world:
        world.reach(state)
        sent = list(world.connection.sent)
        assert world.queue.may_run(REQUEST, 2) is RunDecision.RUN
        world.connection_lost()
        world.now += 1.0
        world.stream_found()
        world.queue.tick()
        world.stream_found()
        assert (world.request.state, world.called) == (LOST, [])
        assert (world.connection.sent, world.queue.republished) == (sent, 0)


@pytest.mark.parametrize("state", [PENDING, STALLED, HELD, LOST])
async def test_the_last_run_is_forgotten_with_its_request(state: RequestState) -> None:
    async with running_world(max_runs=1) as world:
        world.reach(state)
        assert world.queue.may_run(REQUEST, 1) is RunDecision.RUN
        assert world.request.queue.last_runs
        world.forget()
        assert not world.request.queue.last_runs


async def test_envelopes_are_kept_up_to_a_bound_and_what_was_not_kept_is_told() -> None:
    async with running_world(max_kept_bytes=0) as world:
        world.acknowledged()
        world.stream_found()
        assert world.request.envelope == b""
        world.stream_replaced()
        world.connection.published.clear()
        world.time_passed()
        assert world.called == ["publish_failed QueueUnavailable"]
        # Should the new stream have it, no worker runs it.
        cancel = world.request.queue.names.cancel_subject, REQUEST.encode()
        await until(lambda: cancel in world.connection.published)


async def test_an_acknowledgement_with_a_sequence_that_went_back_tells_of_the_loss() -> None:
    async with running_world() as world:
        world.acknowledged(EPOCH_GAP)
        world.now += 1.0
        other = request_id(b"1" + bytes(15), 1)
        world.queue.publish(VERSION, other, b"envelope", world, b"")
        world.reply_to(other, 1)
        assert world.request.state is LOST
        assert world.queue.sequence_of(other) == 1


async def test_an_acknowledgement_from_a_later_life_of_the_stream_tells_of_the_loss() -> None:
    async with running_world() as world:
        world.acknowledged()
        other = request_id(b"1" + bytes(15), 1)
        world.queue.publish(VERSION, other, b"envelope", world, b"")
        world.reply_to(other, 7 + 2 * EPOCH_GAP)
        assert world.request.state is LOST


async def test_an_acknowledgement_that_was_overtaken_tells_of_nothing() -> None:
    async with running_world() as world:
        other = request_id(b"1" + bytes(15), 1)
        world.queue.publish(VERSION, other, b"envelope", world, b"")
        world.reply_to(other, 8)
        world.acknowledged(7)
        assert (world.request.state, world.queue.sequence_of(other)) == (HELD, 8)


# Waiting


async def test_a_request_that_waits_is_noticed_also_behind_many_that_are_gone() -> None:
    async with running_world() as world:
        world.acknowledged()
        assert not world.queue.has_waited(VERSION, 0.25)
        world.now += 0.25
        assert world.queue.has_waited(VERSION, 0.25)
        other = request_id(b"1" + bytes(15), 1)
        world.queue.publish(VERSION, other, b"envelope", world, b"")
        world.reply_to(other, 8)
        world.withdrawn()
        world.now += 0.06
        assert not world.queue.has_waited(VERSION, 0.25)
        world.now += 0.25
        assert world.queue.has_waited(VERSION, 0.25)
        world.queue.withdraw(VERSION, other)
        assert not world.queue.has_waited(VERSION, 0.25)


async def test_what_is_forgotten_does_not_hide_what_waits() -> None:
    async with running_world() as world:
        world.acknowledged()
        others = [request_id(bytes([number]) + bytes(15), 1) for number in (1, 2)]
        for sequence, other in enumerate(others, 8):
            world.queue.publish(VERSION, other, b"envelope", world, b"")
            world.reply_to(other, sequence)
        world.now += 1.0
        world.queue.forget(others[0])
        assert world.queue.has_waited(VERSION, 0.25)
        younger = request_id(b"3" + bytes(15), 1)
        world.queue.publish(VERSION, younger, b"envelope", world, b"")
        world.reply_to(younger, 10)
        world.queue.forget(younger)
        assert world.queue.has_waited(VERSION, 0.25)
        world.queue.answered(others[1])
        assert world.queue.has_waited(VERSION, 0.25)


async def test_own_calls_wait_until_they_are_answered_or_withdrawn_or_leased() -> None:
    async with running_world() as world:
        world.acknowledged()
        others = [request_id(bytes([number]) + bytes(15), 1) for number in range(1, 5)]
        for sequence, other in enumerate(others, 8):
            world.queue.publish(VERSION, other, b"envelope", world, b"")
            world.reply_to(other, sequence)
        assert world.queue.own_line(VERSION, 0) == (11, 0, 5, 5)
        assert world.queue.own_line(VERSION, 7) == (11, 0, 5, 4)
        world.queue.withdraw(VERSION, others[3])
        assert world.queue.own_line(VERSION, 7) == (11, 0, 5, 3)
        world.queue.answered(others[1])
        assert world.queue.own_line(VERSION, 7) == (11, 9, 5, 1)
        assert world.queue.own_line("another", 7) == (0, 0, 0, 0)


# Runs


async def test_a_request_is_run_as_often_as_permitted_and_given_up_then() -> None:
    async with running_world(max_runs=2) as world:
        world.acknowledged()
        assert world.queue.may_run(REQUEST, 2) is RunDecision.RUN
        # The broker's report of a lease that was given back may be late.
        assert world.queue.may_run(REQUEST, 3) is RunDecision.LATER
        world.handed_back(3)
        assert world.queue.may_run(REQUEST, 4) is RunDecision.NEVER
        assert world.called == ["undeliverable"]
        assert world.queue.may_run(REQUEST, 5) is RunDecision.NEVER


async def test_a_lease_that_was_given_back_is_no_run() -> None:
    async with running_world(max_runs=1) as world:
        world.acknowledged()
        for deliveries in range(2, 50):
            world.handed_back(deliveries - 1)
            assert world.queue.may_run(REQUEST, deliveries) is RunDecision.RUN
        assert world.called == []


async def test_a_question_about_the_first_delivery_is_no_further_run() -> None:
    async with running_world(max_runs=1) as world:
        world.acknowledged()
        assert world.queue.may_run(REQUEST, 1) is RunDecision.RUN
        assert world.queue.may_run(REQUEST, 2) is RunDecision.LATER


async def test_a_delivery_that_no_worker_has_read_is_no_run() -> None:
    """A worker that stands still with an open pull is sent the request again and again."""
    async with running_world(max_runs=2) as world:
        world.acknowledged()
        assert world.queue.may_run(REQUEST, 30) is RunDecision.RUN
        assert world.queue.may_run(REQUEST, 31) is RunDecision.LATER


# Room


async def test_a_full_queue_refuses_until_the_broker_says_that_there_is_room() -> None:
    async with running_world(max_waiting=1) as world:
        world.acknowledged()
        others = [request_id(bytes([number]) + bytes(15), 1) for number in range(1, 4)]
        for other in others[:2]:
            world.queue.publish(VERSION, other, b"envelope", world, b"")
        assert len(world.connection.sent) == 1
        world.queue.stream_usable(VERSION, found_queue(messages=1))
        assert world.called == ["publish_failed QueueFull"] * 2
        world.queue.publish(VERSION, others[2], b"envelope", world, b"")
        world.queue.stream_usable(VERSION, found_queue(messages=0))
        assert len(world.connection.sent) == 2
        assert len(world.called) == 2
