"""A call whose client has said how long it may wait, run, and take as a whole."""

from gateway.invocation.states import EXPIRED, QUEUED, STREAMING, Outcome
from gateway.routing.cancel_after import CallBounds
from tests.support.invocation_world import World


def world(**bounds: int) -> World:
    return World(cancel_after=CallBounds(**bounds))


def test_a_call_that_nobody_has_when_its_wait_is_over_is_withdrawn() -> None:
    one = world(queue_s=5)
    one.invocation.request_end()
    assert one.script.take() == ["registry.bounded 105", "queue.publish"]
    one.invocation.bound_passed(104.9)
    assert one.script.take() == []
    one.invocation.bound_passed(105.0)
    assert (one.invocation.state, one.script.take()) == (QUEUED, ["registry.wait_over"])
    one.invocation.lease_known(4, 105.1)
    assert (one.invocation.state, one.script.take()) == (EXPIRED, ["registry.expired"])
    one.invocation.position_known(3, 7)
    assert one.invocation.outcome is Outcome.QUEUE_TIMEOUT
    problem = one.problem()
    assert (problem["status"], problem["reason"]) == (504, "queue_timeout")
    assert one.client.head is not None
    assert {(b"retry-after", b"7"), (b"nvcf-queue-position", b"3")} <= set(one.client.head[1])


def test_a_call_that_a_worker_has_when_its_wait_is_over_goes_on_for_as_long_as_it_may_run() -> None:
    one = world(queue_s=5, run_s=10)
    one.invocation.request_end()
    one.invocation.bound_passed(105.0)
    one.script.take()
    one.invocation.lease_known(0, 105.1)
    assert (one.invocation.state, one.script.take()) == (QUEUED, ["registry.bounded 115"])
    one.invocation.bound_passed(115.2)
    assert one.invocation.outcome is Outcome.RUN_TIMEOUT
    assert one.script.take()[0] == "queue.withdraw"
    assert one.problem()["reason"] == "run_timeout"


def test_while_the_queue_does_not_say_whether_a_worker_has_the_call_it_is_asked_again() -> None:
    one = world(queue_s=5)
    one.invocation.request_end()
    one.invocation.bound_passed(105.0)
    one.script.take()
    one.invocation.lease_known(None, 105.5)
    assert one.script.take() == ["registry.bounded 106"]
    one.invocation.bound_passed(106.6)
    assert one.script.take() == ["registry.wait_over"]


def test_the_run_counts_from_the_lease_and_not_from_the_attach() -> None:
    one = world(run_s=10)
    one.invocation.request_end()
    one.now = 120.0
    one.script.take()
    one.attach()
    # Its lease was 1 ms old.
    assert one.script.take() == ["registry.bounded 130"]
    assert one.invocation.bounds is not None
    assert 129.99 < one.invocation.bounds.ends_at < 130.0
    one.invocation.bound_passed(130.0)
    assert one.problem()["reason"] == "run_timeout"


def test_a_response_that_has_begun_breaks_off_when_the_run_is_over() -> None:
    one = world(run_s=10)
    one.invocation.request_end()
    one.attach().head()
    assert one.invocation.state is STREAMING
    one.script.take()
    one.invocation.bound_passed(110.0)
    assert one.invocation.outcome is Outcome.RUN_TIMEOUT
    assert one.script.take() == ["registry.finished", "post.release", "client.abort"]


def test_a_call_over_a_channel_runs_from_when_it_is_sent_and_waits_anew_if_it_comes_back() -> None:
    one = world(queue_s=5, run_s=10)
    one.channels.is_free = True
    one.invocation.request_end()
    assert one.script.take() == ["registry.bounded 105", "channels.send", "registry.bounded 110"]
    assert b"nvcf-run-seconds" in one.channels.sent[0][0]
    one.now = 103.0
    one.invocation.handed_back(was_run=False, was_sent=False)
    assert one.script.take() == ["registry.bounded 108", "queue.publish"]


def test_a_worker_whose_channel_has_the_call_is_told_to_stop_when_the_run_is_over() -> None:
    one = world(run_s=10)
    one.channels.is_free = True
    one.invocation.request_end()
    one.script.take()
    one.invocation.bound_passed(110.0)
    assert one.script.take()[0] == "channel.cancel 1"
    assert one.problem()["reason"] == "run_timeout"


def test_the_end_of_the_whole_call_has_the_reason_of_its_phase() -> None:
    waiting = world(whole_s=5)
    waiting.invocation.request_end()
    waiting.invocation.bound_passed(105.0)
    assert waiting.invocation.state is EXPIRED
    waiting.invocation.position_known(2, 1)
    assert waiting.problem()["reason"] == "queue_timeout"

    leased = world(whole_s=5)
    leased.invocation.request_end()
    leased.invocation.bound_passed(105.0)
    leased.invocation.position_known(0, 1)
    assert leased.problem()["reason"] == "run_timeout"

    attached = world(whole_s=5)
    attached.invocation.request_end()
    attached.attach()
    attached.invocation.bound_passed(105.0)
    assert attached.problem()["reason"] == "run_timeout"


def test_bounds_count_from_when_the_body_is_there() -> None:
    one = World(body_bytes=4, cancel_after=CallBounds(queue_s=5))
    one.invocation.request_data(b"12")
    one.now = 103.0
    one.invocation.request_data(b"34")
    assert one.script.take() == ["registry.bounded 108", "queue.publish"]


def test_the_poll_window_ends_a_call_that_its_bounds_would_let_wait_longer() -> None:
    one = world(queue_s=100)
    one.invocation.request_end()
    one.invocation.deadline_passed(162.0, 1)
    one.invocation.position_known(2, 1)
    assert one.problem()["reason"] == "poll_timeout"
