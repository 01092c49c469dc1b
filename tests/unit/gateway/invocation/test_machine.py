"""The invocation, event by event, without a socket, a clock or a broker."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.cors import OPEN, PagePolicy
from gateway.invocation.states import DONE, ENDING, QUEUED, Outcome
from gateway.routing.cross_origin import PageAccess
from queueing.interface import QueueFull, QueueUnavailable, RunDecision
from tests.support.invocation_world import INLINE, REQUEST_ID, World
from tests.support.recorder import (
    RecordedResponseWriter,
)
from wire.decoded_envelope import decode_envelope
from wire.envelope import MAX_ENVELOPE_BYTES
from wire.headers import EXPOSED_HEADERS
from wire.source import Source


def test_the_envelope_carries_the_request_and_never_the_credential() -> None:
    world = World(
        body_bytes=5,
        headers=[
            (b"host", b"f.example"),
            (b"authorization", b"Bearer secret"),
            (b"x-dup", b"1"),
            (b"x-dup", b"2"),
            (b"connection", b"x-hop"),
            (b"x-hop", b"gone"),
            (b"nvcf-invocation-region", b"forged"),
            (b"traceparent", b"00-abc"),
        ],
    )
    world.invocation.request_data(b"hello")
    world.invocation.request_end()
    assert world.script.lines == ["queue.publish"]
    envelope = decode_envelope(world.queue.envelopes[0])
    assert (envelope.method, envelope.path) == (b"POST", b"/v1/x%2Fy?a=1&a=2")
    assert envelope.headers == [
        (b"host", b"f.example"),
        (b"x-dup", b"1"),
        (b"x-dup", b"2"),
        (b"traceparent", b"00-abc"),
        (b"nvcf-invocation-region", b"eu"),
        (b"nvcf-feature-disable-worker-compatibility", b"true"),
        (b"nvcf-polled", b"false"),
        (b"forwarded", b"for=unknown;proto=http"),
        (b"x-forwarded-proto", b"http"),
    ]
    assert envelope.body == b"hello"
    assert (envelope.request_id, envelope.nca_id, envelope.subject) == (
        REQUEST_ID,
        "acme",
        "alice",
    )
    assert (envelope.response_token, envelope.request_token) == ("response-token", None)
    assert envelope.target_uri == b"http://10.0.0.1:8090"
    assert b"secret" not in world.queue.envelopes[0]
    assert world.queue.traces == [b"00-abc"]


def test_a_head_that_fits_in_no_envelope_is_the_clients_fault() -> None:
    world = World(headers=[(b"host", b"f"), (b"x", b"y" * MAX_ENVELOPE_BYTES)])
    world.invocation.request_end()
    assert world.problem()["status"] == 400
    assert world.invocation.outcome is Outcome.BAD_REQUEST


def test_a_known_length_waits_for_the_first_32_kib_and_the_rest_goes_by_get() -> None:
    world = World(body_bytes=INLINE + 10)
    invocation = world.invocation
    invocation.request_data(b"a" * 1000)
    assert world.script.take() == []
    invocation.request_data(b"a" * (INLINE - 1000) + b"bbbb")
    assert world.script.take() == ["client.pause", "queue.publish"]
    envelope = decode_envelope(world.queue.envelopes[0])
    assert len(envelope.body) == INLINE
    assert envelope.request_token == "request-token"
    worker = RecordedResponseWriter(world.script, "worker")
    world.fetch(worker)
    assert worker.head is not None
    assert worker.head[2] == 10
    invocation.rest_pause_writing()
    invocation.request_data(b"cccccc")
    invocation.rest_resume_writing()
    invocation.request_end()
    assert worker.sent == b"bbbbcccccc"
    assert world.script.take() == [
        "worker.head 200",
        "worker.body b'bbbb'",
        "client.resume",
        "client.pause",
        "worker.body b'cccccc'",
        "client.resume",
        "worker.end",
    ]


def test_the_envelope_tells_the_client_and_a_location_leads_back_to_it() -> None:
    world = World(
        headers=[(b"x-forwarded-for", b"9.9.9.9"), (b"x-real-ip", b"9.9.9.9")],
        source=Source("203.0.113.7", b"https", b"f.example:8443"),
    )
    world.publish().attach()
    envelope = decode_envelope(world.queue.envelopes[0])
    assert (b"x-forwarded-for", b"203.0.113.7") in envelope.headers
    assert b"9.9.9.9" not in world.queue.envelopes[0]
    world.head(307, [(b"location", b"http://127.0.0.1:8000/v1/models/")])
    assert world.client.head is not None
    assert (b"location", b"https://f.example:8443/v1/models/") in world.client.head[1]


def test_an_unknown_length_never_waits_for_more_than_came_with_the_head() -> None:
    world = World(body_bytes=None)
    world.invocation.request_data(b"ping")
    world.invocation.first_part_end()
    assert world.script.take() == ["client.pause", "queue.publish"]
    envelope = decode_envelope(world.queue.envelopes[0])
    assert (envelope.body, envelope.request_token) == (b"ping", "request-token")


def test_an_unknown_length_that_has_ended_needs_no_get() -> None:
    world = World(body_bytes=None)
    world.invocation.request_data(b"ping")
    world.publish()
    assert decode_envelope(world.queue.envelopes[0]).request_token is None


def test_a_response_goes_through_and_the_worker_is_told_when_the_client_has_it() -> None:
    world = World().publish().attach()
    invocation = world.invocation
    worker_headers = [
        (b"content-type", b"text/event-stream"),
        (b"nvcf-reqid", b"forged"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"access-control-expose-headers", b"x"),
    ]
    world.head(200, worker_headers)
    invocation.response_data(b"data: 1\n\n")
    invocation.response_end()
    assert world.script.lines == [
        "queue.answered",
        "client.head 200",
        "client.body b'data: 1\\n\\n'",
        "client.end",
        "registry.finished",
        "post.release",
    ]
    assert world.client.head is not None
    assert world.client.head[1] == [
        (b"content-type", b"text/event-stream"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"access-control-expose-headers", b"x"),
        (b"x-accel-buffering", b"no"),
        (b"x-request-id", REQUEST_ID.encode()),
        (b"nvcf-reqid", REQUEST_ID.encode()),
        (b"nvcf-status", b"fulfilled"),
        (b"access-control-expose-headers", b", ".join(EXPOSED_HEADERS)),
    ]
    assert invocation.outcome is Outcome.ANSWERED
    assert invocation.response_bytes == 9


ALLOW_ORIGIN = b"access-control-allow-origin"
APP = b"https://app.example"


def test_a_policy_for_pages_replaces_the_workers_and_holds_for_errors_too() -> None:
    for fail in (False, True):
        world = World().publish().attach()
        policy = PagePolicy(frozenset({APP.decode()}))
        world.invocation.page_access = PageAccess(policy, APP, replaces=True)
        if fail:
            world.invocation.shut_down()
        else:
            world.head(200, [(ALLOW_ORIGIN, b"*"), (ALLOW_ORIGIN, b"null")])
        assert world.client.head is not None
        headers = world.client.head[1]
        assert [value for name, value in headers if name == ALLOW_ORIGIN] == [APP]
        exposed = [value for name, value in headers if name == b"access-control-expose-headers"]
        assert exposed == [b"*"]
        assert (b"vary", b"origin") in headers
        assert (b"nvcf-reqid", REQUEST_ID.encode()) in headers


def test_without_a_policy_only_errors_are_the_gateways_to_open() -> None:
    for fail, allowed in ((False, [b"null"]), (True, [b"*"])):
        world = World().publish().attach()
        world.invocation.page_access = PageAccess(OPEN, APP, replaces=False)
        if fail:
            world.invocation.shut_down()
        else:
            world.head(200, [(ALLOW_ORIGIN, b"null")])
        assert world.client.head is not None
        headers = world.client.head[1]
        assert [value for name, value in headers if name == ALLOW_ORIGIN] == allowed


@pytest.mark.parametrize(
    ("status", "word"),
    [(200, b"fulfilled"), (202, b"in-progress"), (302, b"fulfilled"), (404, b"errored")],
)
def test_nvcf_status_follows_the_status(status: int, word: bytes) -> None:
    world = World().publish().attach()
    world.head(status, [], 0, 0)
    assert world.client.head is not None
    assert (b"nvcf-status", word) in world.client.head[1]


@pytest.mark.parametrize(
    ("method", "status", "announced", "left", "expected"),
    [
        (b"GET", 200, 7, 7, 7),
        (b"GET", 200, None, 7, 7),
        (b"GET", 200, None, None, None),
        (b"HEAD", 200, 7, 0, 7),
        (b"HEAD", 200, None, 0, None),
        (b"GET", 204, None, 0, None),
        (b"GET", 304, 7, 0, 7),
    ],
)
def test_the_length_the_client_is_told(
    method: bytes, status: int, announced: int | None, left: int | None, expected: int | None
) -> None:
    world = World(method=method).publish().attach()
    world.head(status, [], announced, left)
    assert world.client.head is not None
    assert world.client.head[2] == expected


def test_a_slow_client_slows_the_worker_and_keeps_it_until_it_has_read_all() -> None:
    world = World().stream()
    invocation = world.invocation
    invocation.pause_writing()
    invocation.resume_writing()
    world.client.is_slow = True
    invocation.response_end()
    assert world.script.take() == ["post.pause", "post.resume"]
    world.client.is_slow = False
    invocation.resume_writing()
    assert world.script.take() == ["client.end", "registry.finished", "post.release"]


def test_interim_responses_are_passed_on_if_the_version_says_so() -> None:
    hints = [(b"link", b"x"), (b"nvcf-status", b"forged"), (b"content-type", b"text/plain")]
    for passes_interim in (True, False):
        world = World(passes_interim=passes_interim).publish().attach()
        world.invocation.response_interim(103, hints)
        passed = ["client.interim 103 [(b'link', b'x')]"] if passes_interim else []
        assert world.script.take() == passed
        world.head()
        assert world.script.take() == ["queue.answered", "client.head 200"]


def test_the_location_in_an_interim_response_is_the_clients() -> None:
    source = Source("192.0.2.1", b"https", b"f.example", prefix=b"/f/x")
    world = World(passes_interim=True, source=source).publish().attach()
    world.invocation.response_interim(102, [(b"location", b"http://localhost:8000/status/7")])
    assert world.script.take() == [
        "client.interim 102 [(b'location', b'https://f.example/f/x/status/7')]"
    ]


def test_a_request_whose_worker_breaks_after_an_interim_response_goes_back_to_the_queue() -> None:
    world = World(passes_interim=True).publish().attach()
    world.invocation.response_interim(103, [])
    world.script.take()
    world.invocation.response_broken()
    assert (world.invocation.state, world.script.take()) == (QUEUED, ["registry.renew"])
    world.attach()
    world.invocation.response_interim(103, [])
    world.head(200, [], 0, 0)
    world.invocation.response_end()
    assert world.invocation.outcome is Outcome.ANSWERED


def test_an_interim_response_does_not_stop_the_poll_window() -> None:
    world = World(passes_interim=True).publish().attach()
    world.invocation.response_interim(103, [])
    world.invocation.deadline_passed(162.0, 1)
    assert world.invocation.outcome is Outcome.POLL_TIMEOUT
    assert world.problem()["status"] == 504


def test_a_client_that_is_slow_with_interim_responses_slows_the_worker_at_its_head() -> None:
    world = World(passes_interim=True).publish().attach()
    world.invocation.response_interim(103, [])
    world.client.is_slow = True
    world.invocation.pause_writing()
    world.script.take()
    world.head()
    assert world.script.take() == ["queue.answered", "post.pause", "client.head 200"]
    world.invocation.resume_writing()
    assert world.script.take() == ["post.resume"]


def test_a_worker_that_breaks_before_its_head_gives_the_request_back() -> None:
    world = World().publish().attach()
    world.invocation.response_broken()
    assert world.script.take() == ["registry.renew"]
    world.attach()
    world.head(200, [], 0, 0)
    world.invocation.response_end()
    assert world.invocation.outcome is Outcome.ANSWERED


def test_a_worker_that_breaks_with_more_of_the_body_is_not_tried_again() -> None:
    world = World(body_bytes=INLINE + 10)
    world.invocation.request_data(b"a" * (INLINE + 4))
    world.fetch(RecordedResponseWriter(world.script, "worker"))
    world.attach()
    world.script.take()
    world.invocation.response_broken()
    assert world.script.lines[:3] == ["queue.withdraw", "worker.abort", "registry.finished"]
    assert world.problem()["reason"] == "worker_lost"


def test_a_second_worker_that_asks_for_the_rest_proves_the_first_one_lost() -> None:
    world = World(body_bytes=INLINE + 10)
    world.invocation.request_data(b"a" * (INLINE + 4))
    worker = RecordedResponseWriter(world.script, "worker")
    assert world.fetch(worker)
    world.invocation.rest_broken()
    assert not world.fetch(RecordedResponseWriter(world.script, "second"))
    assert "queue.withdraw" in world.script.lines
    assert world.problem()["reason"] == "worker_lost"
    assert world.client.head is not None
    assert world.client.head[0] == 502


def test_the_rest_asked_for_again_disturbs_no_answer() -> None:
    world = World(body_bytes=INLINE + 10)
    world.invocation.request_data(b"a" * (INLINE + 4))
    world.fetch(RecordedResponseWriter(world.script, "worker"))
    world.attach()
    assert not world.fetch(RecordedResponseWriter(world.script, "second"))
    world.head(200, [], 0, 0)
    world.invocation.response_end()
    assert world.invocation.outcome is Outcome.ANSWERED


def test_a_worker_that_breaks_in_the_stream_breaks_the_clients_stream() -> None:
    world = World().stream()
    world.invocation.response_data(b"da")
    world.invocation.response_broken()
    assert world.script.lines[-2:] == ["registry.finished", "client.abort"]
    assert world.invocation.outcome is Outcome.WORKER_LOST


def test_what_is_no_response_is_a_502_and_the_worker_hears_why() -> None:
    world = World().publish().attach()
    world.invocation.response_invalid(400, "the status line is malformed")
    assert world.script.lines[:3] == ["post.refuse 400", "queue.withdraw", "registry.finished"]
    assert world.problem()["status"] == 502


def test_nobody_answered_in_time() -> None:
    world = World().publish()
    assert world.invocation.deadline == 162.0
    world.now = 162.0
    world.invocation.deadline_passed(162.0, 1)
    assert world.script.take() == ["registry.expired"]
    world.invocation.position_known(17, 3)
    assert world.script.lines[0] == "registry.finished"
    assert world.problem()["reason"] == "poll_timeout"
    assert world.client.head is not None
    assert world.client.head[0] == 504
    assert (b"nvcf-queue-position", b"17") in world.client.head[1]
    assert (b"retry-after", b"3") in world.client.head[1]
    # The SDKs that obey it would run the function once more for a caller that has given up.
    assert (b"x-should-retry", b"false") in world.client.head[1]


@pytest.mark.parametrize(
    ("position", "where"),
    [
        (17, "waited in line, at position 17"),
        (0, "was with a worker"),
        (None, "waited in line, or a worker had just got it"),
    ],
)
def test_a_504_says_the_seconds_and_where_the_call_was(position: int | None, where: str) -> None:
    world = World().publish()
    world.invocation.deadline_passed(162.0, 1)
    world.invocation.position_known(position, 1)
    detail = str(world.problem()["detail"])
    assert "60 s" in detail
    assert where in detail


def test_a_504_for_a_call_that_a_worker_dropped_as_late_says_that_it_waited() -> None:
    world = World().publish()
    world.invocation.dropped_late(1)
    world.invocation.position_known(0, 1)
    assert "waited in line until too little time was left" in str(world.problem()["detail"])


def test_a_request_that_a_worker_has_is_told_no_position() -> None:
    world = World().publish()
    world.invocation.deadline_passed(162.0, 1)
    world.invocation.position_known(0, 1)
    assert world.client.head is not None
    assert world.client.head[0] == 504
    assert b"nvcf-queue-position" not in dict(world.client.head[1])
    assert dict(world.client.head[1])[b"retry-after"] == b"1"


def test_a_client_that_leaves_while_its_position_is_asked_for_is_gone() -> None:
    world = World().publish()
    world.invocation.deadline_passed(162.0, 1)
    world.script.take()
    world.invocation.request_broken()
    assert world.script.take() == ["registry.finished"]
    world.invocation.position_known(1, 1)
    assert world.script.lines == []
    assert world.invocation.outcome is Outcome.CLIENT_GONE


def test_a_worker_attached_without_a_head_in_time_is_told_to_stop() -> None:
    world = World().publish().attach()
    world.invocation.deadline_passed(162.0, 1)
    assert "queue.withdraw" in world.script.lines
    assert "post.release" in world.script.lines
    assert world.problem()["status"] == 504
    assert "was with a worker" in str(world.problem()["detail"])


def test_a_stream_lives_on_to_the_ceiling_and_no_longer() -> None:
    world = World().stream()
    world.invocation.deadline_passed(162.0, 1)
    assert world.script.lines == []
    assert world.invocation.deadline == 100.0 + 3605.0
    world.invocation.deadline_passed(3705.0, 1)
    assert world.script.lines == ["registry.finished", "post.release", "client.abort"]
    assert world.invocation.outcome is Outcome.TOO_LONG


def test_a_client_that_leaves_while_queued_withdraws_its_request() -> None:
    world = World().publish()
    world.invocation.request_broken()
    assert world.script.lines == ["queue.withdraw", "registry.finished"]
    assert (world.invocation.status, world.invocation.outcome) == (499, Outcome.CLIENT_GONE)


def test_a_client_that_leaves_in_the_stream_stops_the_worker() -> None:
    world = World().stream()
    world.invocation.request_broken()
    assert world.script.lines == ["registry.finished", "post.release"]
    assert world.invocation.status == 200


def test_a_client_that_leaves_in_its_upload_breaks_the_workers_get() -> None:
    world = World(body_bytes=INLINE + 10)
    world.invocation.request_data(b"a" * INLINE)
    worker = RecordedResponseWriter(world.script, "worker")
    world.fetch(worker)
    world.script.take()
    world.invocation.request_broken()
    assert "worker.abort" in world.script.lines
    assert "worker.end" not in world.script.lines


def test_a_client_that_leaves_before_its_request_is_whole_was_never_queued() -> None:
    world = World(body_bytes=10)
    world.invocation.request_broken()
    assert world.script.lines == ["registry.finished"]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [(QueueFull("full"), 429, "queue_full"), (QueueUnavailable("down"), 503, "queue_unavailable")],
)
def test_a_refused_publish_is_answered_with_a_time_to_come_back(
    error: QueueFull | QueueUnavailable, status: int, reason: str
) -> None:
    world = World().publish()
    world.invocation.publish_failed(error)
    assert world.problem()["reason"] == reason
    assert world.client.head is not None
    assert world.client.head[0] == status
    assert any(name == b"retry-after" for name, _ in world.client.head[1])


def test_used_up_deliveries_are_a_502() -> None:
    world = World().publish()
    world.invocation.undeliverable()
    assert world.problem()["status"] == 502


def test_the_end_of_the_drain_answers_what_waits_and_breaks_what_streams() -> None:
    waiting, streaming = World().publish(), World().stream()
    waiting.invocation.shut_down()
    streaming.invocation.shut_down()
    assert waiting.problem()["reason"] == "draining"
    assert streaming.script.lines[-1] == "client.abort"


def test_a_write_that_congests_at_once_finds_the_state_it_belongs_to() -> None:
    world = World().publish().attach()

    def congest(line: str) -> None:
        if line.startswith("client.body"):
            world.client.is_slow = True
            world.invocation.pause_writing()

    world.script.on_line = congest
    world.head()
    world.invocation.response_data(b"x")
    world.invocation.response_end()
    assert world.script.lines[-2:] == ["client.body b'x'", "post.pause"]
    assert world.invocation.state is ENDING


EVENTS = st.lists(
    st.sampled_from(
        [
            *("client body", "client end", "client gone", "pause_writing", "resume_writing"),
            *("attach", "head", "data", "worker end", "worker gone", "worker failed"),
            *("refused", "exhausted", "deadline", "ceiling", "shut down", "get"),
        ]
    ),
    max_size=14,
)


class Play:
    """Gives events to an invocation as its surroundings may: a side that has ended is silent."""

    def __init__(self) -> None:
        self.world = World(body_bytes=None)
        self.client_is_sending = True
        self.worker: str | None = None

    def act(self, event: str) -> None:
        invocation = self.world.invocation
        is_live = not self.world.client.over and invocation.state is not DONE
        if event in ("attach", "get"):
            self.worker_comes(event)
        elif event in ("deadline", "ceiling"):
            invocation.deadline_passed(162.0 if event == "deadline" else 9999.0, 1)
        elif event == "shut down":
            invocation.shut_down()
        elif event == "refused":
            invocation.publish_failed(QueueUnavailable("lost"))
        elif event == "exhausted":
            invocation.undeliverable()
        elif event.startswith("client") or event in ("pause_writing", "resume_writing"):
            if is_live:
                self.client_acts(event)
        else:
            self.worker_acts(event)

    def worker_comes(self, event: str) -> None:
        invocation = self.world.invocation
        if event == "attach" and invocation.state is QUEUED:
            self.worker = "attached"
            self.world.attach()
        elif event == "get" and QUEUED <= invocation.state < DONE:
            self.world.fetch(RecordedResponseWriter(self.world.script, "worker"))

    def client_acts(self, event: str) -> None:
        invocation = self.world.invocation
        if event == "client gone":
            self.world.client.over = True
            invocation.request_broken()
        elif event in ("pause_writing", "resume_writing"):
            self.world.client.is_slow = event == "pause_writing"
            getattr(invocation, event)()
        elif self.client_is_sending:
            if event == "client body":
                invocation.request_data(b"x")
                invocation.first_part_end()
            else:
                self.client_is_sending = False
                invocation.request_end()

    def worker_acts(self, event: str) -> None:
        invocation = self.world.invocation
        if not _WORKER_IS_TOLD.isdisjoint(self.world.script.lines):
            return
        if self.worker == "attached" and event == "head":
            self.worker = "streaming"
            self.world.head()
        elif self.worker == "attached" and event == "worker failed":
            self.worker = None
            invocation.response_invalid(400, "bad")
        elif self.worker == "streaming" and event == "data":
            invocation.response_data(b"y")
        elif self.worker == "streaming" and event == "worker end":
            self.worker = "ended"
            invocation.response_end()
        elif self.worker is not None and event == "worker gone":
            self.worker = None
            invocation.response_broken()


_WORKER_IS_TOLD = {"post.release", "post.refuse 400"}


@settings(max_examples=400, deadline=None)
@given(EVENTS)
def test_any_order_of_events_ends_once_and_leaves_nothing_open(events: list[str]) -> None:
    play = Play()
    for event in events:
        play.act(event)
    invocation, script = play.world.invocation, play.world.script
    if invocation.state is not DONE:
        invocation.shut_down()
    assert script.lines.count("registry.finished") == 1
    assert invocation.outcome is not None
    assert play.world.client.over
    if "queue.publish" in script.lines and invocation.head_at == 0.0:
        lost = ("refused", "exhausted")
        withdrawn = {"queue.withdraw", "registry.expired"} & set(script.lines)
        assert withdrawn or any(event in lost for event in events)


@pytest.mark.parametrize(
    ("was_run", "was_sent", "runs"), [(False, False, 0), (False, True, 0), (True, True, 1)]
)
def test_a_call_that_comes_back_from_a_channel_is_published_with_what_became_of_it(
    was_run: bool, was_sent: bool, runs: int
) -> None:
    world = World().send()
    world.invocation.handed_back(was_run=was_run, was_sent=was_sent)
    assert world.script.take() == ["queue.publish"]
    assert world.invocation.deliveries == int(was_sent)
    assert world.queue.runs == runs
    headers = decode_envelope(world.queue.envelopes[0]).headers
    assert ((b"nvcf-allow-rerun", b"never") in headers) is was_sent


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_delivery_over_a_channel_counts_beside_those_of_the_queue(is_asked: bool) -> None:
    world = World().send()
    world.invocation.handed_back(was_run=False, was_sent=True)
    if is_asked:
        assert world.invocation.run_requested(1, is_running=True) is RunDecision.RUN
    assert world.attach().invocation.deliveries == 2


def test_a_worker_may_come_for_the_rest_after_the_head_of_its_response() -> None:
    """GET and POST are two connections: what was sent first may arrive last."""
    world = World(body_bytes=None)
    world.channels.is_free = True
    world.invocation.request_data(b"first")
    world.invocation.first_part_end()
    assert world.channels.sent[0][2]
    world.attach().head(200)
    assert "channel.forget 1" not in world.script.take()
    worker = RecordedResponseWriter(world.script, "worker")
    world.invocation.request_data(b"second")
    assert world.fetch(worker)
    assert "channel.forget 1" in world.script.take()
    assert worker.sent == b"second"


def test_a_channel_forgets_a_call_for_which_no_get_comes() -> None:
    world = World(body_bytes=None)
    world.channels.is_free = True
    world.invocation.first_part_end()
    world.attach().head(200)
    world.script.take()
    world.invocation.response_end()
    assert world.script.take().count("channel.forget 1") == 1
