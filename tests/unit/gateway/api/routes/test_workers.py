"""What heartbeats make of an instance's record."""

from dataclasses import replace
from typing import cast

from gateway.api.routes.workers import (
    InstanceRecords,
    WorkerOptions,
    WorkerPorts,
    Workers,
    apply_connect,
    apply_heartbeat,
    is_renewal,
)
from gateway.api.schemas.workers import HeartbeatBody
from gateway.domain.model import Phase
from gateway.domain.states import is_running
from tests.support.deployments import instance, running

LEASE_S = 15.0


def beat(**changes: object) -> HeartbeatBody:
    members = {"instanceId": "i1", "healthy": True, "slots": 4, "busy": 0, **changes}
    return HeartbeatBody.model_validate(members)


FRESH = apply_heartbeat(instance(phase=Phase.RUNNING), beat(), 1000.5, LEASE_S)


async def test_a_worker_waits_for_its_server_as_long_as_its_deployment_does() -> None:
    async def nothing(_: str) -> None:
        """No queue is needed."""

    records = cast(InstanceRecords, None)
    ports = WorkerPorts(records, lambda worker, now, life_s: "token", nothing, lambda: 0.0)
    workers = Workers(ports, WorkerOptions("http://api", {}, ready_s=7200.0))
    environment = await workers.environment(instance())
    assert environment["WORKER_HEALTH__READY_TIMEOUT_S"] == "7200"


def test_a_heartbeat_makes_an_instance_run_until_the_lease_ends() -> None:
    assert FRESH.lease_until == 1016
    assert is_running(FRESH, 1015.9)
    assert not is_running(FRESH, 1016.0)


def test_what_is_the_same_is_not_written_until_the_lease_needs_it() -> None:
    assert apply_heartbeat(FRESH, beat(), 1001.0, LEASE_S) is FRESH
    assert apply_heartbeat(FRESH, beat(), 1005.5, LEASE_S).lease_until == 1021


def test_a_heartbeat_that_says_what_is_stored_only_renews_the_lease() -> None:
    assert is_renewal(FRESH, beat(busy=3))
    for changes in ({"healthy": False}, {"slots": 3}, {"stopping": True}, {"gone": True}):
        assert not is_renewal(FRESH, beat(**changes)), changes
    assert not is_renewal(replace(FRESH, is_connected=False), beat())


def test_what_matters_is_written_at_once() -> None:
    for changes in ({"healthy": False}, {"slots": 3}, {"busy": 1}, {"stopping": True}):
        assert apply_heartbeat(FRESH, beat(**changes), 1001.0, LEASE_S) is not FRESH, changes
    busy = apply_heartbeat(FRESH, beat(busy=2), 1001.0, LEASE_S)
    assert apply_heartbeat(busy, beat(busy=3), 1001.5, LEASE_S) is busy


def test_an_agent_that_stops_serves_nothing_new_but_is_still_busy() -> None:
    stopping = apply_heartbeat(FRESH, beat(stopping=True, busy=2), 1001.0, LEASE_S)
    assert not is_running(stopping, 1001.0)
    assert (stopping.slots, stopping.busy, stopping.lease_until) == (0, 2, 1016)


def test_the_reconcilers_half_is_left_alone() -> None:
    record = running(error="once failed", phase=Phase.STOPPING)
    for changed in (
        apply_heartbeat(record, beat(busy=1), 0.0, 1.0),
        apply_connect(record, 0.0, 1.0),
    ):
        assert (changed.phase, changed.error) == (Phase.STOPPING, "once failed")


def test_health_is_not_inherited_from_a_worker_that_was_lost() -> None:
    assert apply_connect(FRESH, 1002.0, LEASE_S).is_healthy
    lost = replace(FRESH, lease_until=1001)
    assert not apply_connect(lost, 1002.0, LEASE_S).is_healthy
