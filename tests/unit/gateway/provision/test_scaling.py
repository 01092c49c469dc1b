"""Requests that wait in, further instances out."""

from gateway.functions.model import Deployment, Instance, State
from gateway.provision.actions import Create, Load, Plan, Situation
from gateway.provision.scaling import CALM_S, URGENT_S, Demand
from tests.support.deployments import deployment, gpu_spec, instance, running

AFTER_S = 1.0
IDLE_S = 100.0


class Queue:
    """One version's queue under a `Demand`."""

    def __init__(self, wanted: Deployment) -> None:
        self.demand = Demand()
        self.wanted = wanted

    def sees(self, now: float, load: Load | None, *kept: Instance, is_wanted: bool) -> Situation:
        there = Situation(now, State.ACTIVE, self.wanted, kept, {}, load=load, is_wanted=is_wanted)
        self.demand.see(there, IDLE_S)
        return there

    def look(
        self,
        now: float,
        *kept: Instance,
        waiting: int | None = None,
        is_wanted: bool = False,
        plan: Plan | None = None,
    ) -> Plan:
        load = None if waiting is None else Load(waiting, 0)
        there = self.sees(now, load, *kept, is_wanted=is_wanted)
        plan = plan or Plan()
        self.demand.grow(self.wanted, kept, there, plan, AFTER_S)
        return plan

    def surplus(self, now: float, *kept: Instance, leased: int | None) -> str | None:
        load = None if leased is None else Load(0, leased)
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
    assert queue.surplus(199, *two, leased=None) == "b"
    assert queue.surplus(500, *two, leased=0) is None
