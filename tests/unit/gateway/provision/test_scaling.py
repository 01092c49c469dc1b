"""Requests that wait in, further instances out."""

from dataclasses import replace

from gateway.domain.model import Deployment, Instance, State
from gateway.provision.actions import Create, Load, Plan, Situation
from gateway.provision.backend import Holding, Life
from gateway.provision.scaling import CALM_S, URGENT_S, Demand
from tests.support.deployments import deployment, gpu_spec, instance, running

AFTER_S = 1.0
IDLE_S = 100.0


class Queue:
    """One version's queue under a `Demand`."""

    def __init__(self, wanted: Deployment) -> None:
        self.demand = Demand()
        self.wanted = wanted
        self.idle_s = IDLE_S

    def sees(self, now: float, load: Load | None, *kept: Instance, is_wanted: bool) -> Situation:
        there = Situation(now, State.ACTIVE, self.wanted, kept, {}, load=load, is_wanted=is_wanted)
        self.demand.see(there, self.idle_s)
        return there

    def look(
        self,
        now: float,
        *kept: Instance,
        waiting: int | None = None,
        leased: int = 0,
        is_wanted: bool = False,
        is_stopping: bool = False,
        plan: Plan | None = None,
    ) -> Plan:
        """``is_stopping``: an instance that does not count any more is still there."""
        load = Load(waiting or 0, leased) if leased or waiting is not None else None
        there = self.sees(now, load, *kept, is_wanted=is_wanted)
        if is_stopping:
            there = replace(there, holdings={"x": Holding("x", Life.STOPPING, now)})
        plan = plan or Plan()
        self.demand.grow(self.wanted, kept, there, plan, AFTER_S)
        return plan

    def surplus(
        self, now: float, *kept: Instance, leased: int | None, waiting: int = 0
    ) -> str | None:
        load = None if leased is None else Load(waiting, leased)
        there = self.sees(now, load, *kept, is_wanted=False)
        found = self.demand.surplus(self.wanted, kept, there, Plan())
        return None if found is None else found.instance_id


def test_a_version_that_sleeps_is_woken_by_a_call_without_a_look_at_its_queue() -> None:
    spec = gpu_spec("s1", 0, 4)
    queue = Queue(deployment(spec))
    assert queue.look(0) == Plan([], load_every_s=CALM_S)
    assert queue.look(1, is_wanted=True).actions == [Create(spec)]
    assert queue.look(2, instance(), is_wanted=True).actions == []


def test_where_some_run_only_a_queue_that_stays_full_gets_more() -> None:
    spec = gpu_spec("s1", 1, 4)
    queue = Queue(deployment(spec))
    busy = running(busy=1)
    assert queue.look(0, busy, waiting=2) == Plan([], load_every_s=URGENT_S)
    assert queue.look(0.5, busy, waiting=0) == Plan([], load_every_s=CALM_S)
    assert queue.look(0.9, busy, waiting=2).actions == []
    assert queue.look(1.8, busy, waiting=2).actions == []
    assert queue.look(2.0, busy, waiting=2).actions == [Create(spec), Create(spec)]


def test_there_are_as_many_as_take_all_that_wait_and_never_above_the_maximum() -> None:
    first, second = gpu_spec("s1", 0, 2, concurrency=4), gpu_spec("s2", 0, 2, concurrency=1)
    queue = Queue(deployment(first, second))
    assert queue.look(0, waiting=4).actions == [Create(first)]
    assert queue.look(0, waiting=9).actions == [Create(first), Create(first), Create(second)]
    assert queue.look(0, waiting=99).actions == [Create(first)] * 2 + [Create(second)] * 2
    full = [running("a", "s1"), running("b", "s1"), running("c", "s2"), running("d", "s2")]
    assert queue.look(9, *full, waiting=99) == Plan([])


def test_what_is_about_to_run_is_not_asked_for_again() -> None:
    spec = gpu_spec("s1", 1, 9, concurrency=2)
    queue = Queue(deployment(spec))
    kept = [running("a"), instance("b"), instance("c")]
    queue.look(0, *kept, waiting=4)
    assert queue.look(5, *kept, waiting=4).actions == []
    assert queue.look(5, *kept, waiting=5).actions == [Create(spec)]
    asked_for = Plan([Create(spec)])
    assert queue.look(6, *kept, waiting=5, plan=asked_for).actions == [Create(spec)]


def test_one_that_the_others_did_not_need_for_a_while_is_too_many() -> None:
    queue = Queue(deployment(gpu_spec("s1", 0, 4, concurrency=2)))
    three = [running("a"), running("b"), running("c")]
    assert queue.surplus(0, *three, leased=0) is None
    assert queue.surplus(50, *three, leased=3) is None
    assert queue.surplus(100, *three, leased=0) == "c"
    # A window ends, and the next begins: the last peak is still remembered.
    assert queue.surplus(150, *three[:2], leased=0) is None
    assert queue.surplus(200, *three[:2], leased=2) == "b"
    # The last one is nobody's to give up here: a look may miss short requests.
    assert queue.surplus(300, *three[:1], leased=0) is None


def test_neither_the_busy_nor_those_of_the_minimum_are_too_many() -> None:
    queue = Queue(deployment(gpu_spec("s1", 1, 4), gpu_spec("s2", 2, 4)))
    kept = [running("a", "s1"), running("b", "s2"), running("c", "s2"), running("d", "s1")]
    for now in range(0, 300, 10):
        queue.surplus(now, *kept, leased=1)
    assert queue.surplus(300, *kept, leased=1) == "d"
    kept[3] = running("d", "s1", busy=1)
    assert queue.surplus(301, *kept, leased=1) == "a"
    kept[0] = running("a", "s1", busy=1)
    assert queue.surplus(301, *kept, leased=1) is None


def test_of_a_time_in_which_nobody_looked_nothing_is_known() -> None:
    queue = Queue(deployment(gpu_spec("s1", 0, 4)))
    two = [running("a"), running("b")]
    queue.surplus(0, *two, leased=0)
    assert queue.surplus(100, *two, leased=0) == "b"
    assert queue.surplus(150, *two, leased=None) is None
    assert queue.surplus(199, *two, leased=0) == "b"
    assert queue.surplus(500, *two, leased=0) is None


def test_short_windows_are_seen_whole_although_looks_are_rarer() -> None:
    queue = Queue(deployment(gpu_spec("s1", 0, 4)))
    queue.idle_s = CALM_S / 2
    two = [running("a"), running("b")]
    assert queue.surplus(0, *two, leased=0) is None
    assert queue.surplus(CALM_S, *two, leased=0) == "b"


def test_what_has_just_begun_to_run_is_given_time_to_take_its_share() -> None:
    spec = gpu_spec("s1", 1, 9, concurrency=2)
    queue = Queue(deployment(spec))
    busy = running("a", busy=2, slots=2)
    queue.look(0, busy, waiting=2)
    assert queue.look(1, busy, waiting=2).actions == [Create(spec)]
    assert queue.look(5, busy, instance("b"), waiting=2).actions == []
    up = running("b", slots=2)
    assert queue.look(5.25, busy, up, waiting=2).actions == []
    assert queue.look(6, busy, up, waiting=2).actions == []
    # It had its time, and they still wait.
    assert queue.look(6.25, busy, up, waiting=2).actions == [Create(spec)]


def test_nothing_is_too_many_while_requests_wait_or_workers_have_yet_to_take_more() -> None:
    spec = gpu_spec("s1", 1, 4, concurrency=8)
    queue = Queue(deployment(spec))
    two = [running("a", slots=1, busy=1), running("b", slots=1)]
    for now in range(0, 300, 10):
        assert queue.surplus(now, *two, leased=2) is None
    two = [running("a", slots=8, busy=1), running("b", slots=8)]
    assert queue.surplus(300, *two, leased=2, waiting=1) is None
    assert queue.surplus(301, *two, leased=2) == "b"


def test_what_was_leased_by_a_worker_that_is_gone_waits_as_well() -> None:
    spec = gpu_spec("s1", 0, 4)
    queue = Queue(deployment(spec))
    assert queue.look(0, leased=1).actions == [Create(spec)]
    assert queue.look(1, leased=1, waiting=1).actions == [Create(spec)] * 2
    assert queue.look(2, leased=1, is_stopping=True).actions == []
