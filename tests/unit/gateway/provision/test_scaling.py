"""The autoscaler: the load of a queue in, instances to start or stop out."""

from dataclasses import replace

from gateway.domain.model import Deployment, Instance, VersionState
from gateway.provision.actions import Create, Load, Plan, Snapshot
from gateway.provision.backend import InstanceStatus, RunState
from gateway.provision.scaling import CALM_S, URGENT_S, Autoscaler
from tests.support.deployments import deployment, gpu_spec, instance, running

AFTER_S = 1.0
IDLE_S = 100.0


class Queue:
    """One version's queue and its `Autoscaler`."""

    def __init__(self, wanted: Deployment) -> None:
        self.autoscaler = Autoscaler()
        self.wanted = wanted
        self.idle_s = IDLE_S

    def observe(
        self, now: float, load: Load | None, *kept: Instance, has_wake_request: bool
    ) -> Snapshot:
        snapshot = Snapshot(
            now,
            VersionState.ACTIVE,
            self.wanted,
            kept,
            {},
            load=load,
            has_wake_request=has_wake_request,
        )
        self.autoscaler.observe(snapshot, self.idle_s)
        return snapshot

    def plan(
        self,
        now: float,
        *kept: Instance,
        waiting: int | None = None,
        leased: int = 0,
        has_wake_request: bool = False,
        is_stopping: bool = False,
        plan: Plan | None = None,
    ) -> Plan:
        """``is_stopping``: an instance that no longer counts is still stopping."""
        load = Load(waiting or 0, leased) if leased or waiting is not None else None
        snapshot = self.observe(now, load, *kept, has_wake_request=has_wake_request)
        if is_stopping:
            snapshot = replace(
                snapshot, statuses={"x": InstanceStatus("x", RunState.STOPPING, now)}
            )
        plan = plan or Plan()
        self.autoscaler.scale_up(self.wanted, kept, snapshot, plan, AFTER_S)
        return plan

    def surplus(
        self, now: float, *kept: Instance, leased: int | None, waiting: int = 0
    ) -> str | None:
        load = None if leased is None else Load(waiting, leased)
        snapshot = self.observe(now, load, *kept, has_wake_request=False)
        found = self.autoscaler.pick_surplus(self.wanted, kept, snapshot, Plan())
        return None if found is None else found.instance_id


def test_a_wake_request_starts_an_instance_without_a_reading_of_the_queue() -> None:
    spec = gpu_spec("s1", 0, 4)
    queue = Queue(deployment(spec))
    assert queue.plan(0) == Plan([], load_every_s=CALM_S)
    assert queue.plan(1, has_wake_request=True).actions == [Create(spec)]
    assert queue.plan(2, instance(), has_wake_request=True).actions == []


def test_a_version_with_instances_gets_more_only_if_its_queue_stays_non_empty() -> None:
    spec = gpu_spec("s1", 1, 4)
    queue = Queue(deployment(spec))
    busy = running(busy=1)
    assert queue.plan(0, busy, waiting=2) == Plan([], load_every_s=URGENT_S)
    assert queue.plan(0.5, busy, waiting=0) == Plan([], load_every_s=CALM_S)
    assert queue.plan(0.9, busy, waiting=2).actions == []
    assert queue.plan(1.8, busy, waiting=2).actions == []
    assert queue.plan(2.0, busy, waiting=2).actions == [Create(spec), Create(spec)]


def test_enough_instances_for_all_waiting_requests_are_started_up_to_the_maximum() -> None:
    first, second = gpu_spec("s1", 0, 2, concurrency=4), gpu_spec("s2", 0, 2, concurrency=1)
    queue = Queue(deployment(first, second))
    assert queue.plan(0, waiting=4).actions == [Create(first)]
    assert queue.plan(0, waiting=9).actions == [Create(first), Create(first), Create(second)]
    assert queue.plan(0, waiting=99).actions == [Create(first)] * 2 + [Create(second)] * 2
    full = [running("a", "s1"), running("b", "s1"), running("c", "s2"), running("d", "s2")]
    assert queue.plan(9, *full, waiting=99) == Plan([])


def test_starting_instances_count_as_capacity() -> None:
    spec = gpu_spec("s1", 1, 9, concurrency=2)
    queue = Queue(deployment(spec))
    kept = [running("a"), instance("b"), instance("c")]
    queue.plan(0, *kept, waiting=4)
    assert queue.plan(5, *kept, waiting=4).actions == []
    assert queue.plan(5, *kept, waiting=5).actions == [Create(spec)]
    asked_for = Plan([Create(spec)])
    assert queue.plan(6, *kept, waiting=5, plan=asked_for).actions == [Create(spec)]


def test_an_instance_that_was_not_needed_for_the_idle_time_is_surplus() -> None:
    queue = Queue(deployment(gpu_spec("s1", 0, 4, concurrency=2)))
    three = [running("a"), running("b"), running("c")]
    assert queue.surplus(0, *three, leased=0) is None
    assert queue.surplus(50, *three, leased=3) is None
    assert queue.surplus(100, *three, leased=0) == "c"
    # A window ends, and the next begins: the last peak is still remembered.
    assert queue.surplus(150, *three[:2], leased=0) is None
    assert queue.surplus(200, *three[:2], leased=2) == "b"
    # The last one is never surplus: reading the queue misses short requests.
    assert queue.surplus(300, *three[:1], leased=0) is None


def test_neither_busy_instances_nor_those_of_the_minimum_are_surplus() -> None:
    queue = Queue(deployment(gpu_spec("s1", 1, 4), gpu_spec("s2", 2, 4)))
    kept = [running("a", "s1"), running("b", "s2"), running("c", "s2"), running("d", "s1")]
    for now in range(0, 300, 10):
        queue.surplus(now, *kept, leased=1)
    assert queue.surplus(300, *kept, leased=1) == "d"
    kept[3] = running("d", "s1", busy=1)
    assert queue.surplus(301, *kept, leased=1) == "a"
    kept[0] = running("a", "s1", busy=1)
    assert queue.surplus(301, *kept, leased=1) is None


def test_a_period_without_readings_counts_as_unknown_load() -> None:
    queue = Queue(deployment(gpu_spec("s1", 0, 4)))
    two = [running("a"), running("b")]
    queue.surplus(0, *two, leased=0)
    assert queue.surplus(100, *two, leased=0) == "b"
    assert queue.surplus(150, *two, leased=None) is None
    assert queue.surplus(199, *two, leased=0) == "b"
    assert queue.surplus(500, *two, leased=0) is None


def test_windows_shorter_than_the_reading_interval_still_count() -> None:
    queue = Queue(deployment(gpu_spec("s1", 0, 4)))
    queue.idle_s = CALM_S / 2
    two = [running("a"), running("b")]
    assert queue.surplus(0, *two, leased=0) is None
    assert queue.surplus(CALM_S, *two, leased=0) == "b"


def test_an_instance_that_has_just_become_ready_gets_time_to_take_its_share() -> None:
    spec = gpu_spec("s1", 1, 9, concurrency=2)
    queue = Queue(deployment(spec))
    busy = running("a", busy=2, slots=2)
    queue.plan(0, busy, waiting=2)
    assert queue.plan(1, busy, waiting=2).actions == [Create(spec)]
    assert queue.plan(5, busy, instance("b"), waiting=2).actions == []
    up = running("b", slots=2)
    assert queue.plan(5.25, busy, up, waiting=2).actions == []
    assert queue.plan(6, busy, up, waiting=2).actions == []
    # That time is over, and requests still wait.
    assert queue.plan(6.25, busy, up, waiting=2).actions == [Create(spec)]


def test_nothing_is_surplus_while_requests_wait_or_workers_have_yet_to_take_more() -> None:
    spec = gpu_spec("s1", 1, 4, concurrency=8)
    queue = Queue(deployment(spec))
    two = [running("a", slots=1, busy=1), running("b", slots=1)]
    for now in range(0, 300, 10):
        assert queue.surplus(now, *two, leased=2) is None
    two = [running("a", slots=8, busy=1), running("b", slots=8)]
    assert queue.surplus(300, *two, leased=2, waiting=1) is None
    assert queue.surplus(301, *two, leased=2) == "b"


def test_requests_that_a_lost_worker_had_leased_count_as_waiting() -> None:
    spec = gpu_spec("s1", 0, 4)
    queue = Queue(deployment(spec))
    assert queue.plan(0, leased=1).actions == [Create(spec)]
    assert queue.plan(1, leased=1, waiting=1).actions == [Create(spec)] * 2
    assert queue.plan(2, leased=1, is_stopping=True).actions == []
