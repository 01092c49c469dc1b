"""What heartbeats make of an instance's record."""

from dataclasses import replace
from typing import cast

from gateway.api.routes.workers import (
    InstanceRecords,
    PlainHeartbeat,
    WorkerOptions,
    WorkerPorts,
    Workers,
    apply_connect,
    apply_heartbeat,
    is_renewal,
    read_plain,
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
    same = PlainHeartbeat("i1", healthy=True, slots=4, busy=3)
    assert is_renewal(FRESH, same)
    assert not is_renewal(FRESH, same._replace(healthy=False))
    assert not is_renewal(FRESH, same._replace(slots=3))
    assert not is_renewal(replace(FRESH, is_connected=False), same)


def test_only_a_heartbeat_in_the_plain_form_is_read_the_short_way() -> None:
    plain = b'{"instanceId":"i1","healthy":true,"slots":4,"busy":3}'
    assert read_plain(plain) == PlainHeartbeat("i1", healthy=True, slots=4, busy=3)
    assert read_plain(plain[:-1] + b',"stopping":false}') == read_plain(plain)
    for other in (
        b"",
        b"[]",
        plain[:-1],
        plain[:-1] + b',"stopping":true}',
        plain[:-1] + b',"gone":true}',
        plain[:-1] + b',"gone":false}',
        plain[:-1] + b',"busy":4}',
        plain.replace(b'"i1"', b"1"),
        plain.replace(b"true", b'"true"'),
        plain.replace(b"4", b"4.0"),
        plain.replace(b"4", b"true"),
        plain.replace(b"4", b"-1"),
        plain.replace(b"3", b"1000001"),
        plain.replace(b',"busy":3', b""),
        plain.replace(b"busy", b"Busy"),
    ):
        assert read_plain(other) is None, other


def test_the_lease_of_an_external_worker_is_a_third_longer() -> None:
    record = instance(phase=Phase.RUNNING, registered_with="t1")
    assert apply_heartbeat(record, beat(), 1000.0, LEASE_S).lease_until == 1020


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
