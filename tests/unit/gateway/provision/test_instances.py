"""Records that the store has reported, joined with those that this process has just written."""

from dataclasses import replace

from gateway.domain.model import (
    DeploymentKey,
    FunctionVersion,
    InstanceKey,
    Phase,
    Removed,
    VersionKey,
    VersionState,
)
from gateway.provision.instances import ManagedVersions, VersionInstances
from tests.support.deployments import FUNCTION_ID, VERSION_ID, deployment, instance, running

REMOVED = Removed(InstanceKey(VERSION_ID, "i1"))


def entry() -> VersionInstances:
    return VersionInstances(FUNCTION_ID, VERSION_ID)


def test_an_instance_exists_as_soon_as_it_was_written() -> None:
    ours = entry()
    ours.mark_written(instance())
    assert ours.instances() == [instance()]
    assert ours.find_lost(running_ids=()) == []
    ours.apply(running())
    assert ours.instances() == [running()]


def test_a_removed_instance_does_not_come_back_with_an_older_report() -> None:
    ours = entry()
    ours.apply(running())
    ours.mark_removed("i1")
    ours.apply(running(busy=3))
    assert ours.instances() == []
    ours.apply_removal("i1")
    assert ours.is_empty()


def test_a_lost_record_is_restored_as_it_was_if_the_instance_still_runs() -> None:
    ours = entry()
    ours.apply(running())
    ours.apply(replace(running(), instance_id="i2"))
    ours.apply_removal("i1")
    ours.apply_removal("i2")
    assert ours.find_lost(running_ids={"i1"}) == [running()]
    assert ours.instances() == [running()]
    ours.mark_written(running())
    assert ours.find_lost(running_ids={"i1"}) == []


def version(state: VersionState) -> FunctionVersion:
    return FunctionVersion(FUNCTION_ID, VERSION_ID, "acme", "one", state)


def test_versions_that_need_nothing_have_no_entry() -> None:
    touched: list[VersionInstances] = []
    versions = ManagedVersions(touched.append)
    versions.apply(version(VersionState.INACTIVE))
    assert (versions.all(), touched) == ([], [])
    assert versions.ensure_stored(VERSION_ID) is not None


def test_an_entry_follows_its_version_and_deployment_in_any_order() -> None:
    touched: list[VersionInstances] = []
    versions = ManagedVersions(touched.append)
    versions.apply(deployment())
    versions.apply(version(VersionState.DEPLOYING))
    versions.apply(running())
    (ours,) = versions.all()
    assert (ours.state, ours.deployment) == (VersionState.DEPLOYING, deployment())
    versions.apply(Removed(DeploymentKey(FUNCTION_ID, VERSION_ID)))
    versions.apply(Removed(VersionKey(FUNCTION_ID, VERSION_ID)))
    assert (ours.state, ours.deployment) == (VersionState.INACTIVE, None)
    assert touched == [ours] * 5


def test_what_is_written_does_not_shorten_a_lease_that_was_renewed_meanwhile() -> None:
    version = ManagedVersions(lambda _: None).ensure(FUNCTION_ID, VERSION_ID)
    before = running("w1", registered_with="t1", lease_until=100)
    version.apply(replace(before, lease_until=120))
    version.mark_written(replace(before, phase=Phase.STARTING))
    assert version.instances()[0].lease_until == 120
    gone = replace(before, is_connected=False, lease_until=0)
    version.mark_written(gone)
    assert version.instances() == [gone]


def test_a_running_external_worker_that_renews_its_lease_needs_no_pass() -> None:
    changed: list[str] = []
    versions = ManagedVersions(lambda version: changed.append(version.version_id))
    one = running("w1", registered_with="t1", lease_until=100)
    versions.apply(one)
    assert len(changed) == 1
    versions.apply(replace(one, lease_until=105, busy=3))
    assert len(changed) == 1
    version = versions.get(one.version_id)
    assert version is not None
    assert version.instances()[0].lease_until == 105
    for telling in (
        replace(one, is_healthy=False),
        replace(one, slots=9),
        replace(one, phase=Phase.STARTING),
        replace(one, lease_until=110, phase=Phase.STARTING, error="not heard of"),
    ):
        before = len(changed)
        versions.apply(telling)
        assert len(changed) == before + 1, telling
