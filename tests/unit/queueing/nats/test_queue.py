"""The life of a queued request: every event in every state."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from queueing.interface import QueueError
from queueing.nats.connection import DeniedHandler, NotConnected, Reply
from queueing.nats.jetstream import STORAGE_EXCEEDED, max_deliveries_subject
from queueing.nats.protocol import MessageHandler
from queueing.nats.queue import JetStreamQueue, QueueLimits, RequestState
from wire.ids import request_id

VERSION = "9b2e0c1d-0000-4000-8000-00000000000f"
STREAM = f"rq_test_{VERSION}"
REQUEST = request_id(bytes(16), 1)
NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"
PENDING, STALLED, HELD, LOST, ENDED = RequestState


class RecordedConnection:
    """The part of a `queueing.nats.connection.NatsConnection` that a queue uses, always connected.

    Its handlers are called also after they have unsubscribed, as by messages on their way.
    """

    max_payload_bytes = 1 << 20

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.published: list[tuple[bytes, bytes]] = []
        self.denied: DeniedHandler | None = None
        self._handlers: dict[bytes, MessageHandler] = {}
        self._inboxes = 0

    def is_connected(self) -> bool:
        return True

    def inbox(self) -> bytes:
        self._inboxes += 1
        return b"_INBOX.%d" % self._inboxes

    def send(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True

    def publish(self, subject: bytes, payload: bytes, reply: bytes = b"") -> bool:
        self.published.append((subject, payload))
        return True

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

    def __init__(self) -> None:
        self.connection = RecordedConnection()
        self.now = 1000.0
        self.called: list[str] = []
        self.queue = JetStreamQueue(
            self.connection,  # type: ignore[arg-type]
            region="test",
            process=1,
            limits=QueueLimits(ack_timeout_s=5.0, lost_grace_s=10.0),
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

    def acknowledged(self) -> None:
        self._reply(b"", b'{"stream":"%b","seq":7}' % STREAM.encode())

    def refused(self) -> None:
        self._reply(b"", b'{"error":{"err_code":10003,"description":"bad request"}}')

    def refused_full(self) -> None:
        self._reply(b"", b'{"error":{"err_code":%d,"description":"full"}}' % STORAGE_EXCEEDED)

    def no_stream(self) -> None:
        self._reply(NO_RESPONDERS, b"")

    def stream_found(self) -> None:
        self.queue.stream_usable(VERSION, "first")

    def stream_replaced(self) -> None:
        self.queue.stream_usable(VERSION, "second")

    def stream_missing(self) -> None:
        self.queue.stream_unusable(VERSION, QueueError("missing"))

    def connection_lost(self) -> None:
        self.queue.disconnected()

    def connection_back(self) -> None:
        self.queue.connected()

    def last_delivery_failed(self) -> None:
        advisory = b'{"stream":"%b","stream_seq":7}' % STREAM.encode()
        self.connection.deliver(max_deliveries_subject(), b"", advisory)

    def denied(self) -> None:
        assert self.connection.denied is not None
        self.connection.denied(self.request.queue.subject + REQUEST.encode())

    def time_passed(self) -> None:
        self.now += 60.0
        self.queue.tick()

    def forget(self) -> None:
        self.queue.forget(REQUEST)

    def withdrawn(self) -> None:
        self.queue.withdraw(VERSION, REQUEST)

    async def closed(self) -> None:
        await self.queue.close()

    def _reply(self, headers: bytes, payload: bytes) -> None:
        self.connection.deliver(self.reply_subject, headers, payload)


@asynccontextmanager
async def running_world() -> AsyncIterator[World]:
    world = World()
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
    "refused": (FAILED, FAILED, (HELD, ""), (LOST, "")),
    "refused_full": (FULL, FULL, (HELD, ""), (LOST, "")),
    "no_stream": ((STALLED, ""), FAILED, (HELD, ""), (LOST, "")),
    "stream_found": ((PENDING, ""), (PENDING, ""), (HELD, ""), (LOST, "")),
    "stream_replaced": ((PENDING, ""), (PENDING, ""), (LOST, ""), (LOST, "")),
    "stream_missing": ((PENDING, ""), FAILED_AS_TOLD, (HELD, ""), (LOST, "")),
    "connection_lost": (FAILED, FAILED, (HELD, ""), (LOST, "")),
    "connection_back": ((PENDING, ""), (STALLED, ""), (HELD, ""), (LOST, "")),
    "last_delivery_failed": ((PENDING, ""), (STALLED, ""), UNDELIVERABLE, (LOST, "")),
    "denied": (FAILED, FAILED, (HELD, ""), (LOST, "")),
    "time_passed": (FAILED, FAILED, (HELD, ""), FAILED),
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
        assert bool(world.request.frame) is (after in {PENDING, STALLED})


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
        assert world.connection.sent == [world.request.frame] * 2


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
