"""The question of a worker whether to run a request again, against a real invocation."""

import pytest

from gateway.attach.endpoint import AttachEndpoint
from gateway.errors import MethodNotAllowed
from gateway.invocation.states import ATTACHED, EXPIRED, QUEUED
from http1.stream import Request
from queueing.interface import RunDecision
from tests.support.invocation_world import REQUEST_ID, World
from tests.support.recorder import RecordedResponseWriter
from wire.worker_api import RUN_PATH

FIRST = [
    (b"authorization", b"Bearer response-token"),
    (b"nvcf-reqid", REQUEST_ID.encode()),
    (b"nvcf-deliveries", b"1"),
]
ASKED = [*FIRST[:2], (b"nvcf-deliveries", b"2")]
RUNNING = (b"nvcf-running", b"1")
LATE = (b"nvcf-late", b"1")
BROKEN_OFF = (b"nvcf-broken-off", b"1")


def ask(world: World, headers: list[tuple[bytes, bytes]], method: bytes = b"POST") -> int:
    endpoint = AttachEndpoint(lambda: world.now)
    endpoint.live[REQUEST_ID] = world.invocation
    worker = RecordedResponseWriter(world.script, "worker")
    endpoint.serve_run(Request(method, RUN_PATH, b"gateway", headers, 0, 0.0), worker)
    assert worker.head is not None
    assert worker.sent == b""
    return worker.head[0]


@pytest.mark.parametrize(
    ("decision", "status"),
    [(RunDecision.RUN, 200), (RunDecision.LATER, 409), (RunDecision.NEVER, 410)],
)
def test_while_it_waits_the_queue_decides(decision: RunDecision, status: int) -> None:
    world = World().publish()
    world.queue.decision = decision
    assert ask(world, ASKED) == status
    assert "queue.may_run 2" in world.script.take()


def test_one_that_was_broken_off_is_run_once_more_and_one_that_was_only_leased_like_the_first() -> (
    None
):
    world = World().publish()
    for _ in range(2):
        assert ask(world, ASKED) == 200
    assert ask(world, [*FIRST, BROKEN_OFF]) == 410
    assert ask(world, ASKED) == 204


def test_while_another_worker_attaches_it_is_not_run_yet() -> None:
    assert ask(World().publish().attach(), ASKED) == 409


def test_a_request_that_is_dropped_as_late_expires() -> None:
    world = World().publish()
    assert ask(world, [*FIRST, LATE]) == 410
    assert world.invocation.state is EXPIRED
    assert "registry.expired" in world.script.take()


def test_a_request_to_which_another_worker_responds_does_not() -> None:
    world = World().publish().attach()
    assert ask(world, [*FIRST, LATE]) == 410
    assert world.invocation.state is ATTACHED


def test_nor_one_that_another_worker_was_told_to_run() -> None:
    world = World().publish()
    assert ask(world, ASKED) == 200
    assert ask(world, [*FIRST, LATE]) == 410
    assert ask(world, [*ASKED, LATE]) == 410
    assert world.invocation.state is QUEUED


def test_nor_one_that_another_worker_runs() -> None:
    world = World().publish()
    assert ask(world, [*FIRST, RUNNING]) == 204
    assert ask(world, [*FIRST, LATE]) == 410
    assert world.invocation.state is QUEUED


def test_nor_one_that_was_dropped_at_a_further_delivery() -> None:
    world = World().publish()
    assert ask(world, [*ASKED, LATE]) == 410
    assert world.invocation.state is QUEUED


def test_nor_one_that_waits_again_because_a_post_broke() -> None:
    world = World().publish().attach()
    world.invocation.response_broken()
    assert ask(world, [*FIRST, LATE]) == 410
    assert world.invocation.state is QUEUED


def test_another_value_than_1_reports_nothing() -> None:
    world = World().publish()
    assert ask(world, [*FIRST, (b"nvcf-late", b"0"), (b"nvcf-running", b"0")]) == 200
    assert world.invocation.state is QUEUED
    assert "queue.may_run 1" in world.script.take()


def test_nothing_is_run_again_once_the_client_has_the_head() -> None:
    world = World().stream()
    assert ask(world, ASKED) == 410
    assert ask(world, [*ASKED, RUNNING]) == 410


@pytest.mark.parametrize(
    "changed",
    [
        (b"authorization", b"Bearer another-token"),
        (b"nvcf-reqid", b"44444444-4444-4444-8444-444444440007"),
        (b"nvcf-reqid", b"\xff"),
        (b"nvcf-deliveries", b"-2"),
        (b"nvcf-deliveries", b"9" * 5000),
    ],
)
def test_whoever_does_not_know_the_request_learns_nothing(changed: tuple[bytes, bytes]) -> None:
    world = World().publish()
    assert ask(world, [*(header for header in ASKED if header[0] != changed[0]), changed]) == 410
    assert world.script.take() == ["worker.head 410", "worker.end"]


def test_only_a_post_asks() -> None:
    with pytest.raises(MethodNotAllowed):
        ask(World().publish(), ASKED, b"GET")


def test_a_worker_that_runs_it_goes_on_unless_another_was_told_to() -> None:
    world = World().publish()
    first = [*FIRST, RUNNING]
    assert ask(world, first) == 204
    assert "queue.started" in world.script.take()
    assert ask(world, ASKED) == 200
    assert ask(world, first) == 410
    assert ask(world, [*ASKED, RUNNING]) == 204
