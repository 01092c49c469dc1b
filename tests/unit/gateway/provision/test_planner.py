"""The planner as a conversation: a snapshot in, actions out, without process, clock or store."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.model import Deployment, Instance, Phase, VersionState
from gateway.provision.actions import (
    Create,
    EndQueue,
    Fail,
    Finish,
    Forget,
    Load,
    Plan,
    Restart,
    SetPhase,
    Snapshot,
    Stop,
)
from gateway.provision.backend import InstanceStatus, RunState
from gateway.provision.planner import (
    CANNOT_SERVE,
    DRAIN_S,
    NOT_HEARD_OF,
    ORPHAN_S,
    Planner,
    Policy,
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
    """One version and its `Planner`; the snapshot can be changed between plans."""

    def __init__(
        self, wanted: Deployment | None, state: VersionState = VersionState.ACTIVE
    ) -> None:
        self.planner = Planner(POLICY)
        self.wanted = wanted
        self.state = state
        self.instances: list[Instance] = []
        self.statuses: dict[str, InstanceStatus] = {}
        self.has_queue = False

    def holds(
        self, instance: Instance, state: RunState = RunState.UP, since: float = 0, reason: str = ""
    ) -> None:
        instance_id = instance.instance_id
        self.instances = [other for other in self.instances if other.instance_id != instance_id]
        self.instances.append(instance)
        self.statuses[instance_id] = InstanceStatus(instance_id, state, since, reason)

    def loses(self, instance_id: str) -> None:
        self.instances = [other for other in self.instances if other.instance_id != instance_id]
        self.statuses.pop(instance_id, None)

    def plan(self, now: float, load: Load | None = None) -> Plan:
        snapshot = Snapshot(
            now=now,
            state=self.state,
            deployment=self.wanted,
            instances=self.instances,
            statuses=self.statuses,
            load=load,
            has_queue=self.has_queue,
        )
        plan = self.planner.plan(snapshot)
        for action in plan.actions:
            self.planner.mark_done(action)
        return plan

    def actions(self, now: float, load: Load | None = None) -> Sequence[object]:
        return self.plan(now, load).actions


def test_the_minimum_of_every_specification_is_started() -> None:
    first, second = gpu_spec("s1", 2, 4), gpu_spec("s2", 1, 1)
    version = Version(deployment(first, second), VersionState.DEPLOYING)
    assert version.actions(0) == [Create(first), Create(first), Create(second)]
    version.holds(instance("a", "s1"))
    version.holds(instance("b", "s2"))
    assert version.actions(0) == [Create(first)]


def test_an_instance_that_ends_is_restarted_after_a_growing_delay_and_finally_fails() -> None:
    version = Version(deployment(), VersionState.DEPLOYING)
    one = instance()
    delays = []
    for turn in range(POLICY.max_failed_starts - 1):
        now, reason = 20.0 * turn, f"failure {turn}"
        version.holds(one, RunState.DOWN, now, reason)
        plan = version.plan(now)
        assert plan.actions == [SetPhase(one, Phase.STARTING, reason, is_gone=True)]
        assert plan.next_at is not None
        delays.append(plan.next_at - now)
        one = instance(error=reason)
        version.holds(one, RunState.DOWN, now, reason)
        assert version.actions(plan.next_at) == [Restart(one)]
    assert delays == [1, 2]
    version.holds(one, RunState.DOWN, 40, "the last")
    assert version.actions(40) == [SetPhase(one, Phase.FAILED, "the last", is_gone=True)]
    version.holds(instance(error="the last", phase=Phase.FAILED), RunState.DOWN, 40, "the last")
    assert version.plan(1000) == Plan([])


def test_the_delay_doubles_up_to_its_bound() -> None:
    assert [restart_delay_s(POLICY, failures) for failures in (1, 2, 3, 4, 5, 500)] == [
        1, 2, 4, 8, 8, 8,
    ]  # fmt: skip


def test_a_version_that_was_up_never_gives_up_and_a_steady_run_resets_the_delay() -> None:
    version = Version(deployment())
    version.holds(running())
    version.actions(0)
    plan = Plan()
    now = 100.0
    for _ in range(10):
        version.holds(instance(error="x"), RunState.DOWN, now, "x")
        plan = version.plan(now)
        assert plan.next_at is not None
        now = plan.next_at
        assert Restart(instance(error="x")) in version.actions(now)
        version.holds(running(), RunState.UP, now)
        version.actions(now)
    assert plan.next_at == now
    version.holds(running(), RunState.UP, now)
    version.actions(now)
    version.holds(instance(error="x"), RunState.DOWN, now + POLICY.steady_s, "x")
    plan = version.plan(now + POLICY.steady_s)
    assert plan.next_at == now + POLICY.steady_s + POLICY.restart_first_s


def test_an_ended_instance_is_stored_as_gone_before_its_lease_expires() -> None:
    version = Version(deployment())
    version.holds(running(), RunState.DOWN, 5, "killed")
    assert version.actions(5) == [SetPhase(running(), Phase.STARTING, "killed", is_gone=True)]


def test_an_instance_is_running_as_soon_as_its_worker_reports_it() -> None:
    version = Version(deployment(), VersionState.DEPLOYING)
    version.holds(instance())
    assert version.actions(0) == []
    up = running(phase=Phase.STARTING, error="the time before")
    version.holds(up)
    plan = version.plan(1)
    assert plan.actions == [SetPhase(up, Phase.RUNNING, "")]
    assert plan.next_at == up.lease_until


def test_an_instance_that_ran_and_is_unhealthy_for_too_long_is_ended() -> None:
    version = Version(deployment())
    version.holds(running())
    version.plan(0)
    unhealthy = running(is_healthy=False)
    version.holds(unhealthy)
    assert version.plan(10) == Plan([SetPhase(unhealthy, Phase.STARTING, CANNOT_SERVE)], next_at=30)
    version.holds(replace(unhealthy, phase=Phase.STARTING, error=CANNOT_SERVE))
    assert version.plan(11) == Plan([], next_at=30)
    assert version.actions(30) == [Fail("i1", "unhealthy for 20 s")]


def test_an_unhealthy_instance_is_not_ended_while_requests_run_on_it() -> None:
    version = Version(deployment())
    version.holds(running())
    version.plan(0)
    unhealthy = running(is_healthy=False, phase=Phase.STARTING, error=CANNOT_SERVE, busy=1)
    version.holds(unhealthy)
    version.plan(10)
    assert version.plan(30) == Plan([], next_at=unhealthy.lease_until)
    version.holds(replace(unhealthy, busy=0))
    assert version.actions(31) == [Fail("i1", "unhealthy for 20 s")]


def test_an_instance_that_no_longer_serves_is_stored_as_starting_with_the_reason() -> None:
    version = Version(deployment())
    version.holds(running(lease_until=50))
    version.plan(0)
    # No record says that it is disconnected: its lease has just expired.
    assert version.actions(50) == [SetPhase(running(lease_until=50), Phase.STARTING, NOT_HEARD_OF)]
    lost = instance(error=NOT_HEARD_OF)
    version.holds(lost)
    assert version.actions(51) == []
    unhealthy = replace(lost, is_connected=True, lease_until=100)
    version.holds(unhealthy)
    assert version.actions(52) == [SetPhase(unhealthy, Phase.STARTING, CANNOT_SERVE)]
    back = running(phase=Phase.STARTING, error=CANNOT_SERVE)
    version.holds(back)
    assert version.actions(53) == [SetPhase(back, Phase.RUNNING, "")]


def test_instances_above_the_maximum_are_stopped_and_serving_ones_last() -> None:
    spec = gpu_spec("s1", 1, 2)
    version = Version(deployment(spec))
    version.holds(running("old", created_at="1"))
    version.holds(running("busy", created_at="2", busy=1))
    version.holds(running("new", created_at="3"))
    version.holds(instance("starting", created_at="0"))
    assert version.actions(0) == [Stop("starting", 30), Stop("new", 30)]


def test_a_version_scaled_to_zero_starts_instances_for_waiting_requests() -> None:
    spec = gpu_spec("s1", 0, 3)
    version = Version(deployment(spec))
    assert version.plan(0) == Plan([], load_every_s=CALM_S)
    assert version.plan(1, Load(0, 0)) == Plan([], load_every_s=CALM_S)
    assert version.actions(2, Load(2, 0)) == [Create(spec), Create(spec)]


def test_an_idle_instance_above_the_minimum_is_stopped_and_a_busy_one_is_not() -> None:
    version = Version(deployment(gpu_spec("s1", 0, 1)))
    version.holds(running())
    assert version.plan(0) == Plan([], next_at=100)
    version.holds(running(busy=1))
    version.plan(90)
    version.holds(running())
    assert version.plan(150) == Plan([], next_at=190)
    assert version.actions(190, Load(0, 0)) == [Stop("i1", 30)]


def test_no_idle_instance_is_stopped_while_requests_wait_or_the_queue_was_not_read() -> None:
    version = Version(deployment(gpu_spec("s1", 0, 1)))
    version.holds(running())
    version.plan(0)
    assert version.plan(100) == Plan([], next_at=2_000_000, load_every_s=CALM_S)
    assert version.actions(100, Load(1, 0)) == []
    assert version.actions(101, Load(0, 0)) == [Stop("i1", 30)]


def test_when_the_maximum_is_lowered_the_minimum_is_kept_even_if_all_are_idle() -> None:
    version = Version(deployment(gpu_spec("s1", 1, 5)))
    ids = ["a", "b", "c", "d", "e"]
    for name in ids:
        version.holds(running(name, created_at=name))
    version.plan(0, Load(1, 0))
    version.wanted = deployment(gpu_spec("s1", 1, 2))
    stopped = version.actions(POLICY.idle_s, Load(0, 0))
    assert stopped == [Stop(name, 30) for name in reversed(ids[1:])]


def test_an_instance_that_took_long_to_start_is_not_idle_when_it_is_up() -> None:
    version = Version(deployment(gpu_spec("s1", 0, 1)))
    version.holds(instance())
    version.plan(0)
    version.holds(running())
    assert version.plan(500) == Plan([], next_at=600)


def test_an_instance_of_a_dead_leader_counts_until_its_lease_ends() -> None:
    spec = gpu_spec()
    version = Version(deployment(spec))
    foreign = running(lease_until=50)
    version.instances = [foreign]
    assert version.plan(0) == Plan([], next_at=50)
    assert version.actions(50) == [Forget(foreign), Create(spec)]


def test_an_unwanted_instance_out_of_reach_is_told_and_awaited_until_its_lease_ends() -> None:
    version = Version(None, VersionState.INACTIVE)
    version.instances = [running(lease_until=50)]
    assert version.plan(0) == Plan([Stop("i1", 30)], next_at=50)
    told = running(lease_until=50, phase=Phase.STOPPING)
    version.instances = [told]
    assert version.plan(1) == Plan([], next_at=50)
    assert version.actions(50) == [Forget(told)]


def test_an_instance_out_of_reach_that_was_told_to_stop_does_not_count() -> None:
    spec = gpu_spec()
    version = Version(deployment(spec))
    version.instances = [running(lease_until=50, phase=Phase.STOPPING)]
    assert version.plan(0) == Plan([Create(spec)], next_at=50)


def test_an_adopted_instance_without_a_record_is_stopped() -> None:
    version = Version(None, VersionState.INACTIVE)
    version.statuses["stray"] = InstanceStatus("stray", RunState.UP, 0)
    # A younger one's record may be on its way.
    assert version.plan(9) == Plan([], next_at=10)
    assert version.actions(10) == [Stop("stray", 30)]
    version.statuses["stray"] = InstanceStatus("stray", RunState.STOPPING, 0)
    assert version.actions(10) == []


def test_an_instance_that_ran_under_another_leader_may_not_be_silent_for_ever() -> None:
    version = Version(deployment(), VersionState.DEGRADED)
    silent = instance(error=NOT_HEARD_OF)
    version.holds(silent)
    assert version.plan(0).next_at == POLICY.unresponsive_s
    assert [type(action) for action in version.actions(POLICY.unresponsive_s)] == [Fail]


def test_an_error_stops_everything_and_waits_for_the_undeploy() -> None:
    version = Version(deployment(), VersionState.ERROR)
    version.holds(instance())
    assert version.actions(0) == [Stop("i1", 30)]
    version.loses("i1")
    assert version.plan(1) == Plan([])


def test_instances_of_an_earlier_deployment_are_replaced() -> None:
    spec = gpu_spec()
    version = Version(deployment(spec, deployment_id="d2"))
    version.holds(running(deployment_id="d1"))
    assert version.actions(0) == [Stop("i1", 30), Create(spec)]


def test_a_graceful_undeploy_ends_when_the_queue_stays_empty() -> None:
    wanted = deployment(draining_until=1000)
    version = Version(wanted, VersionState.INACTIVE)
    version.holds(running())
    plan = version.plan(0, Load(3, 1))
    assert (plan.actions, plan.load_every_s) == ([], DRAIN_S)
    assert version.actions(1, Load(0, 1)) == []
    assert version.actions(9, Load(0, 1)) == []
    assert version.actions(10, Load(0, 0)) == []
    assert version.actions(11, Load(1, 0)) == []
    assert version.actions(12, Load(0, 0)) == []
    assert version.actions(14, Load(0, 0)) == [Stop("i1", 30)]
    version.holds(running(phase=Phase.STOPPING), RunState.STOPPING)
    assert version.actions(15) == []
    del version.statuses["i1"]
    assert version.actions(16) == [Forget(running(phase=Phase.STOPPING))]
    version.loses("i1")
    assert version.actions(16) == [Finish(wanted)]


@pytest.mark.parametrize("load", [None, Load(0, 0, is_complete=False)])
def test_a_queue_that_cannot_be_read_is_not_an_empty_one(load: Load | None) -> None:
    version = Version(deployment(draining_until=1000), VersionState.INACTIVE)
    version.holds(running())
    for now in range(0, 900, 10):
        assert version.actions(now, load) == []


def test_while_a_region_is_away_instances_are_started_and_none_is_stopped_as_idle() -> None:
    spec, unknown = gpu_spec("s1", 0, 2), Load(0, 0, is_complete=False)
    version = Version(deployment(spec))
    assert version.actions(0, Load(1, 0, is_complete=False)) == [Create(spec)]
    version.holds(running())
    version.plan(1)
    assert version.actions(1 + POLICY.idle_s, unknown) == []
    assert version.actions(1 + POLICY.idle_s, Load(0, 0)) == [Stop("i1", 30)]


def test_a_drain_starts_an_instance_when_requests_are_left_and_no_instance_is() -> None:
    spec = gpu_spec("s1", 0, 1)
    version = Version(deployment(spec, draining_until=1000), VersionState.INACTIVE)
    assert version.actions(0, Load(1, 0)) == [Create(spec)]


def test_a_drain_serves_again_what_a_lost_worker_had_leased() -> None:
    spec = gpu_spec("s1", 0, 1)
    version = Version(deployment(spec, draining_until=1000), VersionState.INACTIVE)
    version.holds(running("leaving", phase=Phase.STOPPING), RunState.STOPPING)
    assert version.actions(0, Load(0, 1)) == []
    version.loses("leaving")
    assert version.actions(1, Load(0, 1)) == [Create(spec)]


def test_a_drain_ends_at_its_deadline_whatever_is_left() -> None:
    version = Version(deployment(draining_until=1000), VersionState.INACTIVE)
    version.holds(running(busy=1))
    assert version.actions(999, Load(5, 1)) == []
    assert version.actions(1000) == [EndQueue(), Stop("i1", 30)]


def test_an_undeploy_without_grace_ends_the_queue_first_and_once() -> None:
    version = Version(deployment())
    version.holds(running())
    version.plan(0)
    version.wanted, version.state = None, VersionState.INACTIVE
    assert version.actions(1) == [EndQueue(), Stop("i1", 30)]
    version.holds(running(phase=Phase.STOPPING), RunState.STOPPING)
    assert version.actions(2) == []
    version.loses("i1")
    assert version.actions(3) == [Finish(None)]
    assert version.planner.is_finished


def test_an_action_that_was_not_executed_is_planned_again() -> None:
    version = Version(None, VersionState.INACTIVE)
    version.has_queue = True
    snapshot = Snapshot(0, VersionState.INACTIVE, None, [], {}, has_queue=True)
    for _ in range(3):
        assert version.planner.plan(snapshot).actions == [EndQueue(), Finish(None)]


STATES = st.sampled_from([None, *RunState])
KINDS = st.sampled_from([instance, running])


@given(
    least=st.integers(0, 3),
    spare=st.integers(0, 2),
    present=st.lists(st.tuples(KINDS, STATES, st.sampled_from(Phase)), max_size=7),
    state=st.sampled_from(sorted(set(VersionState) - {VersionState.ERROR}, key=str)),
    now=st.integers(0, 3_000_000),
)
def test_never_more_than_the_maximum_and_never_fewer_kept_than_the_minimum(
    least: int,
    spare: int,
    present: list[tuple[type[Instance], RunState | None, Phase]],
    state: VersionState,
    now: int,
) -> None:
    spec = gpu_spec("s1", least, least + spare)
    version = Version(deployment(spec), state)
    for index, (make, run_state, phase) in enumerate(present):
        one = make(f"i{index}", phase=phase)  # type: ignore[call-arg]  # a function that makes one
        version.instances.append(one)
        if run_state is not None:
            version.statuses[one.instance_id] = InstanceStatus(one.instance_id, run_state, 1.0)
    actions = version.actions(now)
    ended = {action.instance_id for action in actions if isinstance(action, Stop)}
    ended |= {action.instance.instance_id for action in actions if isinstance(action, Forget)}
    stopping = {
        one.instance_id
        for one in version.instances
        if one.phase is Phase.STOPPING
        or ((held := version.statuses.get(one.instance_id)) and held.state is RunState.STOPPING)
    }
    kept = len({one.instance_id for one in version.instances} - ended - stopping)
    created = sum(isinstance(action, Create) for action in actions)
    foreign = sum(one.instance_id not in version.statuses for one in version.instances)
    assert kept + created >= least
    assert kept + created <= max(spec.max_instances, foreign + created)


def test_what_keeps_an_instance_from_serving_is_stored_while_it_is_up() -> None:
    version = Version(deployment(), VersionState.DEPLOYING)
    one = instance()
    version.holds(one, reason="ImagePullBackOff")
    stored = SetPhase(one, Phase.STARTING, "ImagePullBackOff")
    assert version.actions(0) == [stored]
    version.holds(replace(one, error="ImagePullBackOff"), reason="ImagePullBackOff")
    assert version.actions(1) == []
    # What is known is kept until the instance runs.
    version.holds(replace(one, error="ImagePullBackOff"))
    assert version.actions(2) == []


def test_an_instance_that_ran_tells_its_backends_reason_rather_than_that_it_is_silent() -> None:
    version = Version(deployment())
    version.holds(running(lease_until=10))
    version.plan(0)
    silent = running(lease_until=10, phase=Phase.RUNNING)
    version.holds(silent, reason="OOMKilled")
    assert SetPhase(silent, Phase.STARTING, "OOMKilled") in version.actions(11)


def test_what_runs_without_a_record_is_stopped_once_its_record_must_have_come() -> None:
    version = Version(None, VersionState.INACTIVE)
    version.statuses["lost"] = InstanceStatus("lost", RunState.UP, 100.0)
    young = version.plan(101)
    assert (young.actions, young.next_at) == ([], 100.0 + ORPHAN_S)
    assert version.actions(100 + ORPHAN_S) == [Stop("lost", POLICY.stop_grace_s)]
    version.statuses["lost"] = InstanceStatus("lost", RunState.STOPPING, 110.0)
    assert version.actions(200) == []


def worker(instance_id: str = "w1", **more: object) -> Instance:
    return running(instance_id, registered_with="t1", **more)


def test_external_workers_are_awaited_and_counted_and_nothing_is_started() -> None:
    version = Version(deployment(gpu_spec("s1", 2, 3, is_external=True)), VersionState.DEPLOYING)
    assert version.actions(0, Load(waiting=9, leased=0)) == []
    one = worker(phase=Phase.STARTING, lease_until=100)
    version.instances = [one]
    plan = version.plan(10)
    assert plan.actions == [SetPhase(one, Phase.RUNNING, "")]
    assert plan.next_at == 100
    assert plan.load_every_s is None


def test_an_external_worker_that_is_not_heard_of_counts_out_and_is_forgotten_later() -> None:
    version = Version(deployment(gpu_spec("s1", 1, 1, is_external=True)))
    one = worker(lease_until=100)
    version.instances = [one]
    plan = version.plan(101)
    assert plan.actions == [SetPhase(one, Phase.STARTING, NOT_HEARD_OF)]
    version.instances = [replace(one, phase=Phase.STARTING, error=NOT_HEARD_OF)]
    assert version.plan(102).next_at == 100 + POLICY.unresponsive_s
    assert version.actions(100 + POLICY.unresponsive_s) == [Forget(version.instances[0])]


def test_external_workers_above_the_maximum_and_of_no_deployment_are_told_to_stop() -> None:
    version = Version(deployment(gpu_spec("s1", 0, 1, is_external=True)))
    old = worker("w1", created_at="2026-01-01", lease_until=100)
    new = worker("w2", created_at="2026-01-02", lease_until=100)
    version.instances = [old, new]
    assert version.actions(10) == [Stop("w2", POLICY.stop_grace_s)]
    version.wanted = None
    version.instances = [old, replace(new, phase=Phase.STOPPING)]
    plan = version.plan(11)
    assert plan.actions == [EndQueue(), Stop("w1", POLICY.stop_grace_s)]
    assert plan.next_at == 100
    version.instances = [replace(old, phase=Phase.STOPPING)]
    assert version.actions(100) == [Forget(version.instances[0])]


def test_an_external_worker_that_leaves_by_itself_is_no_longer_listed() -> None:
    version = Version(deployment(gpu_spec("s1", 0, 1, is_external=True)))
    one = worker(is_connected=False, lease_until=100)
    version.instances = [one]
    assert version.actions(10) == [Stop("w1", POLICY.stop_grace_s)]
    version.instances = [replace(one, phase=Phase.STOPPING, lease_until=11)]
    assert version.actions(11) == [Forget(version.instances[0])]


def test_external_workers_stay_when_the_deadline_has_passed() -> None:
    version = Version(deployment(gpu_spec("s1", 2, 2, is_external=True)), VersionState.ERROR)
    version.instances = [worker(lease_until=100)]
    assert version.actions(10) == []
