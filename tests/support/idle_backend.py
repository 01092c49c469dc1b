"""A reconciler with a backend that runs nothing: the test decides what happens to instances."""

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from gateway.domain.model import Change, Instance, InstanceKey
from gateway.errors import Conflict
from gateway.provision.backend import InstanceStatus, LaunchSpec, OnChange, RunState
from gateway.provision.executor import Ports
from gateway.provision.leader_election import LeaderLease
from gateway.provision.planner import Policy
from gateway.provision.queues import Queues
from gateway.provision.reconciler import Reconciler
from gateway.store.names import CONTROL
from gateway.store.records import Store
from gateway.store.watcher import Watcher
from queueing.nats.connection import NatsConnection
from runtime.ids import new_uuid
from tests.support.queues import broker_on

LONG_S = 1000.0


class IdleBackend:
    """A `gateway.provision.backend.Backend` that starts nothing."""

    def __init__(self) -> None:
        self._instances: dict[str, tuple[Instance, InstanceStatus]] = {}
        self._doomed: dict[str, str] = {}
        self._on_change: OnChange = lambda function_id, version_id: None

    def listen(self, on_change: OnChange) -> None:
        self._on_change = on_change

    async def adopt(self) -> None:
        pass

    def release(self) -> None:
        pass

    def record(self, instance_id: str) -> Instance | None:
        found = self._instances.get(instance_id)
        return None if found is None else found[0]

    def is_known(self, cluster: str) -> bool:
        return True

    def version_ids(self) -> Iterable[tuple[str, str]]:
        return {
            (instance.function_id, instance.version_id) for instance, _ in self._instances.values()
        }

    def statuses(self, version_id: str) -> Mapping[str, InstanceStatus]:
        return {
            instance_id: status
            for instance_id, (instance, status) in self._instances.items()
            if instance.version_id == version_id
        }

    async def start(self, launch: LaunchSpec) -> None:
        reason = self._doomed.get(launch.instance.instance_id)
        if reason is None:
            self._set_status(launch.instance, RunState.UP)
        else:
            self._set_status(launch.instance, RunState.DOWN, reason, is_final=True)

    def stop(self, instance_id: str, grace_s: float) -> None:
        instance, _ = self._instances.pop(instance_id)
        self._on_change(instance.function_id, instance.version_id)

    def fail(self, instance_id: str, reason: str) -> None:
        self._set_status(self._instances[instance_id][0], RunState.DOWN, reason)

    def log_tail(self, instance_id: str) -> str:
        return ""

    def can_never_run(self, instance_id: str, reason: str) -> None:
        """Make every start of the instance fail, also one that has happened already."""
        self._doomed[instance_id] = reason
        if instance_id in self._instances:
            self._set_status(self._instances[instance_id][0], RunState.DOWN, reason, is_final=True)

    def _set_status(
        self, instance: Instance, state: RunState, reason: str = "", *, is_final: bool = False
    ) -> None:
        status = InstanceStatus(instance.instance_id, state, time.time(), reason, is_final)
        self._instances[instance.instance_id] = instance, status
        self._on_change(instance.function_id, instance.version_id)


class Fleet:
    """A reconciler that is the leader, with its backend and the workers of its instances."""

    def __init__(self, store: Store, connection: NatsConnection, region: str = "local") -> None:
        self.backend = IdleBackend()
        self.queues = Queues(*broker_on(connection, region))
        self._store = store
        self._reconciler = Reconciler(
            Ports(store, self.backend, self.queues),
            lambda on_change: LeaderLease(store, new_uuid(), on_change),
            Policy(
                restart_first_s=LONG_S,
                unresponsive_s=LONG_S,
                stop_grace_s=LONG_S,
                drain_settle_s=0.1,
            ),
        )
        self._watcher = Watcher(store, self, CONTROL)

    def apply(self, change: Change) -> None:
        self._reconciler.apply(change)

    async def start(self) -> None:
        self._watcher.start()
        await self._watcher.loaded.wait()
        self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()
        await self._watcher.stop()

    async def joins(self, version_id: str, instance_id: str) -> None:
        """Report the instance's worker as connected and able to serve."""
        await self._change(version_id, instance_id, serves=True)

    async def leaves(self, version_id: str, instance_id: str) -> None:
        """Report the instance's worker as gone."""
        await self._change(version_id, instance_id, serves=False)

    async def _change(self, version_id: str, instance_id: str, *, serves: bool) -> None:
        while True:
            found = await self._store.get(InstanceKey(version_id, instance_id))
            assert found is not None
            instance, revision = found
            assert isinstance(instance, Instance)
            changed = replace(
                instance,
                is_connected=serves,
                is_healthy=serves,
                slots=int(serves),
                lease_until=int(time.time() + LONG_S) if serves else 0,
            )
            try:
                await self._store.put(changed, revision)
            except Conflict:
                continue
            return


@asynccontextmanager
async def running_fleet(store: Store, connection: NatsConnection) -> AsyncIterator[Fleet]:
    """Run a `Fleet` while the block runs."""
    fleet = Fleet(store, connection)
    await fleet.start()
    try:
        yield fleet
    finally:
        await fleet.stop()
