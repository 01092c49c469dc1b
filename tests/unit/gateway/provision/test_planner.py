"""Wanted and actual instances in, actions out: no process, no clock, no store."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.model import Deployment, Instance, Phase, State
from gateway.provision.actions import (
    Break,
    Create,
    EndQueue,
    Finish,
    Forget,
    Load,
    Note,
    Plan,
    Restart,
    Situation,
    Stop,
)
from gateway.provision.backend import Holding, Life
from gateway.provision.planner import (
    CANNOT_SERVE,
    DRAIN_S,
    NOT_HEARD_OF,
    Policy,
    Upkeep,
    restart_delay_s,
)
from gateway.provision.scaling import CALM_S
from tests.support.deployments import deployment, gpu_spec, instance, running

POLICY = Policy(
    restart_first_s=1,
    restart_most_s=8,
    steady_s=60,
    max_failed_starts=3,
    unresponsive_s=20,
    idle_s=100,
    stop_grace_s=30,
    drain_settle_s=2,
)


class Version:
    """One version under an `Upkeep`; what is looked at can be changed between looks."""

    def __init__(self, wanted: Deployment | None, state: State = State.ACTIVE) -> None:
        self.upkeep = Upkeep(POLICY)
        self.wanted = wanted
        self.state = state
        self.instances: list[Instance] = []
        self.holdings: dict[str, Holding] = {}
        self.has_queue = False
        self.gone: set[str] = set()

    def holds(
        self, one: Instance, life: Life = Life.UP, since: float = 0, reason: str = ""
    ) -> None:
        self.instances = [other for other in self.instances if other.instance_id != one.instance_id]
        self.instances.append(one)
        self.holdings[one.instance_id] = Holding(one.instance_id, life, since, reason)

    def loses(self, instance_id: str) -> None:
        self.instances = [one for one in self.instances if one.instance_id != instance_id]
        self.holdings.pop(instance_id, None)

    def look(self, now: float, load: Load | None = None) -> Plan:
        there = Situation(
            now=now,
            state=self.state,
            deployment=self.wanted,
            instances=self.instances,
            holdings=self.holdings,
            load=load,
            has_queue=self.has_queue,
            gone=self.gone,
        )
        plan = self.upkeep.look(there)
        for action in plan.actions:
            self.upkeep.done(action)
        return plan

    def actions(self, now: float, load: Load | None = None) -> Sequence[object]:
        return self.look(now, load).actions


def test_the_minimum_of_every_specification_is_started() -> None:
    first, second = gpu_spec("s1", 2, 4), gpu_spec("s2", 1, 1)
    version = Version(deployment(first, second), State.DEPLOYING)
    assert version.actions(0) == [Create(first), Create(first), Create(second)]
    version.holds(instance("a", "s1"))
    version.holds(instance("b", "s2"))
    assert version.actions(0) == [Create(first)]


def test_an_instance_that_ends_is_started_again_later_each_time_and_at_last_fails() -> None:
    version = Version(deployment(), State.DEPLOYING)
    one = instance()
    delays = []
    for turn in range(POLICY.max_failed_starts - 1):
        now, reason = 20.0 * turn, f"failure {turn}"
        version.holds(one, Life.DOWN, now, reason)
        plan = version.look(now)
        assert plan.actions == [Note(one, Phase.STARTING, reason, is_gone=True)]
        assert plan.look_at is not None
        delays.append(plan.look_at - now)
        one = instance(error=reason)
        version.holds(one, Life.DOWN, now, reason)
        assert version.actions(plan.look_at) == [Restart(one)]
    assert delays == [1, 2]
    version.holds(one, Life.DOWN, 40, "the last")
    assert version.actions(40) == [Note(one, Phase.FAILED, "the last", is_gone=True)]
    version.holds(instance(error="the last", phase=Phase.FAILED), Life.DOWN, 40, "the last")
    assert version.look(1000) == Plan([])


def test_the_delay_doubles_up_to_its_bound() -> None:
    assert [restart_delay_s(POLICY, failures) for failures in (1, 2, 3, 4, 5, 500)] == [
        1, 2, 4, 8, 8, 8,
    ]  # fmt: skip


def test_once_up_a_version_never_gives_up_and_a_steady_run_forgives() -> None:
    version = Version(deployment())
    version.holds(running())
    version.actions(0)
    plan = Plan()
    now = 100.0
    for _ in range(10):
        version.holds(instance(error="x"), Life.DOWN, now, "x")
        plan = version.look(now)
        assert plan.look_at is not None
        now = plan.look_at
        assert Restart(instance(error="x")) in version.actions(now)
        version.holds(running(), Life.UP, now)
        version.actions(now)
    assert plan.look_at == now
    version.holds(running(), Life.UP, now)
    version.actions(now)
    version.holds(instance(error="x"), Life.DOWN, now + POLICY.steady_s, "x")
    plan = version.look(now + POLICY.steady_s)
    assert plan.look_at == now + POLICY.steady_s + POLICY.restart_first_s


def test_the_process_being_gone_is_noted_before_its_lease_ends() -> None:
    version = Version(deployment())
    version.holds(running(), Life.DOWN, 5, "killed")
    assert version.actions(5) == [Note(running(), Phase.STARTING, "killed", is_gone=True)]


def test_an_instance_is_running_from_when_its_worker_says_so() -> None:
    version = Version(deployment(), State.DEPLOYING)
    version.holds(instance())
    assert version.actions(0) == []
    up = running(phase=Phase.STARTING, error="the time before")
    version.holds(up)
    plan = version.look(1)
    assert plan.actions == [Note(up, Phase.RUNNING, "")]
    assert plan.look_at == up.lease_until


def test_one_that_ran_and_is_silent_or_ill_too_long_is_ended() -> None:
    version = Version(deployment())
    version.holds(running())
    version.look(0)
    ill = running(is_healthy=False)
    version.holds(ill)
    assert version.look(10) == Plan([Note(ill, Phase.STARTING, CANNOT_SERVE)], look_at=30)
    version.holds(replace(ill, phase=Phase.STARTING, error=CANNOT_SERVE))
    assert version.look(11) == Plan([], look_at=30)
    assert version.actions(30) == [Break("i1", "unhealthy for 20 s")]


def test_one_that_ran_and_does_not_now_is_no_longer_called_running_and_it_says_why() -> None:
    version = Version(deployment())
    version.holds(running(lease_until=50))
    version.look(0)
    # Nobody has written that it is not connected: its lease just ended.
    assert version.actions(50) == [Note(running(lease_until=50), Phase.STARTING, NOT_HEARD_OF)]
    lost = instance(error=NOT_HEARD_OF)
    version.holds(lost)
    assert version.actions(51) == []
    ill = replace(lost, is_connected=True, lease_until=100)
    version.holds(ill)
    assert version.actions(52) == [Note(ill, Phase.STARTING, CANNOT_SERVE)]
    back = running(phase=Phase.STARTING, error=CANNOT_SERVE)
    version.holds(back)
    assert version.actions(53) == [Note(back, Phase.RUNNING, "")]


def test_instances_above_the_maximum_are_stopped_those_that_serve_last() -> None:
    spec = gpu_spec("s1", 1, 2)
    version = Version(deployment(spec))
    version.holds(running("old", created_at="1"))
    version.holds(running("busy", created_at="2", busy=1))
    version.holds(running("new", created_at="3"))
    version.holds(instance("starting", created_at="0"))
    assert version.actions(0) == [Stop("starting", 30), Stop("new", 30)]


def test_scaled_to_zero_the_queue_is_watched_and_instances_started_for_who_waits() -> None:
    spec = gpu_spec("s1", 0, 3)
    version = Version(deployment(spec))
    assert version.look(0) == Plan([], load_every_s=CALM_S)
    assert version.look(1, Load(0, 0)) == Plan([], load_every_s=CALM_S)
    assert version.actions(2, Load(2, 0)) == [Create(spec), Create(spec)]


def test_an_idle_instance_above_the_minimum_is_stopped_and_a_busy_one_is_not() -> None:
    version = Version(deployment(gpu_spec("s1", 0, 1)))
    version.holds(running())
    assert version.look(0) == Plan([], look_at=100)
    version.holds(running(busy=1))
    version.look(90)
    version.holds(running())
    assert version.look(150) == Plan([], look_at=190)
    assert version.actions(190, Load(0, 0)) == [Stop("i1", 30)]


def test_nothing_idle_goes_while_requests_wait_or_when_nobody_knows_whether_any_do() -> None:
    version = Version(deployment(gpu_spec("s1", 0, 1)))
    version.holds(running())
    version.look(0)
    assert version.look(100) == Plan([], look_at=2_000_000, load_every_s=CALM_S)
    assert version.actions(100, Load(1, 0)) == []
    assert version.actions(101, Load(0, 0)) == [Stop("i1", 30)]


def test_when_the_maximum_is_lowered_the_idle_that_are_left_still_make_the_minimum() -> None:
    version = Version(deployment(gpu_spec("s1", 1, 5)))
    ids = ["a", "b", "c", "d", "e"]
    for name in ids:
        version.holds(running(name, created_at=name))
    version.look(0, Load(1, 0))
    version.wanted = deployment(gpu_spec("s1", 1, 2))
    stopped = version.actions(POLICY.idle_s, Load(0, 0))
    assert stopped == [Stop(name, 30) for name in reversed(ids[1:])]


def test_an_instance_that_took_long_to_come_up_is_not_idle_when_it_has() -> None:
    version = Version(deployment(gpu_spec("s1", 0, 1)))
    version.holds(instance())
    version.look(0)
    version.holds(running())
    assert version.look(500) == Plan([], look_at=600)


def test_an_instance_of_a_dead_leader_counts_until_its_lease_ends() -> None:
    spec = gpu_spec()
    version = Version(deployment(spec))
    foreign = running(lease_until=50)
    version.instances = [foreign]
    assert version.look(0) == Plan([], look_at=50)
    assert version.actions(50) == [Forget(foreign), Create(spec)]


def test_an_instance_of_a_dead_leader_that_is_known_to_be_gone_is_replaced_at_once() -> None:
    spec = gpu_spec("s1", 2, 2)
    version = Version(deployment(spec))
    gone, elsewhere = running("gone", lease_until=50), running("elsewhere", lease_until=50)
    version.instances = [gone, elsewhere]
    version.gone = {"gone", "somebody else's"}
    assert version.look(0) == Plan([Forget(gone), Create(spec)], look_at=50)
    version.instances = [elsewhere, instance("new")]
    version.holds(instance("new"))
    # Whoever is held here runs, whatever was said of it.
    version.gone = {"new"}
    assert version.look(1) == Plan([], look_at=50)


def test_an_error_stops_everything_and_waits_for_the_undeploy() -> None:
    version = Version(deployment(), State.ERROR)
    version.holds(instance())
    assert version.actions(0) == [Stop("i1", 30)]
    version.loses("i1")
    assert version.look(1) == Plan([])


def test_instances_of_an_earlier_deployment_are_replaced() -> None:
    spec = gpu_spec()
    version = Version(deployment(spec, deployment_id="d2"))
    version.holds(running(deployment_id="d1"))
    assert version.actions(0) == [Stop("i1", 30), Create(spec)]


def test_a_graceful_undeploy_ends_when_the_queue_stays_empty() -> None:
    wanted = deployment(draining_until=1000)
    version = Version(wanted, State.INACTIVE)
    version.holds(running())
    plan = version.look(0, Load(3, 1))
    assert (plan.actions, plan.load_every_s) == ([], DRAIN_S)
    assert version.actions(1, Load(0, 1)) == []
    assert version.actions(9, Load(0, 1)) == []
    assert version.actions(10, Load(0, 0)) == []
    assert version.actions(11, Load(1, 0)) == []
    assert version.actions(12, Load(0, 0)) == []
    assert version.actions(14, Load(0, 0)) == [Stop("i1", 30)]
    version.holds(running(phase=Phase.STOPPING), Life.STOPPING)
    assert version.actions(15) == []
    del version.holdings["i1"]
    assert version.actions(16) == [Forget(running(phase=Phase.STOPPING))]
    version.loses("i1")
    assert version.actions(16) == [Finish(wanted)]


def test_a_queue_that_cannot_be_read_is_not_an_empty_one() -> None:
    version = Version(deployment(draining_until=1000), State.INACTIVE)
    version.holds(running())
    for now in range(0, 900, 10):
        assert version.actions(now, None) == []


def test_a_drain_starts_an_instance_when_requests_are_left_and_none_is_there() -> None:
    spec = gpu_spec("s1", 0, 1)
    version = Version(deployment(spec, draining_until=1000), State.INACTIVE)
    assert version.actions(0, Load(1, 0)) == [Create(spec)]


def test_a_drain_serves_again_what_was_leased_by_a_worker_that_is_gone() -> None:
    spec = gpu_spec("s1", 0, 1)
    version = Version(deployment(spec, draining_until=1000), State.INACTIVE)
    version.holds(running("leaving", phase=Phase.STOPPING), Life.STOPPING)
    assert version.actions(0, Load(0, 1)) == []
    version.loses("leaving")
    assert version.actions(1, Load(0, 1)) == [Create(spec)]


def test_a_drain_ends_at_its_deadline_whatever_is_left() -> None:
    version = Version(deployment(draining_until=1000), State.INACTIVE)
    version.holds(running(busy=1))
    assert version.actions(999, Load(5, 1)) == []
    assert version.actions(1000) == [EndQueue(), Stop("i1", 30)]


def test_an_undeploy_without_grace_ends_the_queue_first_and_once() -> None:
    version = Version(deployment())
    version.holds(running())
    version.look(0)
    version.wanted, version.state = None, State.INACTIVE
    assert version.actions(1) == [EndQueue(), Stop("i1", 30)]
    version.holds(running(phase=Phase.STOPPING), Life.STOPPING)
    assert version.actions(2) == []
    version.loses("i1")
    assert version.actions(3) == [Finish(None)]
    assert version.upkeep.is_over


def test_an_action_that_did_not_happen_is_asked_for_again() -> None:
    version = Version(None, State.INACTIVE)
    version.has_queue = True
    there = Situation(0, State.INACTIVE, None, [], {}, has_queue=True)
    for _ in range(3):
        assert version.upkeep.look(there).actions == [EndQueue(), Finish(None)]


LIVES = st.sampled_from([None, *Life])
KINDS = st.sampled_from([instance, running])


@given(
    least=st.integers(0, 3),
    spare=st.integers(0, 2),
    there=st.lists(st.tuples(KINDS, LIVES, st.sampled_from(Phase)), max_size=7),
    state=st.sampled_from(sorted(set(State) - {State.ERROR}, key=str)),
    now=st.integers(0, 3_000_000),
)
def test_never_more_than_the_maximum_and_never_fewer_kept_than_the_minimum(
    least: int,
    spare: int,
    there: list[tuple[type[Instance], Life | None, Phase]],
    state: State,
    now: int,
) -> None:
    spec = gpu_spec("s1", least, least + spare)
    version = Version(deployment(spec), state)
    for index, (make, life, phase) in enumerate(there):
        one = make(f"i{index}", phase=phase)  # type: ignore[call-arg]  # a function that makes one
        version.instances.append(one)
        if life is not None:
            version.holdings[one.instance_id] = Holding(one.instance_id, life, 1.0)
    actions = version.actions(now)
    ended = {action.instance_id for action in actions if isinstance(action, Stop)}
    ended |= {action.instance.instance_id for action in actions if isinstance(action, Forget)}
    stopping = {
        one.instance_id
        for one in version.instances
        if (held := version.holdings.get(one.instance_id)) and held.life is Life.STOPPING
    }
    kept = len({one.instance_id for one in version.instances} - ended - stopping)
    created = sum(isinstance(action, Create) for action in actions)
    foreign = sum(one.instance_id not in version.holdings for one in version.instances)
    assert kept + created >= least
    assert kept + created <= max(spec.max_instances, foreign + created)
