"""The life of one job, as transcripts and as properties."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from http1.stream import Defect, Failure
from tests.support.envelopes import REQUESTED_AT_NS
from tests.support.job_bench import FIRE, JSON, Bench, LeasePort
from worker_agent.job.states import TRANSITIONS, Event, Outcome, State

NO_RERUN = ((b"nvcf-allow-rerun", b"false"),)
BEGUN = ["registry.responding", "call.pass_chunks"]
"""The head of a response of unknown length has come."""


def test_a_response_that_comes_whole_is_delivered_then_acked() -> None:
    bench = Bench().begin()
    assert bench.take() == ["inference.open"]
    bench.forward()
    bench.job.response_whole(200, JSON, 2, b"{}")
    assert bench.take() == ["attach.deliver", "registry.freed"]
    assert bench.job.response == (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )
    bench.job.post_answered(200)
    assert bench.take() == ["lease.ack", "registry.finished"]
    assert bench.job.outcome is Outcome.ANSWERED
    assert bench.job.response_bytes == 2


def test_a_streamed_response_frees_the_slot_at_its_end() -> None:
    bench = Bench().forward()
    bench.job.response_head(200, JSON, 3)
    bench.job.response_data(b"ab")
    bench.job.response_data(b"c")
    assert bench.take() == [
        "registry.responding",
        "attach.stream 3",
        "post.send_data b'ab'",
        "post.send_data b'c'",
    ]
    bench.job.response_end()
    assert bench.take() == ["post.send_end", "registry.freed"]
    bench.job.post_answered(200)
    assert bench.take() == ["lease.ack", "registry.finished"]
    assert bench.job.response_bytes == 3


def test_chunks_of_a_response_of_unknown_length_are_passed_on_as_they_are_and_counted() -> None:
    bench = Bench().stream()
    bench.job.response_chunk(b"2\r\nab\r\n", 2)
    bench.job.response_data(b"c")
    assert bench.take() == ["post.send_chunk b'2\\r\\nab\\r\\n' 2", "post.send_data b'c'"]
    assert bench.job.response_bytes == 3


TRAILERS = [(b"x-sum", b"1"), (b"set-cookie", b"a=1"), (b"content-length", b"9")]


def test_trailers_that_may_be_passed_on_end_the_post_of_a_stream() -> None:
    bench = Bench().stream()
    bench.call.trailers = TRAILERS
    bench.job.response_end()
    assert bench.take() == ["post.send_end [(b'x-sum', b'1')]", "registry.freed"]


@pytest.mark.parametrize("body", [b"hello", b""])
def test_a_whole_response_with_trailers_is_delivered_with_them_and_without_a_length(
    body: bytes,
) -> None:
    bench = Bench().forward()
    bench.call.trailers = TRAILERS
    bench.job.response_whole(200, JSON, len(body), body)
    assert bench.take() == ["attach.deliver", "registry.freed"]
    assert bench.job.trailers == b"x-sum: 1\r\n"
    head, _, rest = bench.job.response.partition(b"\r\n\r\n")
    assert rest == body
    assert b"content-length" not in head
    assert (bench.job.state, bench.job.response_bytes) == (State.DELIVERING, len(body))


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_a_response_without_body_is_posted_without_the_length_it_announces(method: bytes) -> None:
    bench = Bench(method=method).forward()
    bench.job.response_whole(304 if method == b"GET" else 200, [], 7, b"")
    assert bench.job.response.endswith(b"content-length: 7\r\n\r\n")


def test_an_inference_server_that_dies_mid_stream_breaks_the_post() -> None:
    bench = Bench().stream()
    bench.job.posted()
    bench.job.response_data(b"half")
    bench.take()
    bench.job.response_broken(Failure.CLOSED, is_stale=False)
    assert bench.take() == ["post.abort", "registry.freed", "registry.finished"]
    assert bench.job.outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("failure", "defect", "status", "text", "word"),
    [
        (Failure.CLOSED, None, b"14", b"The inference server was lost", b"inference-lost"),
        (Failure.RESET, None, b"14", b"The inference server was lost", b"inference-lost"),
        (
            Failure.INVALID,
            Defect("reset", "The inference server has reset the stream with CANCEL"),
            b"13",
            b"The inference server has reset the stream with CANCEL",
            b"inference-invalid",
        ),
    ],
)
def test_a_grpc_stream_that_breaks_off_ends_with_trailers_that_say_why(
    failure: Failure, defect: Defect | None, status: bytes, text: bytes, word: bytes
) -> None:
    bench = Bench(more=((b"content-type", b"application/grpc"),)).stream()
    bench.job.response_broken(failure, is_stale=False, defect=defect)
    trailers = dict(bench.attach.post.trailers)
    assert trailers[b"grpc-status"] == status
    assert trailers[b"grpc-message"].startswith(text)
    assert trailers[b"nvcf-fault"] == word
    bench.job.post_answered(200)
    assert bench.job.outcome is Outcome.FAILED


def test_trailers_that_no_gateway_takes_fail_the_call_by_name() -> None:
    bench = Bench(more=((b"content-type", b"application/grpc"),)).forward()
    bench.call.trailers = [(b"x-large", b"v" * 20_000)]
    bench.job.response_whole(200, [], 0, b"")
    assert b"grpc-status: 13" in bench.job.response
    assert b"trailers are larger" in bench.job.response


def test_a_response_that_breaks_off_before_its_post_is_open_is_posted_as_far_as_it_came() -> None:
    """Otherwise the gateway would take it for none, and the function would run twice."""
    bench = Bench().forward()
    bench.job.response_head(200, JSON, None)
    bench.job.response_data(b"half")
    bench.job.response_broken(Failure.CLOSED, is_stale=False)
    assert bench.take()[-2:] == ["attach.stream None", "post.send_data b'half'"]
    bench.job.posted()
    assert bench.take() == ["lease.ack", "post.abort", "registry.freed", "registry.finished"]
    assert bench.job.outcome is Outcome.FAILED


def test_a_stale_connection_is_replaced_once() -> None:
    bench = Bench(more=NO_RERUN).forward()
    bench.job.response_broken(Failure.RESET, is_stale=True)
    assert bench.take() == ["inference.open"]
    assert bench.job.state is State.OPENING
    bench.send()
    bench.job.response_broken(Failure.RESET, is_stale=True)
    assert bench.take() == ["inference.broke", "attach.deliver", "registry.freed"]
    assert b"urn:inference-connection:" in bench.job.response


HANDED_BACK = ["lease.nak", "registry.freed", "registry.finished"]


def test_a_request_that_found_no_connection_goes_to_another_worker() -> None:
    for deliveries in (1, 7):
        bench = Bench(more=NO_RERUN, deliveries=deliveries).begin()
        bench.take()
        bench.job.unreachable()
        assert bench.take() == HANDED_BACK
        assert bench.job.outcome is Outcome.HANDED_BACK


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"])
@pytest.mark.parametrize("failure", [Failure.RESET, Failure.CLOSED])
def test_what_may_be_repeated_is_tried_once_more_elsewhere(method: bytes, failure: Failure) -> None:
    for deliveries in (1, 7):
        bench = Bench(method=method, more=NO_RERUN, deliveries=deliveries).forward()
        bench.job.response_broken(failure, is_stale=False)
        assert bench.take() == ["inference.broke", *HANDED_BACK]
    once_sent = Bench(method=method, more=((b"nvcf-allow-rerun", b"never"),))
    for again in (Bench(method=method, more=NO_RERUN, is_last_run=True), once_sent):
        again.forward().job.response_broken(failure, is_stale=False)
        assert again.take() == ["inference.broke", "attach.deliver", "registry.freed"]


@pytest.mark.parametrize(
    ("more", "is_handed_back"),
    [((), True), (((b"nvcf-allow-rerun", b"false"),), False)],
)
def test_the_function_says_whether_a_post_may_run_again(
    more: tuple[tuple[bytes, bytes], ...], is_handed_back: bool
) -> None:
    bench = Bench(more=more).forward()
    bench.job.response_broken(Failure.CLOSED, is_stale=False)
    assert (bench.job.outcome is Outcome.HANDED_BACK) is is_handed_back


def test_a_request_left_at_the_inference_server_keeps_its_slot_until_that_is_done() -> None:
    bench = Bench().forward()
    bench.job.cancel()
    assert bench.take() == ["lease.ack", "inference.discard", "registry.finished"]
    bench.job.discarded()
    bench.job.discarded()
    assert bench.take() == ["registry.freed"]


def test_a_response_that_is_not_http_keeps_its_slot_while_its_connection_is_open() -> None:
    streamed = Bench().stream()
    streamed.job.posted()
    for bench in (Bench().forward(), streamed):
        bench.job.response_broken(Failure.INVALID, is_stale=False)
        taken = bench.take()
        assert "inference.discard" in taken
        assert "registry.freed" not in taken
        bench.job.discarded()
        assert bench.take() == ["registry.freed"]


def test_a_request_whose_body_was_fetched_is_not_sent_again_but_given_back() -> None:
    """The gateway knows whether it still has the body."""
    bench = Bench(has_rest=True).forward()
    bench.job.response_broken(Failure.RESET, is_stale=True)
    assert bench.take() == [
        "inference.broke",
        "rest.close",
        "lease.nak",
        "registry.freed",
        "registry.finished",
    ]


@pytest.mark.parametrize("has_rest", [False, True])
def test_a_job_whose_lease_may_be_over_says_nothing_when_it_breaks(has_rest: bool) -> None:
    bench = Bench(has_rest=has_rest).forward()
    bench.lease.is_lapsed = True
    if has_rest:
        bench.job.rest_broken()
        assert bench.take() == ["rest.close", "inference.discard", "registry.finished"]
    else:
        bench.job.response_broken(Failure.RESET, is_stale=False)
        assert bench.take() == ["registry.freed", "registry.finished"]
    assert bench.job.outcome is Outcome.LAPSED


def test_the_rest_of_the_body_is_passed_on_and_its_end_finishes_the_request() -> None:
    bench = Bench(has_rest=True).begin()
    bench.take()
    bench.send()
    bench.job.rest_data(b"more")
    bench.job.pause_writing()
    bench.job.resume_writing()
    bench.job.rest_end()
    assert bench.take() == [
        "attach.fetch",
        "call.send_data b'more'",
        "rest.pause_reading",
        "rest.resume_reading",
        "registry.uploaded",
        "call.send_end",
    ]


@pytest.mark.parametrize("rest", [b"abc", b"abcde"])
def test_a_body_of_another_length_than_announced_ends_the_call(rest: bytes) -> None:
    bench = Bench(has_rest=True, length=b"4").forward()
    bench.job.rest_data(rest)
    bench.job.rest_end()
    assert bench.take()[-3:] == ["rest.close", "attach.deliver", "inference.discard"]
    assert b"urn:nvcf-worker-service:" in bench.job.response


def test_a_response_that_ends_before_the_request_stops_the_upload() -> None:
    bench = Bench(has_rest=True).forward()
    bench.job.response_whole(413, [], 0, b"")
    assert bench.take() == ["rest.close", "attach.deliver", "registry.freed"]
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
    assert bench.take() == ["post.abort", "lease.ack", "inference.discard", "registry.finished"]
    assert bench.job.outcome is Outcome.UNWANTED


def test_a_small_answer_lost_on_its_way_is_delivered_once_more() -> None:
    bench = Bench().forward()
    bench.job.response_whole(200, [], 0, b"")
    bench.take()
    bench.job.post_broken()
    assert bench.take() == ["attach.deliver"]
    bench.job.post_broken()
    assert bench.take() == ["lease.ack", "registry.finished"]
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
    assert bench.take() == ["inference.open", "lease.ack", "registry.freed", "registry.finished"]
    assert not bench.job.may_send(0.0)


def test_a_request_whose_window_has_ended_is_not_started() -> None:
    bench = Bench()
    bench.job.begin(REQUESTED_AT_NS + 62_000_000_000)
    assert bench.take() == ["lease.ack", "registry.freed", "registry.finished"]
    assert bench.job.outcome is Outcome.LATE


def test_a_request_whose_window_ends_while_it_connects_is_not_sent() -> None:
    bench = Bench()
    bench.job.begin(REQUESTED_AT_NS + 58_000_000_000)
    assert bench.take() == ["inference.open"]
    assert bench.job.may_send(3.9)
    assert not bench.job.may_send(4.0)
    assert bench.take() == ["lease.ack", "registry.freed", "registry.finished"]
    assert bench.job.outcome is Outcome.LATE


def test_a_request_without_a_time_is_always_started() -> None:
    bench = Bench()
    bench.job.envelope.requested_at_ns = 0
    bench.job.begin(REQUESTED_AT_NS)
    assert bench.take() == ["inference.open"]
    assert bench.job.may_send(1e9)


def test_an_agent_that_must_stop_hands_back_what_has_no_answer() -> None:
    bench = Bench().forward()
    bench.job.abandon()
    assert bench.take() == ["lease.nak", "inference.discard", "registry.finished"]
    streaming = Bench().stream()
    streaming.job.abandon()
    assert "lease.ack" in streaming.take()


@pytest.mark.parametrize("status", [199, 600, 101])
def test_a_status_that_no_gateway_takes_becomes_a_problem(status: int) -> None:
    bench = Bench().forward()
    bench.job.response_head(status, [], None)
    assert bench.take() == ["attach.deliver", "inference.discard"]


def test_the_lease_ends_when_the_response_head_is_on_its_way_and_not_again() -> None:
    bench = Bench().stream()
    bench.job.posted()
    assert bench.take() == ["lease.ack"]
    bench.job.posted()
    bench.job.response_broken(Failure.RESET, is_stale=False)
    assert bench.take() == ["post.abort", "registry.freed", "registry.finished"]


def test_a_lease_that_comes_again_after_the_response_head_is_ended_at_once() -> None:
    bench = Bench().stream()
    bench.job.posted()
    again = LeasePort("again", bench.script)
    bench.job.leased_again(again)  # type: ignore[arg-type]
    assert bench.take() == ["lease.ack", "again.ack"]


def test_a_lease_that_comes_again_before_the_response_head_replaces_the_first() -> None:
    bench = Bench().forward()
    bench.job.leased_again(LeasePort("again", bench.script))  # type: ignore[arg-type]
    bench.job.cancel()
    assert bench.take() == ["again.ack", "inference.discard", "registry.finished"]


def test_a_lease_that_may_be_over_is_not_ended_and_its_request_is_not_sent() -> None:
    bench = Bench().begin()
    bench.lease.is_lapsed = True
    assert not bench.job.may_send(0.0)
    bench.job.lapse()
    assert bench.take() == ["inference.open", "registry.freed", "registry.finished"]


# Begun already, and the delivery of a whole response may be repeated without end.
SCRIPTED = [
    (event, way)
    for event, ways in FIRE.items()
    for way in range(len(ways))
    if event not in {Event.BEGIN, Event.LEASED_AGAIN}
    and not (event is Event.POST_BROKEN and way == 1)
]


@given(st.booleans(), st.lists(st.sampled_from(SCRIPTED), max_size=14))
def test_whatever_happens_the_lease_ends_once_and_every_call_is_closed(
    has_rest: bool, events: list[tuple[Event, int]]
) -> None:
    bench = Bench(has_rest=has_rest).begin()
    broken = 0
    for event, way in events:
        if (bench.job.state, event) in TRANSITIONS:
            if event is Event.POST_BROKEN and bench.job.state is State.FORWARDING:
                broken = bench.script.count("attach.stream None")
            FIRE[event][way](bench)
    bench.job.cancel()
    if "inference.discard" in bench.script:
        bench.job.discarded()
    calls = [line.split()[0] for line in bench.script]
    ends = calls.count("lease.ack") + calls.count("lease.nak")
    assert ends == (bench.job.outcome is not Outcome.LAPSED)
    assert calls.count("registry.freed") == calls.count("registry.finished") == 1
    if "inference.discard" not in calls:
        assert calls[-1] == "registry.finished"
    assert calls.count("inference.discard") <= 1
    assert calls.count("attach.deliver") <= 2
    assert broken <= 1
    # One that interim responses opened, and that broke before the head, needs no end.
    streams = calls.count("attach.stream") - broken
    assert streams <= 1
    if streams:
        assert calls.count("post.send_end") + calls.count("post.abort") == 1
        assert "attach.deliver" not in calls
    assert bench.job.state is State.DONE


# Interim responses


def hinted(more: tuple[tuple[bytes, bytes], ...] = ()) -> Bench:
    """Return a job whose POST an interim response has opened."""
    bench = Bench(more=more).forward()
    bench.job.response_interim(103, [(b"link", b"x")])
    assert bench.take() == ["attach.stream None"]
    bench.job.posted()
    assert (bench.job.state, bench.take()) == (State.FORWARDING, [])
    return bench


def test_an_interim_response_opens_the_post_and_leaves_the_lease_until_the_head() -> None:
    bench = hinted()
    bench.job.response_interim(102, [(b"nvcf-reqid", b"forged"), (b"content-type", b"a/b")])
    assert bench.take() == ["post.send_data"]
    bench.job.response_head(200, JSON, None)
    assert bench.take() == [*BEGUN, "post.send_data", "lease.ack"]
    bench.job.response_data(b"x")
    bench.job.response_end()
    assert bench.take() == ["post.send_data b'x'", "post.send_end", "registry.freed"]
    bench.job.post_answered(200)
    assert (bench.job.outcome, bench.take()) == (Outcome.ANSWERED, ["registry.finished"])


def test_the_location_in_an_interim_response_is_the_clients() -> None:
    bench = Bench(more=((b"x-forwarded-host", b"f.example"),)).forward()
    bench.job.response_interim(102, [(b"location", b"http://h:1/status/7")])
    assert b"\r\nlocation: http://f.example/status/7\r\n" in bench.attach.head


def test_a_lease_ends_with_the_head_if_the_post_is_opened_after_it() -> None:
    bench = Bench().forward()
    bench.job.response_interim(103, [])
    bench.job.response_head(200, JSON, None)
    assert "lease.ack" not in bench.take()
    bench.job.posted()
    assert bench.take() == ["lease.ack"]


def test_a_whole_response_follows_its_interim_ones_on_their_post() -> None:
    bench = hinted()
    bench.job.response_whole(200, JSON, 2, b"{}")
    assert bench.take() == ["post.send_data", "post.send_end", "registry.freed"]
    bench.job.post_broken()
    assert bench.take() == ["attach.deliver"]
    bench.job.post_answered(200)
    assert bench.take() == ["lease.ack", "registry.finished"]


def test_a_problem_follows_interim_responses_on_their_post() -> None:
    bench = hinted(NO_RERUN)
    bench.job.response_broken(Failure.CLOSED, is_stale=False)
    assert bench.take() == ["inference.broke", "post.send_data", "post.send_end", "registry.freed"]
    assert bench.job.fault == b"inference-lost"


def test_a_request_may_be_run_again_after_an_interim_response() -> None:
    bench = hinted()
    bench.job.response_broken(Failure.CLOSED, is_stale=False)
    assert bench.take() == ["inference.broke", "post.abort", *HANDED_BACK]


def test_a_client_that_leaves_after_an_interim_response_ends_the_job() -> None:
    bench = hinted()
    bench.job.post_answered(200)
    assert bench.job.outcome is Outcome.UNWANTED
    assert bench.take() == ["post.abort", "lease.ack", "inference.discard", "registry.finished"]


def test_a_post_that_breaks_before_the_head_is_replaced_and_gets_no_more_interim_responses() -> (
    None
):
    bench = hinted()
    bench.job.post_pause_writing()
    bench.job.post_broken()
    assert bench.take() == ["call.pause_reading", "call.resume_reading"]
    bench.job.response_interim(103, [])
    assert bench.take() == []
    bench.job.response_head(200, JSON, None)
    assert bench.take() == [*BEGUN, "attach.stream None"]
    bench.job.posted()
    assert bench.take() == ["lease.ack"]


def test_interim_responses_beyond_what_a_gateway_takes_are_dropped() -> None:
    bench = hinted()
    bench.job.response_interim(103, [(b"link", b"x" * 65_536)])
    bench.job.response_interim(103, [(b"link", b"x")] * 257)
    assert bench.take() == []
    for _ in range(20):
        bench.job.response_interim(103, [])
    assert bench.take() == ["post.send_data"] * 15


def test_a_run_that_takes_longer_than_its_client_allows_is_ended_with_504() -> None:
    bench = Bench(more=((b"Nvcf-Run-Seconds", b"30"),)).begin()
    assert bench.take() == ["registry.bounded", "inference.open"]
    bench.send()
    bench.job.run_ended()
    assert bench.take() == ["attach.deliver", "inference.discard"]
    assert bench.job.fault == b"run-timeout"
    head, _, body = bench.job.response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 504 ")
    assert json.loads(body)["type"] == "urn:nvcf:problem-details:run-timeout"
    assert json.loads(body)["reason"] == "run_timeout"


def test_a_run_whose_client_was_told_to_ask_again_ends_in_time_too() -> None:
    bench = Bench(more=((b"Nvcf-Run-Seconds", b"30"),)).begin()
    bench.send()
    bench.job.postponed()
    bench.lease.is_lapsed = True
    bench.take()
    bench.job.run_ended()
    assert bench.take() == ["attach.deliver", "inference.discard"]
    assert bench.job.fault == b"run-timeout"


def test_a_response_that_has_begun_is_left_to_its_gateway_when_its_run_is_over() -> None:
    bench = Bench(more=((b"nvcf-run-seconds", b"30"),)).stream()
    bench.job.run_ended()
    assert bench.take() == []
