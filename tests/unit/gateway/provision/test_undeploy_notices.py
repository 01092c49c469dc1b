"""The end of a queue: clients that wait for a worker are answered, the others are left alone."""

import json

from gateway.invocation.machine import Invocation
from gateway.provision.undeploy_notices import UndeployNotices, fail_waiting
from tests.support.invocation_world import VERSION, World

ANOTHER = "44444444-4444-4444-8444-444444444444"


def test_only_who_waits_for_a_worker_of_that_version_is_answered() -> None:
    waiting, attached = World().publish(), World().publish().attach()
    live: set[Invocation] = {waiting.invocation, attached.invocation}
    queue = waiting.queue
    assert fail_waiting(live, queue, ANOTHER) == 0
    assert waiting.script.take() == []
    assert fail_waiting(live, queue, VERSION) == 1
    assert waiting.client.head is not None
    status, _, _ = waiting.client.head
    assert status == 503
    assert json.loads(waiting.client.sent)["detail"] == "The version was undeployed"
    assert waiting.script.take()[0] == "queue.forget"
    assert attached.script.take() == []


def test_who_would_wait_when_the_body_is_there_is_answered_too() -> None:
    receiving = World(body_bytes=10)
    assert fail_waiting([receiving.invocation], receiving.queue, VERSION) == 1
    assert receiving.problem()["status"] == 503


def test_a_worker_that_has_the_call_over_a_channel_is_told_to_stop() -> None:
    sent = World().send()
    assert fail_waiting([sent.invocation], sent.queue, VERSION) == 1
    assert sent.problem()["detail"] == "The version was undeployed"
    assert "channel.cancel 1" in sent.script.take()


def test_the_subject_names_the_version() -> None:
    assert UndeployNotices.subject(VERSION) == b"nvcf.ended." + VERSION.encode()
