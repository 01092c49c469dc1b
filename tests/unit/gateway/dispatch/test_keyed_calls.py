"""Calls with an Idempotency-Key at one process: claims, repeated calls, and what frees a key."""

import json
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gateway.attach.endpoint import AttachEndpoint
from gateway.dispatch.dispatcher import Dispatcher, Gates
from gateway.dispatch.endpoints import PathEndpoints
from gateway.dispatch.rate_limits import RateLimits
from gateway.dispatch.refusals import Refusals
from gateway.dispatch.registry import InvocationRegistry
from gateway.domain.cors import OPEN
from gateway.domain.model import EVERYTHING, FunctionVersion, VersionState
from gateway.domain.principal import INVOKE, Principal
from gateway.domain.rate_limit import RateLimitPolicy
from gateway.domain.readmodel import ReadModel
from gateway.invocation.collection import CollectionBounds, UploadSpace
from gateway.invocation.context import Context
from gateway.invocation.machine import Invocation
from gateway.objects.interface import ObjectStore
from gateway.routing.admission import Admission
from gateway.routing.call_head import call_head_reader
from gateway.routing.cross_origin import CrossOrigin
from gateway.routing.router import Router
from gateway.routing.sources import Sources
from gateway.telemetry.health import ProcessHealth
from gateway.telemetry.metrics import GatewayMetrics
from http1.stream import Headers, Request, RequestStream
from queueing.interface import QueueFull, RunDecision
from runtime.metrics import MetricRegistry
from tests.support.detached import NOW, make_book, make_endpoint, make_keyed_calls
from tests.support.objects import local_objects
from tests.support.recorder import (
    RecordedPost,
    RecordedQueue,
    RecordedResponseWriter,
    RecordedSpool,
    Script,
)
from tests.support.stored_claims import StoredClaims
from tests.support.stored_numbers import StoredNumbers
from tests.support.waiting import PATIENCE_S, until
from wire.deadlines import DEFAULT_POLL_S
from wire.ids import FunctionId, VersionId

FUNCTION = FunctionId("7f9619ff-8b86-4011-b42d-00c04fc964ff")
RATED = FunctionId("9f9619ff-8b86-4011-b42d-00c04fc964ff")
VERSION = VersionId("11111111-1111-4111-8111-111111111111")


class Caller:
    """One client's call. ``told`` is its response: status, headers, document or text."""

    def __init__(self, dispatch: Dispatcher, headers: Headers, function_id: str) -> None:
        self.writer = RecordedResponseWriter(Script(), "client")
        request = Request(
            b"POST",
            b"/v1",
            f"{function_id}.example".encode(),
            [(b"authorization", b"Bearer own"), *headers],
            3,
            0.0,
        )
        self.stream: RequestStream = dispatch(request, self.writer)

    def send(self, body: bytes = b"abc") -> "Caller":
        self.stream.request_data(body)
        self.stream.request_end()
        return self

    @property
    def status(self) -> int:
        return 0 if self.writer.head is None else self.writer.head[0]

    @property
    def headers(self) -> dict[bytes, bytes]:
        assert self.writer.head is not None
        return dict(self.writer.head[1])

    @property
    def problem(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.writer.sent)
        return document


class Process:
    """A dispatcher with its queue and the store's claims."""

    def __init__(self, objects: ObjectStore) -> None:
        self.store = StoredClaims()
        self.queue = RecordedQueue(Script())
        model = ReadModel()
        rate = RateLimitPolicy(rate="1-M")
        for function, limit in ((FUNCTION, None), (RATED, rate)):
            state = VersionState.ACTIVE
            model.apply(FunctionVersion(function, VERSION, "own", "name", state, rate_limit=limit))
        metrics = GatewayMetrics(MetricRegistry(with_process=False))
        attach = AttachEndpoint(lambda: 0.0)
        registry = InvocationRegistry(
            attach, self.queue, metrics, None, lambda: 0.0, lambda _: None
        )
        context: Context[Invocation] = Context(
            queue=self.queue,
            registry=registry,
            region=b"eu",
            attach_uri=b"http://10.0.0.1:8090",
            process=7,
            uploads=UploadSpace(CollectionBounds(), RecordedSpool(Script()).open),
            max_body_bytes=0,
            clock=lambda: 0.0,
        )
        admission = Admission(_authenticate, Router(model, lambda: 0.0))
        cross_origin = CrossOrigin(model, OPEN)
        endpoints = PathEndpoints(
            attach, ProcessHealth(), metrics, cross_origin, make_endpoint(cross_origin)
        )
        self.live = registry.live
        self.book = book = make_book(objects=objects)
        self.dispatch = Dispatcher(
            context,
            registry,
            call_head_reader(b""),
            Gates(admission, RateLimits(StoredNumbers(), lambda: 0)),
            endpoints,
            Refusals(metrics, None, admission.key_id_of),
            Sources([], trusts_unix=False),
            book,
            make_keyed_calls(book, self.store),
        )

    def call(self, key: bytes = b"k", function_id: str = FUNCTION) -> Caller:
        """Begin a call; its body is to be sent."""
        return Caller(self.dispatch, [(b"idempotency-key", key)], function_id)

    async def begun(self, count: int = 1) -> Invocation:
        """Wait until so many calls have begun; return the last one."""
        await until(lambda: len(self.live) == count, what="calls that have begun")
        return list(self.live.values())[-1]


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """An object store for the responses."""
    store = local_objects(tmp_path)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def process(objects: ObjectStore) -> AsyncIterator[Process]:
    process = Process(objects)
    yield process
    for invocation in list(process.live.values()):
        invocation.shut_down()
    await process.book.wait_settled(PATIENCE_S)


def _authenticate(authorization: bytes | None, now: float) -> Principal:
    return Principal("own", "sub", frozenset({INVOKE}), EVERYTHING)


def respond(invocation: Invocation, body: bytes = b"done") -> None:
    """Let a worker run the call and respond."""
    assert invocation.run_requested(1, is_running=False) is RunDecision.RUN
    invocation.attached(RecordedPost(Script()), 1.0, 0.0)
    invocation.response_head(200, [(b"content-type", b"text/plain")], len(body), None, 1.0)
    invocation.response_data(body)
    invocation.response_end()


async def test_calls_with_one_key_become_one_invocation_whose_response_all_get(
    process: Process,
) -> None:
    callers = [process.call() for _ in range(3)]
    invocation = await process.begun()
    for caller in callers:
        caller.send()
    await until(lambda: len(process.queue.envelopes), what="the publish")
    respond(invocation)
    await until(lambda: all(caller.writer.over for caller in callers), what="responses")
    assert [caller.writer.sent for caller in callers] == [b"done"] * 3
    assert {caller.headers[b"nvcf-reqid"] for caller in callers} == {invocation.request_id.encode()}
    replayed = [b"idempotent-replayed" in caller.headers for caller in callers]
    assert sorted(replayed) == [False, True, True]
    late = process.call().send()
    await until(lambda: late.writer.over, what="the late response")
    assert late.writer.sent == b"done"
    assert len(process.queue.envelopes) == 1


async def test_another_request_is_refused_also_while_the_first_is_incomplete(
    process: Process,
) -> None:
    first = process.call()
    await process.begun()
    other = process.call(b'"k"').send(b"abd")
    same = process.call().send()
    first.send()
    await until(lambda: other.writer.over, what="the refusal")
    assert (other.status, other.problem["reason"]) == (422, "idempotency_key_reused")
    assert not same.writer.over
    respond(await process.begun())
    await until(lambda: same.writer.over, what="the response")
    assert same.writer.sent == b"done"


async def test_who_repeats_an_incomplete_request_waits_no_longer_than_its_window(
    process: Process,
) -> None:
    first = process.call()
    await process.begun()
    again = process.call().send()
    process.book.clock = count(NOW, DEFAULT_POLL_S + 1.0).__next__

    async def is_over() -> bool:
        process.book.tick()
        return again.writer.over

    await until(is_over, what="the end of the window")
    assert (again.status, again.problem["reason"]) == (504, "poll_timeout")
    first.send()
    respond(await process.begun())
    assert first.writer.sent == b"done"
    assert not process.queue.envelopes[1:]


async def test_a_key_is_free_again_after_a_refusal(
    process: Process,
) -> None:
    one, other = process.call(b"a", RATED).send(), process.call(b"b", RATED).send()
    await until(lambda: other.writer.over, what="the rate limit's refusal")
    assert (one.status, other.status) == (0, 429)
    await until(lambda: len(process.store.documents) == 1, what="the release")


async def test_a_key_is_free_again_if_the_queue_refused_the_call(
    process: Process,
) -> None:
    first = process.call().send()
    invocation = await process.begun()
    await until(lambda: len(process.queue.envelopes), what="the publish")
    invocation.publish_failed(QueueFull())
    assert first.status == 429
    await until(lambda: not process.store.documents, what="the release")
    second = process.call().send()
    await until(lambda: len(process.queue.envelopes) == 2, what="the publish")
    respond(await process.begun())
    assert second.status == 200


async def test_a_key_stays_taken_by_a_call_that_may_have_run(
    process: Process,
) -> None:
    first = process.call().send()
    invocation = await process.begun()
    await until(lambda: len(process.queue.envelopes), what="the publish")
    assert invocation.run_requested(1, is_running=False) is RunDecision.RUN
    assert invocation.run_requested(2, is_running=False) is RunDecision.NEVER
    again = process.call().send()
    await until(lambda: again.writer.over, what="the same problem")
    assert (first.status, again.status) == (502, 502)
    assert again.writer.sent == first.writer.sent
    assert again.headers[b"idempotent-replayed"] == b"true"
    assert len(process.queue.envelopes) == 1


async def test_a_call_goes_on_without_its_client_and_a_client_that_repeats_it_gets_the_rest(
    process: Process,
) -> None:
    first = process.call().send()
    invocation = await process.begun()
    await until(lambda: len(process.queue.envelopes), what="the publish")
    first.stream.request_broken()
    again = process.call().send()
    respond(invocation)
    await until(lambda: again.writer.over, what="the response")
    assert again.writer.sent == b"done"


async def test_a_client_that_leaves_early_takes_no_key(
    process: Process,
) -> None:
    process.store.answers.clear()
    process.call().stream.request_broken()
    process.store.answers.set()
    await until(lambda: process.store.made and not process.store.documents, what="the release")
    incomplete = process.call()
    await process.begun()
    incomplete.stream.request_broken()
    await until(lambda: not process.store.documents, what="the release")
    assert process.queue.envelopes == []


@pytest.mark.parametrize("loses_replies", [False, True])
async def test_nothing_runs_without_the_store(process: Process, loses_replies: bool) -> None:
    process.store.is_away = not loses_replies
    process.store.loses_replies = loses_replies
    refused = process.call().send()
    await until(lambda: refused.writer.over, what="the refusal")
    assert (refused.status, refused.problem["reason"]) == (503, "store_unavailable")
    assert process.queue.envelopes == []


async def test_a_key_whose_holder_is_unknown_is_never_run_again(
    process: Process, objects: ObjectStore
) -> None:
    lost = Process(objects)
    first = lost.call().send()
    await lost.begun()
    process.store.documents = lost.store.documents
    again = process.call().send()
    await until(lambda: again.writer.over, what="the problem")
    assert (again.status, again.problem["reason"]) == (502, "outcome_unknown")
    assert again.headers[b"x-should-retry"] == b"false"
    other = process.call().send(b"abd")
    await until(lambda: other.writer.over, what="the refusal")
    assert other.status == 422
    assert not first.writer.over
    assert process.queue.envelopes == []
