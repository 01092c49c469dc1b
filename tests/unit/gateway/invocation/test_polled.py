"""A polled call, between recording ports: what a 202 of the worker means, and what follows it."""

import pytest

from gateway.invocation.polled import MAX_PARTIAL_BYTES, percent_of
from gateway.invocation.states import ATTACHED, DONE, PENDING, Outcome
from gateway.routing.cancel_after import CallBounds
from http1.stream import Headers
from queueing.interface import RunDecision
from tests.support.invocation_world import INLINE, World
from tests.support.recorder import RecordedResponseWriter
from wire.decoded_envelope import decode_envelope
from wire.http1 import InnerHead

PROGRESS: Headers = [
    (b"content-type", b"application/json"),
    (b"nvcf-percent-complete", b"45"),
]


def attached() -> World:
    world = World(is_polled=True).publish().attach()
    world.script.take()
    return world


def asked() -> World:
    """A worker has sent a first 202, and is asked for the response."""
    world = attached().head(202)
    world.invocation.response_end()
    world.script.take()
    return world


def test_the_envelope_is_for_the_inference_path_and_lets_the_worker_rewrite() -> None:
    world = World(
        headers=[
            (b"host", b"api.example"),
            (b"nvcf-poll-seconds", b"5"),
            (b"nvcf-input-asset-references", b"x"),
            (b"authorization", b"Bearer secret"),
            (b"accept", b"application/json"),
        ],
        is_polled=True,
    ).publish()
    envelope = decode_envelope(world.queue.envelopes[0])
    assert (envelope.method, envelope.path) == (b"POST", b"/infer")
    assert envelope.headers[:4] == [
        (b"host", b"api.example"),
        (b"accept", b"application/json"),
        (b"nvcf-invocation-region", b"eu"),
        (b"nvcf-poll-seconds", b"3600"),
    ]
    assert b"nvcf-feature-disable-worker-compatibility" not in dict(envelope.headers)


def test_a_client_may_ask_for_the_response_as_it_is() -> None:
    asks = (b"nvcf-feature-disable-worker-compatibility", b"true")
    world = World(headers=[(b"host", b"a"), asks], is_polled=True).publish()
    assert asks in decode_envelope(world.queue.envelopes[0]).headers


def test_a_202_is_progress_and_the_worker_is_asked_at_once() -> None:
    world = attached().head(202, PROGRESS)
    world.invocation.response_data(b'{"a":')
    world.invocation.response_chunk(b"2\r\n1}\r\n", 2)
    assert world.invocation.state is PENDING
    assert world.client.head is None
    world.script.take()
    world.invocation.response_end()
    assert world.script.take() == [
        "registry.moved_earlier",
        "registry.poll_worker 1",
        "client.progress 45 b'{\"a\":1}'",
        "post.release",
    ]
    envelope = decode_envelope(world.registry.polls[0])
    assert (envelope.method, envelope.path, envelope.body) == (b"GET", b"/infer", b"")
    assert (envelope.response_token, envelope.request_token) == ("poll-token", None)
    assert (b"nvcf-poll-seconds", b"60") in envelope.headers
    world.attach().head(200, [(b"content-type", b"text/plain")])
    world.invocation.response_data(b"done")
    world.invocation.response_end()
    assert world.script.take() == [
        "queue.answered",
        "client.head 200",
        "client.body b'done'",
        "client.end",
        "registry.finished",
        "post.release",
    ]
    assert world.invocation.outcome is Outcome.ANSWERED


def test_a_202_over_a_channel_is_progress_too() -> None:
    world = World(is_polled=True).send()
    head = InnerHead(202, PROGRESS, None)
    world.invocation.responded(head, None, b"{}", 101.0, 0.1, b"i", Outcome.ANSWERED)
    assert world.script.take() == [
        "registry.moved_earlier",
        "registry.poll_worker 1",
        "client.progress 45 b'{}'",
    ]
    world.invocation.request_broken()
    # No channel has it any more: its worker hears of the end through the queue.
    assert world.script.take() == ["queue.withdraw", "registry.finished"]


def test_a_worker_that_repeats_202_at_once_is_asked_ever_less_often() -> None:
    world = asked()
    pauses = []
    for number in range(2, 9):
        world.now += 0.001
        world.attach().head(202)
        world.invocation.response_end()
        assert not [line for line in world.script.take() if "poll_worker" in line]
        pauses.append(world.invocation.deadline - world.now)
        world.now = world.invocation.deadline
        world.invocation.deadline_passed(world.now, 1)
        assert f"registry.poll_worker {number}" in world.script.take()
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])
    world.now += 1.0
    world.attach().head(202)
    world.invocation.response_end()
    assert "registry.poll_worker 9" in world.script.take()


def test_no_more_of_a_202_is_kept_than_fits() -> None:
    world = attached().head(202, PROGRESS)
    for _ in range(3):
        world.invocation.response_data(b"x" * (MAX_PARTIAL_BYTES // 2))
    world.invocation.response_end()
    assert "client.progress 45 b''" in world.script.take()


def test_a_worker_that_takes_no_question_is_lost() -> None:
    world = asked()
    world.invocation.poll_failed(1)
    assert world.problem()["status"] == 504
    assert world.problem()["reason"] == "worker_lost"
    assert world.script.take()[0] == "queue.withdraw"
    assert world.invocation.outcome is Outcome.WORKER_LOST


def test_the_failure_of_a_question_that_was_answered_after_all_changes_nothing() -> None:
    world = asked().attach()
    world.invocation.poll_failed(1)
    assert world.invocation.state is ATTACHED
    world.head(202)
    world.invocation.poll_failed(1)
    assert world.invocation.state is PENDING


def test_a_worker_that_takes_a_question_and_stays_silent_is_lost() -> None:
    world = asked()
    deadline = world.invocation.deadline
    assert deadline == 170.0
    world.invocation.deadline_passed(deadline, 1)
    assert world.problem()["status"] == 502
    assert world.script.take()[0] == "queue.withdraw"


def test_a_call_is_pending_for_as_long_as_its_window_at_most() -> None:
    world = asked()
    for minute in range(1, 61):
        world.now = 100.0 + 59.0 * minute
        world.attach().head(202)
        world.invocation.response_end()
    world.script.take()
    world.invocation.deadline_passed(3702.0, 1)
    assert world.problem()["reason"] == "poll_timeout"
    assert world.script.take()[0] == "queue.withdraw"


def test_a_call_that_is_pending_runs_for_as_long_as_its_client_allows() -> None:
    world = World(is_polled=True, cancel_after=CallBounds(run_s=10))
    world.invocation.request_end()
    envelope = decode_envelope(world.queue.envelopes[0])
    assert (b"nvcf-run-seconds", b"10") in envelope.headers
    world.now = 105.0
    world.attach().head(202)
    world.invocation.response_end()
    world.now = 107.0
    world.attach().head(202)
    world.invocation.response_end()
    world.invocation.bound_passed(114.9)
    assert world.invocation.state is PENDING
    world.script.take()
    world.invocation.bound_passed(115.0)
    assert world.invocation.outcome is Outcome.RUN_TIMEOUT
    assert world.problem()["reason"] == "run_timeout"
    assert world.script.take()[0] == "queue.withdraw"


def test_a_post_that_breaks_makes_the_worker_be_asked_again() -> None:
    world = asked().attach()
    world.now += 1.0
    world.invocation.response_broken()
    assert "registry.poll_worker 2" in world.script.take()
    world.attach().head(202, PROGRESS)
    world.invocation.response_data(b"half")
    world.now += 1.0
    world.invocation.response_broken()
    assert {"registry.poll_worker 3", "client.progress 45 b''"} <= set(world.script.take())


def test_a_request_that_is_delivered_again_shows_that_its_worker_is_lost() -> None:
    world = asked()
    assert world.invocation.run_requested(1, is_running=True) is RunDecision.RUN
    assert world.invocation.state is PENDING
    assert world.invocation.run_requested(2, is_running=False) is RunDecision.NEVER
    assert world.problem()["status"] == 502


def test_the_end_of_a_call_that_is_pending_stops_its_worker() -> None:
    for end in ("request_broken", "shut_down"):
        world = asked()
        getattr(world.invocation, end)()
        assert world.script.take()[0] == "queue.withdraw"
        assert world.invocation.state is DONE
        world.invocation.poll_failed(1)


def test_a_body_flows_on_while_the_call_is_pending() -> None:
    world = World(body_bytes=INLINE + 4, is_polled=True)
    world.invocation.request_data(b"a" * INLINE)
    worker = RecordedResponseWriter(world.script, "worker")
    assert world.fetch(worker)
    world.attach().head(202)
    world.invocation.response_end()
    world.invocation.request_data(b"rest")
    world.invocation.request_end()
    assert worker.sent == b"rest"


@pytest.mark.parametrize(
    ("value", "percent"),
    [(b"0", 0), (b"100", 100), (b"101", None), (b"-1", None), (b"7.5", None), (None, None)],
)
def test_a_percentage_is_a_whole_number_up_to_100(value: bytes | None, percent: int | None) -> None:
    assert percent_of(value) == percent


def test_the_answer_to_a_question_may_come_over_a_channel() -> None:
    world = asked()
    world.now += 1.0
    head = InnerHead(202, PROGRESS, None)
    world.invocation.responded(head, None, b"", 101.0, 0.1, b"i", Outcome.ANSWERED)
    assert "registry.poll_worker 2" in world.script.take()
    head = InnerHead(200, [], None)
    world.invocation.responded(head, None, b"done", 102.0, 0.1, b"i", Outcome.ANSWERED)
    assert world.client.sent == b"done"
    assert world.invocation.outcome is Outcome.ANSWERED
