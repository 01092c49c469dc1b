"""What the store says, joined with what we wrote and it has yet to tell."""

from dataclasses import replace

from gateway.domain.model import (
    DeploymentKey,
    FunctionVersion,
    InstanceKey,
    Removed,
    State,
    VersionKey,
)
from gateway.provision.instances import Fleet, Fleets
from tests.support.deployments import FUNCTION_ID, VERSION_ID, deployment, instance, running

REMOVED = Removed(InstanceKey(VERSION_ID, "i1"))


def fleet() -> Fleet:
    return Fleet(FUNCTION_ID, VERSION_ID)


def test_an_instance_is_there_as_soon_as_we_wrote_it() -> None:
    ours = fleet()
    ours.wrote(instance())
    assert ours.instances() == [instance()]
    assert ours.lost(held=()) == []
    ours.take(running())
    assert ours.instances() == [running()]


def test_an_instance_that_we_dropped_does_not_come_back_with_an_older_report() -> None:
    ours = fleet()
    ours.take(running())
    ours.dropped("i1")
    ours.take(running(busy=3))
    assert ours.instances() == []
    ours.take_removal("i1")
    assert ours.is_empty()


def test_what_the_store_lost_is_put_back_as_it_was_if_it_still_runs() -> None:
    ours = fleet()
    ours.take(running())
    ours.take(replace(running(), instance_id="i2"))
    ours.take_removal("i1")
    ours.take_removal("i2")
    assert ours.lost(held={"i1"}) == [running()]
    assert ours.instances() == [running()]
    ours.wrote(running())
    assert ours.lost(held={"i1"}) == []


def version(state: State) -> FunctionVersion:
    return FunctionVersion(FUNCTION_ID, VERSION_ID, "acme", "one", state)


def test_versions_that_need_nothing_take_no_place() -> None:
    touched: list[Fleet] = []
    fleets = Fleets(touched.append)
    fleets.apply(version(State.INACTIVE))
    assert (fleets.everything(), touched) == ([], [])
    assert fleets.known(VERSION_ID) is not None


def test_a_fleet_follows_its_version_and_deployment_in_any_order() -> None:
    touched: list[Fleet] = []
    fleets = Fleets(touched.append)
    fleets.apply(deployment())
    fleets.apply(version(State.DEPLOYING))
    fleets.apply(running())
    (ours,) = fleets.everything()
    assert (ours.state, ours.deployment) == (State.DEPLOYING, deployment())
    fleets.apply(Removed(DeploymentKey(FUNCTION_ID, VERSION_ID)))
    fleets.apply(Removed(VersionKey(FUNCTION_ID, VERSION_ID)))
    assert (ours.state, ours.deployment) == (State.INACTIVE, None)
    assert touched == [ours] * 5
