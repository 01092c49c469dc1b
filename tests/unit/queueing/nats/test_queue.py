"""The life of a queued request: every event in every state."""

from collections.abc import Callable

import pytest

from queueing.interface import QueueError
from queueing.nats.connection import DeniedHandler, NotConnected, Reply
from queueing.nats.jetstream import STORAGE_EXCEEDED
from queueing.nats.queue import JetStreamQueue, QueueLimits, RequestState
from wire.ids import request_id

VERSION = "9b2e0c1d-0000-4000-8000-00000000000f"
STREAM = f"rq_test_{VERSION}"
REQUEST = request_id(bytes(16), 1)
NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"
PENDING, STALLED, HELD, LOST, ENDED = RequestState


class RecordedConnection:
    """The part of a `queueing.nats.connection.NatsConnection` that a queue uses."""

    max_payload_bytes = 1 << 20

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.published: list[tuple[bytes, bytes]] = []

    def is_connected(self) -> bool:
        return True

    def inbox(self) -> bytes:
        return b"_INBOX.x"

    def send(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True

    def publish(self, subject: bytes, payload: bytes, reply: bytes = b"") -> bool:
        self.published.append((subject, payload))
        return True

    def subscribe(self, subject: bytes, handler: object) -> None: ...

    def add_listener(self, listener: object, denied: DeniedHandler | None = None) -> None: ...

    async def request(self, subject: bytes, payload: bytes, timeout_s: float = 2.0) -> Reply:
        raise NotConnected


class World:
    """One queue with one request, and a clock that the test sets."""

    def __init__(self) -> None:
        self.connection = RecordedConnection()
        self.now = 1000.0
        self.called: list[str] = []
        self.queue = JetStreamQueue(
            self.connection,  # type: ignore[arg-type]
            region="test",
            process=1,
            limits=QueueLimits(ack_timeout_s=5.0, lost_grace_s=10.0),
        )
        self.queue._clock = lambda: self.now
        self.queue.publish(VERSION, REQUEST, b"envelope", self, b"")
        self.request = self.queue._requests[REQUEST]

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
        self.queue._on_max_deliveries(b"", b"", b"", advisory)

    def denied(self) -> None:
        self.queue._on_denied(self.request.queue.subject + REQUEST.encode())

    def time_passed(self) -> None:
        self.now += 60.0
        self.queue._tick()

    def forget(self) -> None:
        self.queue.forget(REQUEST)

    def withdrawn(self) -> None:
        self.queue.withdraw(VERSION, REQUEST)

    def closing(self) -> None:
        for request in tuple(self.queue._requests.values()):
            self.queue._fail(request, QueueError("closing"))

    def _reply(self, headers: bytes, payload: bytes) -> None:
        subject = b"_INBOX.x." + REQUEST.encode()
        self.queue._on_acknowledgement(subject, b"", headers, payload)


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
    "closing": (FAILED_AS_TOLD, FAILED_AS_TOLD, FAILED_AS_TOLD, FAILED_AS_TOLD),
}


@pytest.mark.parametrize("event", TRANSITIONS)
@pytest.mark.parametrize("state", RequestState)
async def test_every_event_in_every_state(state: RequestState, event: str) -> None:
    world = World()
    world.reach(state)
    happen: Callable[[], None] = getattr(world, event)
    happen()
    after, called = SILENT if state is ENDED else TRANSITIONS[event][state - PENDING]
    assert (world.request.state, world.called) == (after, [called] if called else [])
    assert (REQUEST in world.queue._requests) is (after is not ENDED)
    assert world.request.queue.unacknowledged == (after in {PENDING, STALLED})
    assert len(world.request.queue.sequences) == (after is HELD)
    assert bool(world.request.frame) is (after in {PENDING, STALLED})


@pytest.mark.parametrize("event", TRANSITIONS)
async def test_nothing_is_called_back_after_the_end(event: str) -> None:
    for state in (PENDING, STALLED, HELD, LOST):
        world = World()
        world.reach(state)
        world.closing()
        called = list(world.called)
        getattr(world, event)()
        assert (world.request.state, world.called) == (ENDED, called)


async def test_a_stalled_request_is_sent_again_when_the_stream_exists() -> None:
    world = World()
    world.no_stream()
    world.stream_found()
    assert world.connection.sent == [world.request.frame] * 2


async def test_an_acknowledgement_after_the_end_deletes_the_message() -> None:
    world = World()
    world.withdrawn()
    world.connection.published.clear()
    world.acknowledged()
    (published,) = world.connection.published
    assert published == (
        f"$JS.API.STREAM.MSG.DELETE.{STREAM}".encode(),
        b'{"seq":7,"no_erase":true}',
    )
