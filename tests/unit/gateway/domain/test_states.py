"""The state of a version follows from what was asked for and what is there, in whatever order."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.domain.model import Deployment, Instance, Phase, VersionState
from gateway.domain.states import (
    WAITS_FOR_WORKERS,
    changes_at,
    health_of,
    is_running,
    state_of,
)
from tests.support.deployments import deployment, gpu_spec, instance, running

NOW = 100.0
TWO = deployment(gpu_spec("s1", 1), gpu_spec("s2", 2))


@pytest.mark.parametrize(
    ("before", "there", "state"),
    [
        (VersionState.INACTIVE, [], VersionState.DEPLOYING),
        (VersionState.DEPLOYING, [], VersionState.DEPLOYING),
        (VersionState.DEPLOYING, [running("a", "s1"), running("b", "s2")], VersionState.DEPLOYING),
        (
            VersionState.DEPLOYING,
            [running("a", "s1"), running("b", "s2"), running("c", "s2")],
            VersionState.ACTIVE,
        ),
        (VersionState.ACTIVE, [running("a", "s1"), running("b", "s2")], VersionState.DEGRADING),
        (VersionState.ACTIVE, [running("b", "s2"), running("c", "s2")], VersionState.DEGRADING),
        (VersionState.ACTIVE, [instance("a", "s1"), instance("b", "s2")], VersionState.DEGRADED),
        (VersionState.DEGRADED, [running("a", "s1")], VersionState.DEGRADING),
        (
            VersionState.DEGRADED,
            [running("a", "s1"), running("b", "s2"), running("c", "s2")],
            VersionState.ACTIVE,
        ),
        (
            VersionState.ERROR,
            [running("a", "s1"), running("b", "s2"), running("c", "s2")],
            VersionState.ERROR,
        ),
    ],
)
def test_two_specifications_of_one_and_two_instances(
    before: VersionState, there: list[Instance], state: VersionState
) -> None:
    assert state_of(before, TWO, there, NOW) is state


@pytest.mark.parametrize("before", VersionState)
def test_without_a_deployment_or_during_an_undeploy_it_is_inactive(before: VersionState) -> None:
    assert state_of(before, None, [running()], NOW) is VersionState.INACTIVE
    draining = deployment(draining_until=200)
    assert state_of(before, draining, [running()], NOW) is VersionState.INACTIVE


@pytest.mark.parametrize(
    "before", [state for state in VersionState if state is not VersionState.ERROR]
)
def test_a_deployment_that_asks_for_no_instance_is_active_without_one(before: VersionState) -> None:
    asleep = deployment(gpu_spec("s1", 0), gpu_spec("s2", 0))
    assert state_of(before, asleep, [], NOW) is VersionState.ACTIVE


def test_one_specification_scaled_to_zero_does_not_hide_that_another_has_nothing() -> None:
    mixed = deployment(gpu_spec("s1", 0), gpu_spec("s2", 1))
    assert state_of(VersionState.ACTIVE, mixed, [], NOW) is VersionState.DEGRADED
    assert state_of(VersionState.ACTIVE, mixed, [running("a", "s1")], NOW) is VersionState.DEGRADING


@pytest.mark.parametrize(
    "one",
    [
        instance(),
        running(is_connected=False),
        running(is_healthy=False),
        running(lease_until=int(NOW)),
        running(phase=Phase.STOPPING),
        running(phase=Phase.FAILED),
        running(deployment_id="an earlier one"),
        running("a", "no longer specified"),
    ],
)
def test_what_cannot_serve_does_not_count(one: Instance) -> None:
    assert state_of(VersionState.ACTIVE, deployment(), [one], NOW) is VersionState.DEGRADED


def test_the_deploy_deadline_ends_in_error_and_later_losses_do_not() -> None:
    late = deployment(deadline_at=99)
    assert state_of(VersionState.DEPLOYING, late, [instance()], NOW) is VersionState.ERROR
    assert state_of(VersionState.DEPLOYING, late, [running()], NOW) is VersionState.ACTIVE
    assert state_of(VersionState.ACTIVE, late, [], NOW) is VersionState.DEGRADED


def test_deploying_ends_early_only_when_every_instance_has_failed() -> None:
    failed = instance("a", "s1", phase=Phase.FAILED)
    others = [instance(name, "s2", phase=Phase.FAILED) for name in "bc"]
    assert state_of(VersionState.DEPLOYING, TWO, [failed], NOW) is VersionState.DEPLOYING
    assert state_of(VersionState.DEPLOYING, TWO, [failed, *others], NOW) is VersionState.ERROR
    alive = replace(others[0], phase=Phase.STARTING)
    assert (
        state_of(VersionState.DEPLOYING, TWO, [failed, alive, others[1]], NOW)
        is VersionState.DEPLOYING
    )


def test_time_alone_changes_the_state_when_a_lease_or_the_deadline_ends() -> None:
    there = [running("a", lease_until=110), running("b", lease_until=105)]
    assert changes_at(deployment(deadline_at=300), there, NOW) == 105
    assert changes_at(deployment(deadline_at=300), [], NOW) == 300
    assert changes_at(deployment(deadline_at=99), [], NOW) is None


def test_health_tells_why_instances_are_missing() -> None:
    broken = instance("a", "s1", error="exited with code 1\nno CUDA device")
    (found,) = health_of(TWO, [broken, running("b", "s2")], NOW)
    assert (found.spec_id, found.instance_id, found.gpu) == ("s1", "a", "L40S")
    assert found.error == "exited with code 1\nno CUDA device"
    everything = health_of(TWO, [broken, running("b", "s2")], NOW, is_error=True)
    assert [one.error for one in everything] == [
        "exited with code 1\nno CUDA device",
        "1 of 2 instances ran before the deploy deadline",
    ]
    assert health_of(TWO, [running("a", "s1", error="last time")], NOW) == ()


def definition(
    wanted: Deployment, there: list[Instance], now: float, *, was_up: bool
) -> VersionState:
    """The spec's own words, `docs/wire.md` §13.3, for a version that is deployed and not in
    ERROR."""
    by_spec = {
        spec.spec_id: [one for one in there if one.spec_id == spec.spec_id and is_running(one, now)]
        for spec in wanted.specs
    }
    if all(len(by_spec[spec.spec_id]) >= spec.min_instances for spec in wanted.specs):
        return VersionState.ACTIVE
    if not was_up:
        return VersionState.DEPLOYING
    return VersionState.DEGRADING if any(by_spec.values()) else VersionState.DEGRADED


class InstanceEvents(RuleBasedStateMachine):
    """Instances come, connect, fall ill and go in any order; the state is the definition's."""

    @initialize(least=st.lists(st.integers(0, 2), min_size=1, max_size=3))
    def deploy(self, least: list[int]) -> None:
        self.wanted = deployment(
            *(gpu_spec(f"s{index}", count) for index, count in enumerate(least)), deadline_at=50
        )
        self.now = 0.0
        self.there: dict[str, Instance] = {}
        self.state = VersionState.INACTIVE
        self.was_up = False
        self.has_failed = False

    @rule(spec=st.integers(0, 2), number=st.integers(0, 3))
    def started(self, spec: int, number: int) -> None:
        self.there[f"{spec}-{number}"] = instance(f"{spec}-{number}", f"s{spec}")

    @precondition(lambda self: self.there)
    @rule(
        data=st.data(),
        change=st.sampled_from(
            [
                {"is_connected": True},
                {"is_connected": False},
                {"is_healthy": True},
                {"is_healthy": False},
                {"phase": Phase.RUNNING},
                {"phase": Phase.FAILED},
                {"phase": Phase.STOPPING},
                {"phase": Phase.STARTING},
            ]
        ),
        lease_s=st.integers(1, 20),
    )
    def told(self, data: st.DataObject, change: dict[str, object], lease_s: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.there)))
        lease_until = int(self.now) + lease_s
        self.there[name] = replace(self.there[name], lease_until=lease_until, **change)  # type: ignore[arg-type]  # names as above

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def gone(self, data: st.DataObject) -> None:
        del self.there[data.draw(st.sampled_from(sorted(self.there)))]

    @rule(seconds=st.integers(1, 15))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def seen_twice(self) -> None:
        """Nothing has happened: nothing may change."""

    @invariant()
    def state_is_as_defined(self) -> None:
        if not hasattr(self, "wanted"):
            return
        there = list(self.there.values())
        expected = definition(self.wanted, there, self.now, was_up=self.was_up)
        if expected is VersionState.DEPLOYING:
            alive = [one for one in there if one.phase in {Phase.STARTING, Phase.RUNNING}]
            failed = [one for one in there if one.phase is Phase.FAILED]
            least = sum(spec.min_instances for spec in self.wanted.specs)
            self.has_failed |= self.now >= 50 or (not alive and len(failed) >= least)
        self.was_up |= expected is VersionState.ACTIVE and not self.has_failed
        if self.has_failed:
            expected = VersionState.ERROR
        self.state = state_of(self.state, self.wanted, there, self.now)
        assert self.state is expected


TestInstanceEvents = InstanceEvents.TestCase


@given(st.permutations([running("a", "s1"), running("b", "s2"), instance("c", "s2")]))
def test_the_order_in_which_instances_are_listed_does_not_matter(there: list[Instance]) -> None:
    assert state_of(VersionState.ACTIVE, TWO, there, NOW) is VersionState.DEGRADING


def test_a_deployment_that_waits_for_workers_leaves_error_when_they_have_come() -> None:
    waits = deployment(gpu_spec("s1", 1, 2, is_external=True), deadline_at=100)
    assert state_of(VersionState.DEPLOYING, waits, [], 99) is VersionState.DEPLOYING
    (health,) = health_of(waits, [], 99)
    assert health.error == WAITS_FOR_WORKERS
    assert state_of(VersionState.DEPLOYING, waits, [], 100) is VersionState.ERROR
    (health,) = health_of(waits, [], 100, is_error=True)
    assert health.error.startswith("0 of 1 instances ran before the deploy deadline")
    assert state_of(VersionState.ERROR, waits, [], 101) is VersionState.ERROR
    assert state_of(VersionState.ERROR, waits, [running()], 101) is VersionState.ACTIVE
    mixed = deployment(gpu_spec("s1", 0, 2, is_external=True), gpu_spec("s2", 0, 1))
    assert state_of(VersionState.ERROR, mixed, [], 101) is VersionState.ERROR
