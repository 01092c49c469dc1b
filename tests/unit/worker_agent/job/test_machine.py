"""The life of one job, as transcripts and as properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from http1.stream import Failure
from tests.support.job_bench import JSON, Bench
from worker_agent.job.machine import State
from worker_agent.job.ports import Outcome


def test_a_response_that_comes_whole_is_delivered_then_acked() -> None:
    bench = Bench().begin()
    assert bench.take() == ["inference.open"]
    bench.forward()
    bench.job.response_whole(200, JSON, 2, b"{}")
    assert bench.take() == ["attach.deliver", "desk.freed"]
    assert bench.job.answer == (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )
    bench.job.post_answered(200)
    assert bench.take() == ["lease.ack", "desk.finished"]
    assert bench.job.outcome is Outcome.ANSWERED
    assert bench.job.response_bytes == 2


def test_a_streamed_response_frees_the_slot_at_its_end() -> None:
    bench = Bench().forward()
    bench.job.response_head(200, JSON, 3)
    bench.job.response_data(b"ab")
    bench.job.response_data(b"c")
    assert bench.take() == ["attach.stream 3", "post.send_data b'ab'", "post.send_data b'c'"]
    bench.job.response_end()
    assert bench.take() == ["post.send_end", "desk.freed"]
    bench.job.post_answered(200)
    assert bench.take() == ["lease.ack", "desk.finished"]
    assert bench.job.response_bytes == 3


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_a_response_without_body_is_posted_without_the_length_it_announces(method: bytes) -> None:
    bench = Bench(method=method).forward()
    bench.job.response_whole(304 if method == b"GET" else 200, [], 7, b"")
    assert bench.job.answer.endswith(b"content-length: 7\r\n\r\n")


def test_an_inference_server_that_dies_mid_stream_breaks_the_post() -> None:
    bench = Bench().stream()
    bench.job.response_data(b"half")
    bench.take()
    bench.job.response_broken(Failure.CLOSED, is_stale=False)
    assert bench.take() == ["post.abort", "lease.ack", "desk.freed", "desk.finished"]
    assert bench.job.outcome is Outcome.FAILED


def test_a_stale_connection_is_replaced_once() -> None:
    bench = Bench().forward()
    bench.job.response_broken(Failure.RESET, is_stale=True)
    assert bench.take() == ["inference.open"]
    assert bench.job.state is State.OPENING
    bench.job.opened(bench.call)  # type: ignore[arg-type]
    bench.job.response_broken(Failure.RESET, is_stale=True)
    assert bench.take() == ["attach.deliver", "desk.freed"]
    assert b"urn:inference-connection:" in bench.job.answer


def test_a_request_whose_body_was_fetched_is_not_sent_again() -> None:
    bench = Bench(has_rest=True).forward()
    bench.job.response_broken(Failure.RESET, is_stale=True)
    assert bench.take() == ["rest.close", "attach.deliver", "desk.freed"]


def test_the_rest_of_the_body_is_passed_on_and_its_end_finishes_the_request() -> None:
    bench = Bench(has_rest=True).begin()
    bench.take()
    bench.job.opened(bench.call)  # type: ignore[arg-type]
    bench.job.sent()
    bench.job.rest_data(b"more")
    bench.job.pause_writing()
    bench.job.resume_writing()
    bench.job.rest_end()
    assert bench.take() == [
        "attach.fetch",
        "call.send_data b'more'",
        "rest.pause_reading",
        "rest.resume_reading",
        "call.send_end",
    ]


@pytest.mark.parametrize("rest", [b"abc", b"abcde"])
def test_a_body_of_another_length_than_announced_ends_the_call(rest: bytes) -> None:
    bench = Bench(has_rest=True, length=b"4").forward()
    bench.job.rest_data(rest)
    bench.job.rest_end()
    assert bench.take()[-4:] == ["call.close", "rest.close", "attach.deliver", "desk.freed"]
    assert b"urn:nvcf-worker-service:" in bench.job.answer


def test_a_response_that_ends_before_the_request_stops_the_upload() -> None:
    bench = Bench(has_rest=True).forward()
    bench.job.response_whole(413, [], 0, b"")
    assert bench.take() == ["rest.close", "attach.deliver", "desk.freed"]
    bench.job.rest_data(b"late")
    assert bench.take() == []


def test_backpressure_reaches_the_inference_server() -> None:
    bench = Bench().stream()
    bench.job.post_pause_writing()
    bench.job.post_resume_writing()
    assert bench.take() == ["call.pause_reading", "call.resume_reading"]


def test_an_early_answer_of_the_gateway_ends_the_inference_call() -> None:
    bench = Bench().stream()
    bench.job.post_answered(200)
    assert bench.take() == ["call.close", "post.abort", "lease.ack", "desk.freed", "desk.finished"]
    assert bench.job.outcome is Outcome.UNWANTED


def test_a_small_answer_lost_on_its_way_is_delivered_once_more() -> None:
    bench = Bench().forward()
    bench.job.response_whole(200, [], 0, b"")
    bench.take()
    bench.job.post_broken()
    assert bench.take() == ["attach.deliver"]
    bench.job.post_broken()
    assert bench.take() == ["lease.ack", "desk.finished"]
    assert bench.job.outcome is Outcome.UNDELIVERED


def test_an_answer_that_no_gateway_read_is_delivered_as_often_as_that_happens() -> None:
    bench = Bench().forward()
    bench.job.response_whole(200, [], 0, b"")
    bench.take()
    for _ in range(3):
        bench.job.post_broken(is_unread=True)
        assert bench.take() == ["attach.deliver"]
    bench.job.post_answered(200)
    assert bench.job.outcome is Outcome.ANSWERED


def test_a_cancel_while_connecting_leaves_the_connection_to_others() -> None:
    bench = Bench().begin()
    bench.job.cancel()
    assert bench.take() == ["inference.open", "lease.ack", "desk.freed", "desk.finished"]
    assert bench.job.opened(bench.call) is None  # type: ignore[arg-type]


def test_an_agent_that_must_stop_hands_back_what_has_no_answer() -> None:
    bench = Bench().forward()
    bench.job.abandon()
    assert bench.take() == ["call.close", "lease.hand_back", "desk.freed", "desk.finished"]
    streaming = Bench().stream()
    streaming.job.abandon()
    assert "lease.ack" in streaming.take()


@pytest.mark.parametrize("status", [199, 600, 101])
def test_a_status_that_no_gateway_takes_becomes_a_problem(status: int) -> None:
    bench = Bench().forward()
    bench.job.response_head(status, [], None)
    assert bench.take() == ["call.close", "attach.deliver", "desk.freed"]


EVENTS = {
    "opened": lambda b: b.job.opened(b.call),
    "sent": lambda b: b.job.sent(),
    "unreachable": lambda b: b.job.unreachable(),
    "whole": lambda b: b.job.response_whole(200, JSON, 2, b"{}"),
    "head": lambda b: b.job.response_head(200, JSON, None),
    "data": lambda b: b.job.response_data(b"x"),
    "end": lambda b: b.job.response_end(),
    "lost": lambda b: b.job.response_broken(Failure.CLOSED, is_stale=False),
    "stale": lambda b: b.job.response_broken(Failure.RESET, is_stale=True),
    "rest_data": lambda b: b.job.rest_data(b"y"),
    "rest_end": lambda b: b.job.rest_end(),
    "rest_broken": lambda b: b.job.rest_broken(),
    "post_pause_writing": lambda b: b.job.post_pause_writing(),
    "post_resume_writing": lambda b: b.job.post_resume_writing(),
    "pause_writing": lambda b: b.job.pause_writing(),
    "resume_writing": lambda b: b.job.resume_writing(),
    "ok": lambda b: b.job.post_answered(200),
    "refused": lambda b: b.job.post_answered(401),
    "post_broken": lambda b: b.job.post_broken(),
    "cancel": lambda b: b.job.cancel(),
    "abandon": lambda b: b.job.abandon(),
}


@given(st.booleans(), st.lists(st.sampled_from(sorted(EVENTS)), max_size=14))
def test_whatever_happens_the_lease_ends_once_and_every_call_is_closed(
    has_rest: bool, names: list[str]
) -> None:
    bench = Bench(has_rest=has_rest).begin()
    for name in names:
        EVENTS[name](bench)
    bench.job.cancel()
    calls = [line.split()[0] for line in bench.script]
    assert calls.count("lease.ack") + calls.count("lease.hand_back") == 1
    assert calls.count("desk.freed") == calls.count("desk.finished") == 1
    assert calls[-1] == "desk.finished"
    assert calls.count("attach.deliver") <= 2
    assert calls.count("attach.stream") <= 1
    if "attach.stream" in calls:
        assert calls.count("post.send_end") + calls.count("post.abort") == 1
        assert "attach.deliver" not in calls
    assert bench.job.state is State.DONE
