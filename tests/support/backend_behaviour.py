"""What is true of instances whatever runs them: one suite for all backends.

A test module makes a subclass of `BackendBehaviour`, named ``Test...``, and of `ScaledBehaviour`
where the gateway starts and ends the instances, with a fixture ``plane``.
"""

import signal

import pytest

from tests.support.programs import Program
from tests.support.provisioned import Calls, Plane, end_leader, until_leading
from tests.support.stack import start
from tests.support.waiting import until


@pytest.mark.timeout(240)
class BackendBehaviour:
    """Of instances on every backend."""

    @pytest.fixture
    def leader(self, plane: Plane) -> Program:
        return plane.candidate()

    async def test_a_version_serves_and_its_graceful_undeploy_finishes_calls_and_leaves_nothing(
        self, plane: Plane, leader: Program
    ) -> None:
        async with plane.version(2, 2) as version:
            instances = await version.instances()
            assert {one["slots"] for one in instances} == {4}
            assert {one["backend"] for one in instances} == {plane.hosting.cluster["name"]}
            assert len({one["instanceId"] for one in instances}) == 2
            for _ in range(8):
                await version.echo()
            slow = start(version.slow(2))
            await until(version.instances, lambda found: any(one["busy"] for one in found))
            await version.undeploy(graceful=True)
            assert await slow == 200
            await plane.hosting.until_empty()
            await version.until("INACTIVE", 0)

    async def test_a_killed_server_is_reported_with_its_reason_and_serves_again(
        self, plane: Plane, leader: Program
    ) -> None:
        async with plane.version(1, 1) as version:
            before = await version.instance_ids()
            await plane.hosting.kill_server()
            await until(version.errors, lambda text: plane.hosting.end_reason in text)
            await version.until("DEGRADED", 0)
            # A call waits for the instance.
            waiting = start(version.echo())
            await plane.hosting.bring_back()
            await version.until("ACTIVE", 1)
            await waiting
            assert await version.instance_ids() == before
            await until(version.errors, lambda text: not text)

    async def test_a_lower_maximum_ends_instances_and_no_call(
        self, plane: Plane, leader: Program
    ) -> None:
        async with plane.version(2, 2) as version:
            before = plane.hosting.processes()
            calls = Calls(version)
            await calls.more()
            await version.set_counts(1, 1)
            after = await until(
                plane.hosting.processes, lambda found: len(found) * 2 == len(before)
            )
            assert after.items() <= before.items()
            await calls.more()
            await calls.stop()
            assert calls.failures == []
            await version.until("ACTIVE", 1)

    async def test_no_call_fails_while_leaders_end_and_instances_go_on(
        self, plane: Plane, leader: Program
    ) -> None:
        async with plane.version(2, 2) as version:
            before, ids = plane.hosting.processes(), await version.instance_ids()
            calls = Calls(version)
            await calls.more()
            second = plane.candidate()
            await end_leader(leader, signal.SIGKILL)
            await until_leading(second)
            await calls.more()
            third = plane.candidate()
            await end_leader(second, signal.SIGTERM)
            await until_leading(third)
            await calls.more()
            # The only one, stopped and started again.
            await end_leader(third, signal.SIGTERM)
            await calls.more()
            fourth = plane.candidate()
            await until_leading(fourth)
            await calls.more()
            await calls.stop()
            assert calls.failures == []
            await version.until("ACTIVE", 2)
            assert plane.hosting.processes() == before
            assert await version.instance_ids() == ids
            # The last one manages what the first one has started.
            await version.undeploy()
            await plane.hosting.until_empty()

    async def test_instances_outlive_a_leader_and_a_broker_that_end_together(
        self, plane: Plane, leader: Program
    ) -> None:
        """The broker's memory held all that was recorded of instances."""
        async with plane.version(2, 2) as version:
            before, ids = plane.hosting.processes(), await version.instance_ids()
            await end_leader(leader)
            await plane.stack.nats.restart()
            following = plane.candidate()
            await until_leading(following)
            await version.until("ACTIVE", 2)
            await version.echo()
            assert plane.hosting.processes() == before
            assert await version.instance_ids() == ids

    async def test_what_was_undeployed_without_a_leader_is_ended_by_the_next_one(
        self, plane: Plane, leader: Program
    ) -> None:
        async with plane.version(1, 1) as version:
            await end_leader(leader)
            await version.undeploy()
            assert plane.hosting.processes()
            plane.candidate()
            await plane.hosting.until_empty()


class ScaledBehaviour(BackendBehaviour):
    """Of instances that the gateway starts and ends."""

    async def test_calls_that_wait_start_an_instance_that_ends_when_it_is_idle(
        self, plane: Plane, leader: Program
    ) -> None:
        async with plane.version(1, 2, concurrency=1) as version:
            calls = [start(version.slow(6)) for _ in range(3)]
            await version.until("ACTIVE", 2)
            assert [await call for call in calls] == [200] * 3
            await version.until("ACTIVE", 1)
            await until(plane.hosting.processes, lambda left: len(left) == 2)

    async def test_scaled_to_zero_nothing_runs_until_a_call_comes(
        self, plane: Plane, leader: Program
    ) -> None:
        async with plane.version(0, 1) as version:
            assert plane.hosting.processes() == {}
            await version.echo()
            await plane.hosting.until_empty()
            assert await version.status() == "ACTIVE"
