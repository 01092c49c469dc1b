"""An invocation that asks for a WebSocket, between recording ports."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.invocation.context import WebSocketLimits
from gateway.invocation.states import ATTACHED, DONE, QUEUED, SENT, STREAMING, Outcome
from http1.stream import Headers
from queueing.interface import QueueUnavailable
from tests.support.invocation_world import World
from tests.support.recorder import RecordedResponseWriter
from wire.decoded_envelope import decode_call_head, decode_envelope
from wire.websocket import accept_of

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE: Headers = [
    (b"host", b"f.example"),
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", KEY),
]
STREAM: Headers = [(b"host", b"f.example"), (b"sec-websocket-version", b"13")]
AGREED: Headers = [(b"sec-websocket-accept", accept_of(KEY)), (b"nvcf-upgraded", b"websocket")]
NO_LIMITS = WebSocketLimits(max_s=0.0)


def asked(
    *more: tuple[bytes, bytes], limits: WebSocketLimits = NO_LIMITS, over_http_2: bool = False
) -> World:
    return World(
        b"GET",
        None if over_http_2 else 0,
        [*(STREAM if over_http_2 else HANDSHAKE), *more],
        websocket=limits,
    )


def opened(limits: WebSocketLimits = NO_LIMITS) -> tuple[World, RecordedResponseWriter]:
    """Open a WebSocket whose worker takes what the client sends."""
    world = asked(limits=limits)
    world.invocation.request_end()
    worker = RecordedResponseWriter(world.script, "worker")
    assert world.attach().fetch(worker, is_upgraded=True)
    world.head(200, AGREED)
    assert world.script.take()[-2:] == ["registry.moved_earlier", "client.tunnel"]
    return world, worker


def test_the_envelope_says_so_and_no_client_can() -> None:
    world = asked(
        (b"nvcf-upgrade", b"forged"),
        (b"nvcf_upgrade", b"websocket"),
        (b"content-length", b"0"),
        (b"sec-websocket-protocol", b"nvcf, chat"),
    )
    world.invocation.request_end()
    assert world.script.take() == ["client.pause", "queue.publish"]
    envelope = decode_envelope(world.queue.envelopes[0])
    assert envelope.request_token == "request-token"
    assert (envelope.method, envelope.body) == (b"GET", b"")
    names = [name for name, _ in envelope.headers]
    assert [value for name, value in envelope.headers if b"upgrade" in name] == [b"websocket"]
    assert (b"sec-websocket-key", KEY) in envelope.headers
    assert (b"sec-websocket-protocol", b"chat") in envelope.headers
    assert not {b"content-length", b"connection", b"nvcf_upgrade"} & set(names)


def test_no_other_call_says_so() -> None:
    world = World(headers=[(b"host", b"f"), (b"nvcf-upgrade", b"websocket")]).publish()
    names = {name for name, _ in decode_envelope(world.queue.envelopes[0]).headers}
    assert b"nvcf-upgrade" not in names
    world.attach().head(200, AGREED)
    assert world.client.head is not None
    assert (world.client.head[0], world.invocation.status) == (200, 200)
    assert b"nvcf-upgraded" not in dict(world.client.head[1])


def test_it_opens_and_bytes_pass_until_the_server_ends() -> None:
    world, worker = opened()
    invocation = world.invocation
    assert invocation.status == 101
    assert world.client.head is not None
    headers = dict(world.client.head[1])
    assert headers[b"sec-websocket-accept"] == accept_of(KEY)
    assert headers[b"nvcf-status"] == b"fulfilled"
    assert b"nvcf-upgraded" not in headers
    invocation.request_data(b"ping")
    invocation.response_data(b"pong")
    invocation.response_chunk(b"1\r\n!\r\n", 1)
    assert (worker.sent, world.client.sent) == (b"ping", b"pong!")
    world.script.take()
    invocation.response_end()
    assert world.script.take() == [
        "client.end",
        "worker.abort",
        "registry.finished",
        "post.release",
    ]
    assert (invocation.outcome, invocation.status) == (Outcome.ANSWERED, 101)
    assert (invocation.request_bytes, invocation.response_bytes) == (4, 5)


@pytest.mark.parametrize(
    ("offered", "chosen", "named"),
    [
        (b"nvcf", b"", b"nvcf"),
        (b"nvcf, chat", b"chat", b"chat"),
        (b"chat", b"", b""),
        (b"chat, nvcf", b"", b"nvcf"),
    ],
)
def test_our_subprotocol_is_named_if_the_function_names_none(
    offered: bytes, chosen: bytes, named: bytes
) -> None:
    world = asked((b"sec-websocket-protocol", offered))
    world.invocation.request_end()
    more = [(b"sec-websocket-protocol", chosen)] if chosen else []
    world.attach().head(200, [*AGREED, *more])
    assert world.client.head is not None
    assert dict(world.client.head[1]).get(b"sec-websocket-protocol", b"") == named


@pytest.mark.parametrize(
    "headers", [AGREED[1:], [(b"sec-websocket-accept", b"x"), AGREED[1]], [*AGREED, AGREED[0]]]
)
def test_an_agreement_for_another_key_is_none(headers: Headers) -> None:
    world = asked()
    world.invocation.request_end()
    world.attach().head(200, headers)
    assert world.invocation.outcome is Outcome.WORKER_LOST
    assert world.problem()["status"] == 502


def test_a_refusal_is_delivered_as_any_response() -> None:
    world = asked()
    world.invocation.request_end()
    world.attach().head(403, AGREED, 2)
    world.invocation.response_data(b"no")
    world.invocation.response_end()
    assert (world.invocation.status, world.client.sent) == (403, b"no")


def test_over_http_2_what_comes_too_early_waits_for_the_worker() -> None:
    world = asked(over_http_2=True)
    invocation = world.invocation
    invocation.request_data(b"early")
    invocation.first_part_end()
    assert invocation.state is QUEUED
    assert decode_envelope(world.queue.envelopes[0]).body == b""
    worker = RecordedResponseWriter(world.script, "worker")
    world.attach().head(200, AGREED[1:])
    assert world.fetch(worker, is_upgraded=True)
    assert worker.sent == b"early"
    assert "client.resume" in world.script.take()


def test_a_stream_that_ends_before_it_is_open_is_refused() -> None:
    for attach in (False, True):
        world = asked(over_http_2=True)
        world.invocation.first_part_end()
        if attach:
            world.attach()
        world.invocation.request_end()
        assert world.invocation.outcome is Outcome.BAD_REQUEST
        assert "queue.withdraw" in world.script.lines
        assert world.problem()["status"] == 400


def test_a_client_that_ends_its_stream_while_a_refusal_comes_gets_all_of_it() -> None:
    world = asked(over_http_2=True)
    world.invocation.first_part_end()
    world.attach().head(403, [(b"content-type", b"text/plain")])
    world.invocation.request_end()
    world.invocation.response_data(b"no")
    world.invocation.response_end()
    assert (world.client.head or (0,))[0] == 403
    assert world.client.sent == b"no"
    assert world.client.over


def test_each_side_pauses_the_other() -> None:
    world, _ = opened()
    invocation = world.invocation
    invocation.pause_writing()
    invocation.resume_writing()
    invocation.rest_pause_writing()
    invocation.rest_resume_writing()
    assert world.script.take() == ["post.pause", "post.resume", "client.pause", "client.resume"]


def test_the_poll_window_runs_on_while_a_worker_takes_the_clients_bytes() -> None:
    world = asked()
    world.invocation.request_end()
    assert world.fetch(RecordedResponseWriter(world.script, "worker"), is_upgraded=True)
    world.invocation.deadline_passed(162.0, 1)
    world.invocation.position_known(0, 1)
    assert world.invocation.outcome is Outcome.POLL_TIMEOUT


def test_the_clients_end_is_passed_on_and_the_server_has_some_time() -> None:
    world, _ = opened()
    invocation = world.invocation
    world.now = 200.0
    invocation.request_end()
    assert world.script.take() == ["worker.end", "registry.moved_earlier"]
    assert invocation.deadline == 210.0
    invocation.response_data(b"bye")
    invocation.deadline_passed(209.0, 1)
    assert invocation.state is STREAMING
    invocation.deadline_passed(210.0, 1)
    assert invocation.outcome is Outcome.CLIENT_GONE
    assert world.script.take()[-2:] == ["post.release", "client.abort"]


def test_a_client_that_leaves_ends_both_attach_calls() -> None:
    world, _ = opened()
    world.client.over = True
    world.invocation.request_broken()
    assert world.script.take() == ["worker.abort", "registry.finished", "post.release"]
    assert (world.invocation.outcome, world.invocation.status) == (Outcome.CLIENT_GONE, 101)


def test_silence_ends_it_only_if_it_lasts() -> None:
    world, _ = opened(WebSocketLimits(max_s=0.0, idle_s=30.0))
    invocation = world.invocation
    assert invocation.deadline == 130.0
    for world.now, event in ((125.0, invocation.request_data), (150.0, invocation.response_data)):
        event(b"x")
        invocation.deadline_passed(invocation.deadline, 1)
        assert invocation.deadline == world.now + 30.0
    invocation.deadline_passed(179.0, 1)
    assert invocation.state is STREAMING
    invocation.deadline_passed(180.0, 1)
    assert invocation.outcome is Outcome.TOO_LONG


def test_its_whole_time_is_limited_or_not() -> None:
    world, _ = opened(WebSocketLimits(max_s=5000.0))
    world.invocation.deadline_passed(5099.0, 1)
    assert world.invocation.state is STREAMING
    world.invocation.deadline_passed(5100.0, 1)
    assert world.invocation.outcome is Outcome.TOO_LONG
    world, _ = opened()
    for _ in range(400):
        world.invocation.deadline_passed(world.invocation.deadline, 1)
    assert world.invocation.state is STREAMING
    assert world.invocation.deadline > 30_000_000.0


def test_a_worker_with_a_channel_may_fetch_after_its_response_head() -> None:
    world = asked()
    world.channels.is_free = True
    world.invocation.request_end()
    [(head, body, has_rest)] = world.channels.sent
    assert (body, has_rest) == (b"", True)
    assert (b"nvcf-upgrade", b"websocket") in decode_call_head(head).headers
    world.attach().head(200, AGREED)
    assert "channel.forget 1" not in world.script.take()
    worker = RecordedResponseWriter(world.script, "worker")
    assert world.fetch(worker, is_upgraded=True)
    assert "channel.forget 1" in world.script.take()
    # One that never comes leaves nothing behind.
    world = asked()
    world.channels.is_free = True
    world.invocation.request_end()
    world.attach().head(200, AGREED)
    world.invocation.shut_down()
    assert "channel.forget 1" in world.script.take()


def test_a_worker_that_knows_no_websockets_gets_an_empty_body_and_its_response_is_delivered() -> (
    None
):
    world = asked()
    world.invocation.request_end()
    world.script.take()
    worker = RecordedResponseWriter(world.script, "worker")
    assert world.fetch(worker)
    assert worker.head is not None
    assert worker.head[2] == 0
    assert world.script.take() == ["worker.head 200", "worker.end"]
    world.attach().head(404, [], 2)
    world.invocation.response_data(b"no")
    world.invocation.response_end()
    assert (world.invocation.status, world.client.sent) == (404, b"no")
    # Another one can still be asked, if that one failed.
    world = asked()
    world.invocation.request_end()
    assert world.fetch(RecordedResponseWriter(world.script, "worker"))
    world.attach().invocation.response_broken()
    assert world.invocation.state is QUEUED


def test_a_worker_that_fetched_and_failed_before_it_agreed_is_the_last_one() -> None:
    world = asked()
    world.invocation.request_end()
    world.attach()
    world.invocation.response_broken()
    assert world.invocation.state is QUEUED
    world.attach()
    assert world.fetch(RecordedResponseWriter(world.script, "worker"), is_upgraded=True)
    world.invocation.response_broken()
    assert world.problem()["status"] == 502


class Play:
    """Gives events to a WebSocket as its surroundings may: a side that has ended is silent."""

    def __init__(self, limits: WebSocketLimits, *, over_http_2: bool, is_free: bool) -> None:
        self.world = asked(limits=limits, over_http_2=over_http_2)
        self.world.channels.is_free = is_free
        self.over_http_2 = over_http_2
        self.agreed = AGREED[1:] if over_http_2 else AGREED
        self.has_ended = False
        self.fetches: list[RecordedResponseWriter] = []
        if over_http_2:
            self.world.invocation.first_part_end()
        else:
            self.world.invocation.request_end()

    def worker(self, event: str) -> None:
        """Let the worker's POST come, or do something."""
        invocation, state = self.world.invocation, self.world.invocation.state
        if not {"post.release", "post.refuse 502"}.isdisjoint(self.world.script.lines):
            return
        if event == "attach":
            if state in (QUEUED, SENT):
                self.world.attach()
        elif state is ATTACHED and event in ("agree", "refuse", "forge"):
            status = 404 if event == "refuse" else 200
            self.world.head(status, AGREED[1:] if event == "forge" else self.agreed)
        elif state is STREAMING and event == "data":
            invocation.response_data(b"y")
        elif state is STREAMING and event == "end":
            invocation.response_end()
        elif state in (ATTACHED, STREAMING) and event == "broken":
            invocation.response_broken()

    def fetch(self, event: str) -> None:
        """Let a worker's GET come, or do something."""
        invocation = self.world.invocation
        if event in ("fetch", "fetch body"):
            if SENT <= invocation.state < DONE:
                self.fetches.append(RecordedResponseWriter(self.world.script, "worker"))
                self.world.fetch(self.fetches[-1], is_upgraded=event == "fetch")
        elif self.fetches and self.fetches[-1].head and not self.fetches[-1].over:
            if event == "rest_broken":
                self.fetches[-1].over = True
            getattr(invocation, event)()

    def client(self, event: str) -> None:
        """Let the client do something, unless it has left or ended."""
        invocation, client = self.world.invocation, self.world.client
        if client.over or invocation.state is DONE:
            return
        if event == "gone":
            client.over = True
            invocation.request_broken()
        elif event in ("pause_writing", "resume_writing"):
            client.is_slow = event == "pause_writing"
            getattr(invocation, event)()
        elif not self.has_ended and (self.over_http_2 or invocation.status == 101):
            if event == "sends":
                invocation.request_data(b"x")
            else:
                self.has_ended = True
                invocation.request_end()

    def other(self, event: str) -> None:
        """Let time, the queue or the process do something."""
        invocation = self.world.invocation
        if event == "deadline":
            self.world.now = max(self.world.now, invocation.deadline)
            invocation.deadline_passed(self.world.now, 1)
        elif event == "lost":
            invocation.publish_failed(QueueUnavailable("lost"))
        elif event == "exhausted":
            invocation.undeliverable()
        else:
            invocation.shut_down()


_EVENTS = st.one_of(
    st.tuples(
        st.just(Play.worker),
        st.sampled_from(["attach", "agree", "refuse", "forge", "data", "end", "broken"]),
    ),
    st.tuples(
        st.just(Play.fetch),
        st.sampled_from(
            ["fetch", "fetch body", "rest_broken", "rest_pause_writing", "rest_resume_writing"]
        ),
    ),
    st.tuples(
        st.just(Play.client),
        st.sampled_from(["sends", "ends", "gone", "pause_writing", "resume_writing"]),
    ),
    st.tuples(st.just(Play.other), st.sampled_from(["deadline", "lost", "exhausted", "shut down"])),
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(_EVENTS, max_size=25),
    st.booleans(),
    st.booleans(),
    st.sampled_from([NO_LIMITS, WebSocketLimits(4000.0, 20.0)]),
)
def test_any_order_of_events_ends_once_and_leaves_nothing_open(
    events: list[tuple[Callable[[Play, str], None], str]],
    over_http_2: bool,
    is_free: bool,
    limits: WebSocketLimits,
) -> None:
    play = Play(limits, over_http_2=over_http_2, is_free=is_free)
    for act, event in events:
        act(play, event)
    world, invocation = play.world, play.world.invocation
    if invocation.state is not DONE:
        invocation.shut_down()
    assert world.script.lines.count("registry.finished") == 1
    assert invocation.outcome is not None
    assert world.client.over
    assert all(worker.over for worker in play.fetches if worker.head)
    assert world.space.memory_bytes == 0
