"""Invocations that are run at most once."""

import pytest

from gateway.invocation.once import OnceInvocation
from gateway.invocation.states import DONE, PENDING, QUEUED, Outcome
from queueing.interface import QueueFull, QueueUnavailable, RunDecision
from tests.support.invocation_world import World
from wire.decoded_envelope import decode_call_head, decode_envelope


def once(world: World) -> OnceInvocation:
    assert isinstance(world.invocation, OnceInvocation)
    return world.invocation


def test_one_of_all_deliveries_is_run_and_what_comes_after_fails_the_call() -> None:
    world = World(is_once=True).publish()
    invocation = once(world)
    assert decode_envelope(world.queue.envelopes[0]).headers[-1] == (b"nvcf-allow-rerun", b"once")
    assert invocation.run_requested(3, is_running=False) is RunDecision.RUN
    assert world.script.take() == ["queue.started"]
    assert invocation.run_requested(1, is_running=False) is RunDecision.NEVER
    assert (world.problem()["status"], world.problem()["reason"]) == (502, "worker_lost")
    assert invocation.state is DONE
    assert "queue.withdraw" in world.script.take()
    assert invocation.may_have_run


def test_what_a_worker_gave_back_unrun_another_may_run() -> None:
    world = World(is_once=True).publish()
    invocation = once(world)
    assert invocation.run_requested(1, is_running=False) is RunDecision.RUN
    invocation.gave_back(1)
    assert invocation.run_requested(2, is_running=False) is RunDecision.RUN
    # News of an earlier delivery.
    invocation.gave_back(1)
    assert invocation.run_requested(3, is_running=False) is RunDecision.NEVER


def test_the_worker_that_was_told_to_run_it_may_go_on_and_respond() -> None:
    world = World(is_once=True).publish()
    invocation = once(world)
    assert invocation.run_requested(1, is_running=False) is RunDecision.RUN
    assert invocation.run_requested(1, is_running=True) is RunDecision.RUN
    world.attach()
    invocation.response_broken()
    assert invocation.state is QUEUED
    world.attach().head(200)
    invocation.response_end()
    assert invocation.outcome is Outcome.ANSWERED


@pytest.mark.parametrize(("was_run", "was_sent"), [(True, True), (False, True)])
def test_a_call_that_came_back_from_a_channel_after_it_may_have_run_is_not_published(
    was_run: bool, was_sent: bool
) -> None:
    world = World(is_once=True).send()
    (head, _, _) = world.channels.sent[0]
    assert (b"nvcf-allow-rerun", b"never") in decode_call_head(head).headers
    once(world).handed_back(was_run=was_run, was_sent=was_sent)
    assert world.queue.envelopes == []
    assert world.problem()["reason"] == "worker_lost"
    assert once(world).may_have_run


def test_a_call_that_no_worker_began_is_published_and_then_run() -> None:
    world = World(is_once=True).send()
    once(world).handed_back(was_run=False, was_sent=False)
    assert world.script.take() == ["queue.publish"]
    assert once(world).run_requested(1, is_running=False) is RunDecision.RUN


def test_what_waited_in_line_until_it_was_withdrawn_has_not_run() -> None:
    for position, may_have_run in ((3, False), (0, True), (None, True)):
        world = World(is_once=True).publish()
        world.now += 63.0
        once(world).deadline_passed(world.now, 1)
        once(world).position_known(position, 1)
        assert world.problem()["status"] == 504
        assert once(world).may_have_run is may_have_run


def test_what_the_queue_refused_has_not_run_and_what_it_lost_may_have() -> None:
    full, lost, begun = (World(is_once=True).publish() for _ in range(3))
    once(full).publish_failed(QueueFull())
    assert not once(full).may_have_run
    once(lost).publish_failed(QueueUnavailable())
    assert once(lost).may_have_run
    once(begun).run_requested(1, is_running=False)
    once(begun).publish_failed(QueueFull())
    assert once(begun).may_have_run


def test_what_no_worker_could_get_has_not_run() -> None:
    world = World(is_once=True, body_bytes=10)
    world.client.over = True
    once(world).request_broken()
    assert not once(world).may_have_run
    attached = World(is_once=True).publish().attach()
    assert once(attached).may_have_run


def test_a_polled_call_is_run_once_and_then_asked_for_as_often_as_it_takes() -> None:
    world = World(is_once=True, is_polled=True).publish()
    invocation = once(world)
    headers = decode_envelope(world.queue.envelopes[0]).headers
    assert (b"nvcf-allow-rerun", b"never") in headers
    assert headers[-1] == (b"nvcf-allow-rerun", b"once")
    assert b"nvcf-polled" not in dict(headers)
    assert invocation.run_requested(1, is_running=False) is RunDecision.RUN
    world.attach().head(202)
    invocation.response_end()
    assert invocation.state is PENDING
    assert (b"nvcf-allow-rerun", b"once") not in decode_envelope(world.registry.polls[0]).headers
    assert invocation.run_requested(1, is_running=True) is RunDecision.RUN
    assert invocation.run_requested(2, is_running=False) is RunDecision.NEVER
    assert (world.problem()["status"], world.problem()["reason"]) == (502, "worker_lost")
    assert invocation.may_have_run


def test_a_polled_call_is_not_run_again_before_its_first_response_either() -> None:
    world = World(is_once=True, is_polled=True).publish()
    assert once(world).run_requested(1, is_running=False) is RunDecision.RUN
    assert once(world).run_requested(2, is_running=False) is RunDecision.NEVER
    assert world.problem()["reason"] == "worker_lost"
    sent = World(is_once=True, is_polled=True).send()
    once(sent).handed_back(was_run=True, was_sent=True)
    assert sent.queue.envelopes == []
    assert sent.problem()["reason"] == "worker_lost"
