"""The live invocations of a process, with a queue that does not answer."""

import asyncio
import json

import pytest

from gateway.attach.endpoint import AttachEndpoint
from gateway.attach.exchanges import AttachGet
from gateway.dispatch import registry as registry_module
from gateway.dispatch.lines import Lines
from gateway.dispatch.registry import InvocationRegistry
from gateway.domain.model import FunctionVersion, VersionState
from gateway.invocation.collection import CollectionBounds, UploadSpace
from gateway.invocation.context import Context, Ticket
from gateway.invocation.machine import Invocation
from gateway.routing.admission import Caller
from gateway.telemetry.metrics import GatewayMetrics
from http1.stream import Request
from queueing.interface import NoResponder, QueueUnavailable
from runtime.metrics import MetricRegistry
from tests.support.recorder import (
    RecordedPost,
    RecordedQueue,
    RecordedResponseWriter,
    RecordedSpool,
    Script,
)
from tests.support.waiting import PATIENCE_S
from wire.decoded_envelope import decode_envelope
from wire.envelope import INLINE_BODY_BYTES
from wire.ids import FunctionId, VersionId


class SilentQueue(RecordedQueue):
    """Knows no position in any time that matters."""

    async def withdraw_expired(self, version_id: str, request_id: str) -> int | None:
        await asyncio.Event().wait()
        raise AssertionError


class RecordedLines(Lines):
    """Keeps the times that calls took."""

    def __init__(self, queue: RecordedQueue) -> None:
        super().__init__(queue, lambda: 100.0)
        self.times_s: list[float] = []

    def answered(self, version_id: str, lease_s: float) -> None:
        self.times_s.append(lease_s)


class BrokenQueue(RecordedQueue):
    """Has a bug."""

    async def withdraw_expired(self, version_id: str, request_id: str) -> int | None:
        raise KeyError(request_id)


VERSION = FunctionVersion(
    FunctionId("11111111-1111-4111-8111-111111111111"),
    VersionId("22222222-2222-4222-8222-222222222222"),
    "acme",
    "echo",
    VersionState.ACTIVE,
)


def opened(
    registry: InvocationRegistry,
    queue: RecordedQueue,
    client: RecordedResponseWriter,
    body_bytes: int | None = 0,
    now: float = 100.0,
    make: type[Invocation] = Invocation,
) -> Invocation:
    """Return a new invocation of `registry`, with a poll window of 1 s."""
    context = Context(
        queue=queue,
        registry=registry,
        region=b"eu",
        attach_uri=b"http://10.0.0.1:8090",
        process=7,
        uploads=UploadSpace(CollectionBounds(), RecordedSpool(Script()).open),
        max_body_bytes=0,
        clock=lambda: 0.0,
    )
    invocation = make(
        context,
        client,
        Request(b"GET", b"/", b"f.example", [(b"host", b"f.example")], body_bytes, now),
        Caller(VERSION, "acme", "alice", 1),
        Ticket("33333333-3333-4333-8333-333333330007", 0),
    )
    registry.open(invocation)
    return invocation


@pytest.mark.parametrize(
    ("body_bytes", "parts", "has_rest"),
    [
        (0, [], False),
        (4, [b"ping"], False),
        (None, [b"ping"], False),
        (None, [b"a" * INLINE_BODY_BYTES], False),
        (None, [b"a" * (INLINE_BODY_BYTES + 1)], True),
        (INLINE_BODY_BYTES, [b"a" * INLINE_BODY_BYTES], False),
        (INLINE_BODY_BYTES + 1, [b"a" * (INLINE_BODY_BYTES + 1)], True),
    ],
)
def test_a_request_token_is_issued_only_if_the_envelope_carries_it(
    body_bytes: int | None, parts: list[bytes], has_rest: bool
) -> None:
    script = Script()
    queue = RecordedQueue(script)
    attach = AttachEndpoint(lambda: 100.0)
    metrics = GatewayMetrics(MetricRegistry(with_process=False))
    registry = InvocationRegistry(attach, queue, metrics, None, lambda: 100.0, lambda version: None)
    client = RecordedResponseWriter(script, "client")
    invocation = opened(registry, queue, client, body_bytes)
    for part in parts:
        invocation.request_data(part)
    invocation.request_end()
    token = decode_envelope(queue.envelopes[0]).request_token
    assert (token is not None) is has_rest
    assert token == invocation.request_token
    assert len(attach.request_tokens) == has_rest
    if token is not None:
        authorization = b"Bearer " + token.encode()
        assert attach.request_tokens.owner_of(authorization) is invocation
    invocation.shut_down()
    assert len(attach.request_tokens) == len(attach.response_tokens) == 0


@pytest.mark.parametrize("kind", [SilentQueue, BrokenQueue])
async def test_a_queue_that_tells_no_position_holds_no_timeout_up(
    kind: type[RecordedQueue],
) -> None:
    script = Script()
    queue = kind(script)
    client = RecordedResponseWriter(script, "client")
    answered = asyncio.Event()
    script.on_line = lambda line: answered.set() if line == "client.end" else None
    now = 100.0
    metrics = GatewayMetrics(MetricRegistry())
    registry = InvocationRegistry(
        AttachEndpoint(lambda: now), queue, metrics, None, lambda: now, lambda version_id: None
    )
    invocation = opened(registry, queue, client, now=now)
    invocation.request_end()
    now = 103.2
    registry.tick()
    async with asyncio.timeout(1.5):
        await answered.wait()
    assert client.head is not None
    assert client.head[0] == 504
    assert json.loads(client.sent)["reason"] == "poll_timeout"
    assert not registry.live


@pytest.mark.parametrize(("body_bytes", "times_s"), [(4, [0.1]), (None, [])])
def test_a_call_counts_for_the_length_of_calls_unless_its_worker_waited_for_the_client(
    body_bytes: int | None, times_s: list[float]
) -> None:
    script = Script()
    queue = RecordedQueue(script)
    metrics = GatewayMetrics(MetricRegistry(with_process=False))
    registry = InvocationRegistry(
        AttachEndpoint(lambda: 100.0), queue, metrics, None, lambda: 100.0, lambda version: None
    )
    lines = registry.lines = RecordedLines(queue)
    client = RecordedResponseWriter(script, "client")
    invocation = opened(registry, queue, client, body_bytes)
    invocation.request_data(b"ping")
    if body_bytes is None:
        invocation.first_part_end()
        worker = RecordedResponseWriter(script, "worker")
        assert invocation.rest_requested(AttachGet(invocation, worker))
    invocation.request_end()
    invocation.attached(RecordedPost(script), 100.0, 0.1)
    invocation.response_head(200, [], 0, None, 100.0)
    invocation.response_end()
    assert lines.times_s == times_s


@pytest.mark.parametrize("failure", [NoResponder("nobody"), QueueUnavailable("away"), None])
async def test_a_polled_call_hears_when_no_worker_takes_its_question(
    failure: QueueUnavailable | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "POLL_PAUSES_S", (0.0, 0.0))
    script = Script()
    asked: list[bytes] = []
    told = asyncio.Event()

    async def poll(version_id: str, request_id: str, envelope: bytes) -> None:
        asked.append(envelope)
        if failure is None:
            told.set()
            return
        raise failure

    class Polled(Invocation):
        def poll_failed(self, number: int) -> None:
            script.add(f"failed {number}")
            told.set()

    metrics = GatewayMetrics(MetricRegistry(with_process=False))
    attach = AttachEndpoint(lambda: 100.0)
    registry = InvocationRegistry(
        attach, RecordedQueue(script), metrics, None, lambda: 100.0, print, poll
    )
    client = RecordedResponseWriter(script, "client")
    invocation = opened(registry, RecordedQueue(script), client, make=Polled)
    first = registry.issue_poll_token(invocation.request_id)
    invocation.response_token = first
    invocation.response_token = registry.issue_poll_token(invocation.request_id)
    assert attach.response_tokens.redeem(b"Bearer " + first.encode()) is None
    registry.poll_worker(invocation.request_id, 7, b"envelope")
    async with asyncio.timeout(PATIENCE_S):
        await told.wait()
    assert asked == [b"envelope"] * (2 if isinstance(failure, NoResponder) else 1)
    assert script.lines == ([] if failure is None else ["failed 7"])
