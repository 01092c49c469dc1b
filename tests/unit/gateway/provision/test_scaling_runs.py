"""Simulated versions under any load, with instances that start, fail and stop: never too many,
never too few, no action planned twice, and no oscillation while the load is constant."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, note, settings
from hypothesis import strategies as st

from gateway.domain.model import Deployment, Instance, VersionState
from gateway.domain.states import is_running
from gateway.provision.actions import (
    Action,
    Create,
    Forget,
    Load,
    Restart,
    SetPhase,
    Snapshot,
    Stop,
)
from gateway.provision.backend import InstanceStatus, RunState
from gateway.provision.planner import Planner, Policy
from tests.support.deployments import deployment, gpu_spec, instance

IDLE_S = 20.0
POLICY = Policy(restart_first_s=1, restart_most_s=8, unresponsive_s=30, idle_s=IDLE_S)
STEP_S = 0.25
MAX_PLANS = 50
"""More plans than this in a row are an endless loop."""


class World:
    """One version whose backend executes every action at once; only starting takes time."""

    def __init__(self, wanted: Deployment, comes_up_s: float) -> None:
        self.planner = Planner(POLICY)
        self.wanted = wanted
        self.comes_up_s = comes_up_s
        self.now = 1000.0
        self.total = 0
        self.instances: dict[str, Instance] = {}
        self.since: dict[str, float] = {}
        self.down: set[str] = set()
        self.orphans = 0
        self.loaded_at = -1000.0
        self.load_every_s: float | None = None
        self.log: list[tuple[float, str, str]] = []
        self.made = 0

    @property
    def running(self) -> list[Instance]:
        return [one for one in self.instances.values() if is_running(one, self.now)]

    def load(self) -> Load:
        leased = min(self.total, self.capacity())
        return Load(self.total - leased, leased)

    def capacity(self) -> int:
        return sum(one.slots for one in self.running)

    def run(self, for_s: float) -> None:
        end = self.now + for_s
        while self.now < end:
            self.now += STEP_S
            self._advance()
            self.settle()

    def settle(self) -> None:
        for _ in range(MAX_PLANS):
            if not self._plan():
                return
        raise AssertionError("does not settle")

    def fail(self, index: int) -> None:
        """End one of the instances, as a failure."""
        ids = sorted(self.instances)
        if ids:
            self._end(ids[index % len(ids)])

    def change(self, wanted: Deployment) -> None:
        self.wanted = wanted
        self.settle()

    def _end(self, instance_id: str) -> None:
        self.down.add(instance_id)
        self.since[instance_id] = self.now
        self.instances[instance_id] = replace(
            self.instances[instance_id], is_connected=False, is_healthy=False, busy=0, slots=0
        )

    def _advance(self) -> None:
        """Let instances become ready when their time has come, and share the requests evenly."""
        concurrency = {spec.spec_id: spec.concurrency for spec in self.wanted.specs}
        for instance_id, one in self.instances.items():
            is_due = self.now - self.since[instance_id] >= self.comes_up_s
            if instance_id not in self.down and is_due:
                self.instances[instance_id] = replace(
                    one,
                    is_connected=True,
                    is_healthy=True,
                    slots=concurrency[one.spec_id],
                    lease_until=10**9,
                )
        left, busy = self.load().leased, Counter[str]()
        while left:
            for one in self.running:
                if left and busy[one.instance_id] < one.slots:
                    busy[one.instance_id] += 1
                    left -= 1
        for instance_id, one in self.instances.items():
            self.instances[instance_id] = replace(one, busy=busy[instance_id])

    def _plan(self) -> bool:
        """Plan once and execute the actions; return whether there were any."""
        statuses = {
            instance_id: InstanceStatus(
                instance_id,
                RunState.DOWN if instance_id in self.down else RunState.UP,
                self.since[instance_id],
            )
            for instance_id in self.instances
        }
        snapshot = Snapshot(
            self.now, VersionState.ACTIVE, self.wanted, list(self.instances.values()), statuses
        )
        plan = self.planner.plan(snapshot)
        every_s = plan.load_every_s
        if every_s is not None and self.now - self.loaded_at >= every_s:
            self.loaded_at = self.now
            plan = self.planner.plan(replace(snapshot, load=self.load()))
        self.check(plan.actions)
        for action in plan.actions:
            self._do(action)
            self.planner.mark_done(action)
        return bool(plan.actions)

    def _do(self, action: Action) -> None:
        match action:
            case Create(spec):
                self.made += 1
                name = f"i{self.made:05}"
                self.instances[name] = instance(name, spec.spec_id, created_at=name)
                self.since[name] = self.now
                self.log.append((self.now, "create", spec.spec_id))
            case Restart(one):
                self.down.discard(one.instance_id)
                self.since[one.instance_id] = self.now
            case SetPhase(one, phase, error, is_gone):
                stored = self.instances[one.instance_id]
                until = 0 if is_gone else stored.lease_until
                self.instances[one.instance_id] = replace(
                    stored, phase=phase, error=error, lease_until=until
                )
            case Stop(instance_id, _):
                self.log.append((self.now, "stop", self.instances[instance_id].spec_id))
                del self.instances[instance_id]
                self.down.discard(instance_id)
            case Forget():
                raise AssertionError("every instance belongs to this backend")

    def check(self, actions: list[Action]) -> None:
        """Assert what holds for every plan."""
        before = Counter(one.spec_id for one in self.instances.values())
        made = Counter(one.spec.spec_id for one in actions if isinstance(one, Create))
        gone = Counter(
            self.instances[one.instance_id].spec_id for one in actions if isinstance(one, Stop)
        )
        serving = Counter(one.spec_id for one in self.instances.values() if one in self.running)
        for spec in self.wanted.specs:
            id_ = spec.spec_id
            assert not (made[id_] and gone[id_]), "created and stopped by one plan"
            if made[id_]:
                assert before[id_] + made[id_] <= spec.max_instances
            if gone[id_]:
                assert before[id_] - gone[id_] >= spec.min_instances
        coming = sum(
            (before[spec.spec_id] - serving[spec.spec_id]) * spec.concurrency
            for spec in self.wanted.specs
        )
        short = max(self.load().waiting - coming, 0)
        for spec in self.wanted.specs:
            least = max(spec.min_instances - before[spec.spec_id], 0)
            wanted = least or -(-short // spec.concurrency)
            assert made[spec.spec_id] <= wanted, "created although enough are starting"


@st.composite
def deployments(draw: st.DrawFn) -> Deployment:
    specs = []
    for index in range(draw(st.integers(1, 2))):
        least = draw(st.integers(0, 2))
        specs.append(
            gpu_spec(
                f"s{index}",
                least,
                least + draw(st.integers(0 if least else 1, 3)),
                concurrency=draw(st.integers(1, 3)),
            )
        )
    return deployment(*specs)


EVENTS = st.one_of(
    st.tuples(st.just("load"), st.integers(0, 12)),
    st.tuples(st.just("fail"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.integers(1, 100)),
    st.tuples(st.just("most"), st.integers(0, 3)),
    st.tuples(st.just("slots"), st.integers(1, 4)),
)


def play(world: World, events: list[tuple[str, int]]) -> None:
    for kind, value in events:
        match kind:
            case "load":
                world.total = value
            case "fail":
                world.fail(value)
            case "most":
                first, *rest = world.wanted.specs
                least = min(first.min_instances, value)
                first = replace(first, min_instances=least, max_instances=max(value, 1))
                world.change(replace(world.wanted, specs=(first, *rest)))
            case "slots":
                first, *rest = world.wanted.specs
                first = replace(first, concurrency=value)
                world.change(replace(world.wanted, specs=(first, *rest)))
            case _:
                world.run(value * STEP_S)
        world.run(STEP_S)


@settings(max_examples=60, deadline=None)
@given(
    wanted=deployments(),
    comes_up_s=st.sampled_from([0.0, 0.5, 3.0, 40.0]),
    events=st.lists(EVENTS, max_size=12),
    load=st.integers(0, 12),
)
def test_a_constant_load_gets_the_capacity_it_needs_without_oscillation(
    wanted: Deployment, comes_up_s: float, events: list[tuple[str, int]], load: int
) -> None:
    note(f"{wanted.specs} {comes_up_s} {events} {load}")
    world = World(wanted, comes_up_s)
    world.settle()
    play(world, events)
    world.total = load
    world.log.clear()
    world.run(4 * IDLE_S + 2 * comes_up_s + 20)
    stops = [at for at, what, _ in world.log if what == "stop"]
    creates = [at for at, what, _ in world.log if what == "create"]
    assert not (stops and creates and max(creates) > min(stops)), world.log
    room = sum(spec.max_instances * spec.concurrency for spec in world.wanted.specs)
    assert world.capacity() >= min(load, room), "requests are left waiting"
    # Settled: nothing more happens while the load is constant.
    world.log.clear()
    world.run(3 * IDLE_S)
    assert world.log == []
