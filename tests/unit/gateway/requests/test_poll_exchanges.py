"""The clients of a polled call: windows, what they get at their end, and who is waited for."""

import json

import pytest

from gateway.domain.cors import OPEN
from gateway.invocation.polled import CallProgress
from gateway.requests.detached import (
    CANCELLED,
    DONE,
    LEASED,
    AccountBytes,
    DetachedCall,
    Limits,
)
from gateway.requests.exchanges import Window
from gateway.requests.idempotency import ClaimPosition, Fingerprint
from gateway.requests.keyed import KeyedCall
from gateway.requests.keyed_polls import KeyedPollExchange
from gateway.requests.poll_exchanges import FirstPollExchange, PollExchange, watch
from gateway.requests.polled_call import MIN_PATIENCE_S, PolledCall
from gateway.requests.recording import RecordingSpace
from gateway.requests.views import view_of
from gateway.routing.cross_origin import PageAccess
from http1.stream import Request
from tests.support.invocation_world import REQUEST_ID, World
from tests.support.recorder import RecordedResponseWriter, RecordedSpool, Script

PAGE = PageAccess(OPEN, b"https://page", replaces=True)


class StubBook:
    """Windows that end when the test says so; calls are not kept."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.space = RecordingSpace(RecordedSpool(Script()).open)
        self.clock = lambda: 100.0
        self.windows: dict[Window, float] = {}

    def open(self, window: Window, seconds: float) -> None:
        self.windows[window] = seconds

    def close(self, window: Window) -> None:
        self.windows.pop(window, None)

    def finished(self, call: DetachedCall) -> None:
        call.settled()

    def end(self) -> float:
        """End the only window; return how long it was."""
        ((window, seconds),) = self.windows.items()
        del self.windows[window]
        window.timed_out()
        return seconds


class Polled:
    """One polled call, with the client that makes it."""

    def __init__(
        self, window_s: float = 7.0, *, is_exec: bool = False, keyed: KeyedCall | None = None
    ) -> None:
        book = self.windows = StubBook()
        self.statuses: list[int] = []
        self.client = RecordedResponseWriter(Script(), "client")
        self.call = PolledCall(book, AccountBytes(), self.client, 0.0, self.windows, window_s)
        self.world = World(viewer=self.call)
        self.call.begins(self.world.invocation)
        watched = watch(self.call, self.client, self.statuses.append)
        self.first: FirstPollExchange
        if keyed is None:
            self.first = FirstPollExchange(
                self.call, watched, self.windows, PAGE, watched, window_s, is_exec=is_exec
            )
        else:
            self.first = KeyedPollExchange(
                self.call, watched, self.windows, PAGE, watched, window_s, keyed, is_exec=is_exec
            )
        self.first.start()

    def poll(self, seconds: float = 9.0) -> tuple[PollExchange, RecordedResponseWriter]:
        client = RecordedResponseWriter(Script(), "poll")
        watched = watch(self.call, client, self.statuses.append)
        exchange = PollExchange(self.call, watched, self.windows, PAGE, watched, is_exec=False)
        exchange.begin(seconds)
        return exchange, client

    def respond(self, body: bytes = b"done") -> None:
        self.world.attach().head(200, [(b"content-type", b"text/plain")])
        self.world.invocation.response_data(body)
        self.world.invocation.response_end()


def pending() -> Polled:
    """A call whose first client has got 202."""
    polled = Polled()
    polled.first.request_end()
    assert polled.windows.end() == 7.0
    return polled


def test_a_process_that_stood_still_waits_for_a_poll_before_it_cancels() -> None:
    polled = pending()
    now = polled.windows.clock() + 14.0 + 60.0
    polled.windows.clock = lambda: now
    assert polled.windows.end() == 14.0
    assert not polled.call.is_over
    now += MIN_PATIENCE_S
    assert polled.windows.end() == MIN_PATIENCE_S
    assert polled.call.state == CANCELLED


def test_the_first_window_begins_when_the_request_is_complete_and_ends_with_the_head() -> None:
    polled = Polled()
    assert polled.windows.windows == {}
    polled.first.request_end()
    assert list(polled.windows.windows.values()) == [7.0]
    polled.world.attach().head(200)
    assert polled.windows.windows == {}
    polled.world.invocation.response_data(b"x")
    polled.world.invocation.response_end()
    assert (polled.client.sent, polled.statuses) == (b"x", [200])
    assert polled.client.head is not None
    headers = dict(polled.client.head[1])
    assert headers[b"nvcf-reqid"] == REQUEST_ID.encode()
    assert headers[b"access-control-allow-origin"] == b"*"
    assert polled.call.state == DONE
    assert not polled.call.is_kept
    assert polled.windows.windows == {}


@pytest.mark.parametrize(
    ("progress", "kind", "body", "percent"),
    [
        (CallProgress(), b"application/json", b"{}", None),
        (CallProgress(45, b"text/json", b"[1]"), b"text/json", b"[1]", b"45"),
        (CallProgress(45, b"text/plain"), b"application/json", b"{}", b"45"),
        (CallProgress(None, b"", b"1"), b"application/json", b"1", None),
    ],
)
def test_a_202_tells_what_is_known(
    progress: CallProgress, kind: bytes, body: bytes, percent: bytes | None
) -> None:
    polled = Polled()
    polled.first.request_end()
    polled.call.show_progress(progress)
    polled.windows.end()
    assert polled.client.head is not None
    status, listed, length = polled.client.head
    headers = dict(listed)
    assert (status, length, polled.client.sent) == (202, len(body), body)
    assert (headers[b"content-type"], headers.get(b"nvcf-percent-complete")) == (kind, percent)
    assert headers[b"nvcf-status"] == b"in-progress"
    assert headers[b"location"] == b"/v2/nvcf/pexec/status/" + REQUEST_ID.encode()
    assert headers[b"access-control-allow-origin"] == b"*"


def test_views_tell_the_progress() -> None:
    polled = pending()
    polled.world.attach()
    polled.call.show_progress(CallProgress(45))
    view = view_of(polled.call)
    assert (view["state"], view["percentComplete"]) == (LEASED, 45)


def test_polls_wait_for_the_response_and_get_it_again() -> None:
    polled = pending()
    (_, one), (_, other) = polled.poll(), polled.poll()
    polled.respond()
    _, late = polled.poll()
    assert polled.call.is_kept
    for client in (one, other, late):
        assert (client.sent, client.over) == (b"done", True)
    assert polled.statuses == [202, 200, 200, 200]


def test_nobody_waits_for_ever_for_a_client() -> None:
    polled = pending()
    assert list(polled.windows.windows.values()) == [14.0]
    exchange, _ = polled.poll()
    assert list(polled.windows.windows.values()) == [9.0]
    exchange.request_broken()
    assert polled.statuses == [202, 499]
    assert polled.windows.end() == 14.0
    assert polled.call.state == CANCELLED
    assert "queue.withdraw" in polled.world.script.lines
    _, client = polled.poll()
    assert client.head is not None
    assert client.head[0] == 410


def test_a_short_window_leaves_time_to_come_back() -> None:
    polled = Polled(1.0)
    polled.first.request_end()
    polled.windows.end()
    assert list(polled.windows.windows.values()) == [MIN_PATIENCE_S]


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_client_that_leaves_before_its_window_ends_takes_the_call_with_it(
    *, is_complete: bool
) -> None:
    polled = Polled()
    if is_complete:
        polled.first.request_end()
    polled.first.request_broken()
    assert polled.call.state == CANCELLED
    assert polled.client.head is None
    assert polled.statuses == [499]
    assert polled.windows.windows == {}


def test_a_client_that_leaves_during_the_response_ends_it() -> None:
    polled = Polled()
    polled.first.request_end()
    polled.world.attach().head(200)
    polled.first.request_broken()
    assert polled.call.state == CANCELLED


def test_an_error_of_the_gateway_is_a_problem_document() -> None:
    polled = pending()
    _, client = polled.poll()
    polled.world.invocation.shut_down()
    assert client.head is not None
    assert client.head[0] == 503
    document = json.loads(client.sent)
    assert (document["reason"], document["requestId"]) == ("draining", REQUEST_ID)


def test_a_slow_first_client_slows_its_worker_down_and_no_poll_does() -> None:
    polled = Polled()
    polled.first.request_end()
    polled.world.attach().head(200)
    polled.world.script.take()
    polled.first.pause_writing()
    polled.first.resume_writing()
    assert polled.world.script.take() == ["post.pause", "post.resume"]
    exchange, _ = polled.poll()
    exchange.pause_writing()
    exchange.resume_writing()
    assert polled.world.script.take() == []


def test_a_call_with_a_key_waits_for_a_client_that_repeats_it_as_after_a_202() -> None:
    request = Request(b"POST", b"/", b"a", [], 0, 0.0)
    for is_complete in (True, False):
        keyed = KeyedCall(REQUEST_ID, ClaimPosition("a", "n"), Fingerprint(request, b"/", None))
        polled = Polled(keyed=keyed)
        if is_complete:
            polled.first.request_end()
        assert bool(keyed.fingerprint) is is_complete
        polled.first.request_broken()
        assert polled.call.is_over is not is_complete
        if is_complete:
            assert polled.windows.end() == 2 * 7.0
            assert polled.call.state == CANCELLED
        assert polled.statuses == [499]
