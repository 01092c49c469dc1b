"""Detached calls between a recorded worker and clients that come and go."""

import orjson
import pytest

from gateway.invocation.states import ATTACHED, DONE, QUEUED, SENT, Outcome
from gateway.requests.detached import AccountBytes, DetachedCall, Limits
from gateway.requests.exchanges import FirstExchange, ResponseExchange
from gateway.requests.prefer import Terms
from gateway.requests.recording import RecordingSpace
from gateway.requests.views import view_body, view_of
from gateway.routing.cross_origin import PageAccess
from tests.support.invocation_world import World
from tests.support.recorder import RecordedResponseWriter, RecordedSpool, Script

ACCESS = PageAccess(None, None, replaces=True)
CREATED_AT = 1_700_000_000.0


class Ports:
    """`CallPorts` and `Windows`, without a book."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.space = RecordingSpace(RecordedSpool(Script()).open)
        self.finished_calls: list[DetachedCall] = []
        self.windows: list[ResponseExchange] = []

    def clock(self) -> float:
        return 103.0

    def finished(self, call: DetachedCall) -> None:
        self.finished_calls.append(call)

    def open(self, window: ResponseExchange, seconds: float) -> None:
        self.windows.append(window)

    def close(self, window: ResponseExchange) -> None:
        if window in self.windows:
            self.windows.remove(window)


class Detached:
    """A call, its first client, and the worker."""

    def __init__(
        self, terms: Terms, limits: Limits | None = None, body_bytes: int | None = 0
    ) -> None:
        self.ports = Ports(limits or Limits())
        self.script = Script()
        self.client = RecordedResponseWriter(self.script, "client")
        account = self.account = AccountBytes()
        self.call = DetachedCall(self.ports, account, self.client, "async", CREATED_AT)
        self.world = World(client=self.call, body_bytes=body_bytes)
        self.call.begins(self.world.invocation)
        self.stream = FirstExchange(self.call, self.client, self.ports, terms)
        self.stream.start()

    def later(self, *, is_head: bool = False, window_s: float = 5.0) -> RecordedResponseWriter:
        """Return a client that comes later."""
        client = RecordedResponseWriter(Script(), "later")
        ResponseExchange(self.call, client, self.ports, ACCESS, is_head=is_head).begin(window_s)
        return client

    def respond(self, *data: bytes, is_whole: bool = True) -> None:
        self.world.attach().head(200, [(b"content-type", b"text/plain")])
        for piece in data:
            self.world.invocation.response_data(piece)
        if is_whole:
            self.world.invocation.response_end()


ASYNC = Terms(is_async=True)
ATTACHED_FIRST = Terms()


def test_respond_async_gets_202_once_the_request_is_complete() -> None:
    detached = Detached(ASYNC, body_bytes=4)
    detached.stream.request_data(b"body")
    assert detached.client.head is None
    detached.stream.request_end()
    status, headers, _ = detached.client.head or (0, [], 0)
    assert status == 202
    values = dict(headers)
    assert values[b"location"] == b"/v2/requests/" + detached.call.request_id.encode()
    assert values[b"preference-applied"] == b"respond-async"
    assert values[b"nvcf-status"] == b"in-progress"
    assert detached.client.over
    detached.respond(b"one ", b"two")
    later = detached.later()
    assert later.sent == b"one two"
    assert dict((later.head or (0, [], 0))[1])[b"content-type"] == b"text/plain"
    assert detached.call.ending is not None
    assert detached.call.ending.outcome is Outcome.ANSWERED


def test_wait_delivers_the_response_if_it_is_soon_enough() -> None:
    detached = Detached(Terms(is_async=True, wait_s=3))
    detached.stream.request_end()
    assert detached.client.head is None
    detached.respond(b"soon")
    assert detached.client.sent == b"soon"
    assert not detached.ports.windows

    detached = Detached(Terms(is_async=True, wait_s=3))
    detached.stream.request_end()
    detached.ports.windows[0].timed_out()
    assert (detached.client.head or (0,))[0] == 202


def test_a_client_that_leaves_with_half_a_request_takes_its_call_along() -> None:
    for terms in (ASYNC, ATTACHED_FIRST):
        detached = Detached(terms, body_bytes=10)
        detached.stream.request_data(b"half")
        detached.stream.request_broken()
        assert detached.world.invocation.outcome is Outcome.CLIENT_GONE
        assert detached.call.is_over


def test_a_call_goes_on_when_its_client_leaves_in_the_middle_of_the_response() -> None:
    detached = Detached(ATTACHED_FIRST)
    detached.stream.request_end()
    detached.respond(b"first", is_whole=False)
    assert detached.client.sent == b"first"
    detached.stream.request_broken()
    detached.world.invocation.response_data(b" second")
    again = detached.later()
    detached.world.invocation.response_end()
    assert again.sent == b"first second"
    assert again.over
    assert detached.client.sent == b"first"


def test_the_worker_waits_for_the_first_client_and_for_no_other() -> None:
    detached = Detached(ATTACHED_FIRST)
    detached.stream.request_end()
    script = detached.world.script
    detached.respond(b"x", is_whole=False)
    script.take()
    detached.stream.pause_writing()
    assert script.take() == ["post.pause"]
    detached.world.invocation.response_end()
    assert detached.world.invocation.state is not DONE
    detached.stream.request_broken()
    assert detached.world.invocation.state is DONE
    assert "post.release" in script.take()

    detached = Detached(ASYNC)
    detached.stream.request_end()
    detached.respond(b"x", is_whole=False)
    later = RecordedResponseWriter(Script(), "later")
    exchange = ResponseExchange(detached.call, later, detached.ports, ACCESS)
    exchange.begin(5.0)
    exchange.pause_writing()
    detached.world.invocation.response_data(b"y")
    detached.world.invocation.response_end()
    assert detached.call.is_over
    exchange.resume_writing()
    assert later.sent == b"xy"


def test_the_window_of_a_client_ends_with_202_and_the_next_one_gets_the_response() -> None:
    detached = Detached(ASYNC)
    detached.stream.request_end()
    later = detached.later()
    detached.ports.windows[0].timed_out()
    status, headers, _ = later.head or (0, [], 0)
    assert status == 202
    assert (b"retry-after", b"1") in headers
    detached.respond(b"there")
    assert detached.later().sent == b"there"
    head_only = detached.later(is_head=True)
    assert (head_only.head or (0, [], 0))[2] == 5
    assert head_only.sent == b""


@pytest.mark.parametrize("when", ["queued", "streaming"])
def test_a_cancelled_call_ends_at_the_worker_and_for_its_clients(when: str) -> None:
    detached = Detached(ASYNC)
    detached.stream.request_end()
    if when == "streaming":
        detached.respond(b"x", is_whole=False)
    else:
        assert detached.world.invocation.state is QUEUED
    waiting = detached.later()
    detached.world.script.take()
    detached.call.cancel()
    lines = detached.world.script.take()
    assert ("queue.withdraw" if when == "queued" else "post.release") in lines
    assert detached.world.invocation.outcome is Outcome.CANCELLED
    if when == "queued":
        assert (waiting.head or (0,))[0] == 410
    else:
        assert waiting.over
    assert (detached.later().head or (0,))[0] == 410
    detached.call.settled()
    assert detached.call.state == "cancelled"
    detached.call.cancel()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [(Limits(10, 0), "response_too_large"), (Limits(0, 10), "response_too_large")],
)
def test_a_response_that_is_too_large_fails_the_call(limits: Limits, reason: str) -> None:
    detached = Detached(ASYNC, limits)
    detached.stream.request_end()
    detached.respond(b"12345678", is_whole=False)
    detached.world.script.take()
    detached.world.invocation.response_data(b"901")
    assert "post.release" in detached.world.script.take()
    assert detached.world.invocation.outcome is Outcome.NOT_RECORDED
    detached.call.settled()
    view = view_of(detached.call)
    assert (view["state"], view["status"]) == ("failed", 507)
    assert view["problem"]["reason"] == reason  # type: ignore[index]


def test_a_response_that_breaks_off_is_a_failure_with_a_problem() -> None:
    detached = Detached(ATTACHED_FIRST)
    detached.stream.request_end()
    detached.respond(b"half", is_whole=False)
    detached.world.invocation.response_broken()
    assert detached.world.script.lines
    assert detached.script.lines[-1] == "client.abort"
    detached.call.settled()
    assert detached.call.state == "failed"
    assert (detached.later().head or (0,))[0] == 502


def test_a_problem_document_that_cannot_be_written_again_is_left_out() -> None:
    detached = Detached(ASYNC)
    detached.stream.request_end()
    detached.world.attach().head(500, [(b"content-type", b"application/problem+json")])
    invocation = detached.world.invocation
    invocation.completion = Outcome.WORKER_FAILED
    invocation.response_data(b'{"a":' * 300 + b"1" + b"}" * 300)
    invocation.response_end()
    detached.call.settled()
    view = orjson.loads(view_body(detached.call))
    assert (view["state"], view["problem"]) == ("failed", None)


def test_the_gateways_own_problem_is_the_response_of_a_failed_call() -> None:
    detached = Detached(ASYNC)
    detached.stream.request_end()
    detached.world.invocation.undeliverable()
    detached.call.settled()
    view = view_of(detached.call)
    assert (view["state"], view["status"]) == ("failed", 502)
    assert view["problem"]["reason"] == "worker_lost"  # type: ignore[index]
    assert (detached.later().head or (0,))[0] == 502


def test_a_view_tells_the_times_of_the_call() -> None:
    detached = Detached(ASYNC)
    detached.stream.request_end()
    assert view_of(detached.call, position=3, eta_s=7) == {
        "requestId": detached.call.request_id,
        "functionId": detached.call.function_id,
        "functionVersionId": detached.call.version_id,
        "state": "queued",
        "position": 3,
        "etaSeconds": 7,
        "createdAt": "2023-11-14T22:13:20.000Z",
        "attempts": 0,
    }
    detached.world.now = 101.5
    detached.world.attach()
    assert detached.world.invocation.state is ATTACHED
    assert view_of(detached.call)["leasedAt"] == "2023-11-14T22:13:21.499Z"
    assert detached.call.state == "leased"
    detached.world.now = 102.0
    detached.world.head()
    detached.world.invocation.response_end()
    detached.call.settled()
    view = view_of(detached.call)
    assert view["state"] == "done"
    assert view["headAt"] == "2023-11-14T22:13:22.000Z"
    assert view["finishedAt"] == "2023-11-14T22:13:23.000Z"


def test_a_view_tells_of_a_lease_before_the_response_head() -> None:
    direct = Detached(ASYNC)
    direct.world.channels.is_free = True
    direct.stream.request_end()
    assert direct.world.invocation.state is SENT
    view = view_of(direct.call)
    assert (view["state"], view["attempts"]) == ("leased", 1)
    assert view["leasedAt"] == view["createdAt"]

    queued = Detached(ASYNC)
    queued.stream.request_end()
    # Of a worker without a channel it is known that it has the call, and no more.
    found = view_of(queued.call, position=0)
    assert (found["state"], found["attempts"]) == ("leased", 1)
    assert "leasedAt" not in found
    queued.world.invocation.leased(b"one", 101.5)
    told = view_of(queued.call, position=0)
    assert (told["attempts"], told["instanceId"]) == (1, "one")
    assert told["leasedAt"] == "2023-11-14T22:13:21.500Z"
    # It was given back: whoever had it does not matter any more.
    waiting = view_of(queued.call, position=1)
    assert (waiting["state"], waiting["attempts"]) == ("queued", 1)
    assert not {"leasedAt", "instanceId"} & waiting.keys()
    queued.world.now = 102.0
    queued.world.invocation.run_requested(2, is_running=False)
    again = view_of(queued.call, position=0)
    assert again["attempts"] == 2
    assert again["leasedAt"] == "2023-11-14T22:13:22.000Z"
    assert "instanceId" not in again
    queued.call.cancel()
    queued.call.settled()
    assert view_of(queued.call)["attempts"] == 2


def test_the_bytes_of_an_account_are_forgotten_with_its_responses() -> None:
    account = AccountBytes()
    account.add(100)
    account.keep(100)
    account.begin_part()
    account.add(11)
    account.keep(11)
    account.add(5)
    for _ in range(22):
        account.begin_part()
    assert account.bytes == 116
    account.drop(11, parts_ago=22)
    assert account.bytes == 105
    account.begin_part()
    assert account.bytes == 5
    account.drop(100, parts_ago=24)
    account.begin_part()
    assert account.bytes == 5


def test_interim_responses_reach_the_first_client_alone() -> None:
    detached = Detached(ATTACHED_FIRST)
    detached.call.send_interim(103, [])
    assert detached.script.take() == ["client.interim 103 []"]
    detached.stream.request_end()
    detached.stream.request_broken()
    detached.call.send_interim(103, [])
    assert detached.script.take() == []
