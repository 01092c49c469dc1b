"""Executes the actions of `gateway.provision.planner`: in the store, at the backend, at the queue.

Written down first, then done: what is written and not done is seen at the next look, and what was
done without being written would be lost with us.
"""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from gateway.domain.lifecycle import timestamp
from gateway.domain.model import (
    Deployment,
    DeploymentKey,
    DetailsKey,
    FunctionVersion,
    GpuSpec,
    HealthInfo,
    Instance,
    InstanceKey,
    Phase,
    Record,
    RecordKey,
    State,
    VersionDetails,
    VersionKey,
)
from gateway.domain.states import capacity_of, state_of
from gateway.errors import Conflict
from gateway.provision.actions import (
    Action,
    Break,
    Create,
    EndQueue,
    Finish,
    Forget,
    Load,
    Note,
    Restart,
    Stop,
)
from gateway.provision.backend import Backend, Order
from gateway.provision.instances import Fleet
from wire.ids import uuid4_text

MAX_HEALTH_BYTES = 128 << 10
"""Of all errors in a deployment's record, which NATS takes up to 1 MiB of, escapes included."""

Kind = TypeVar("Kind", FunctionVersion, VersionDetails, Deployment, Instance)


class Records(Protocol):
    """The store (`gateway.store.nats_kv.Store`); may raise `StoreUnavailable` and `Conflict`."""

    async def put(self, record: Record, revision: int | None = None) -> int: ...

    async def get(self, key: RecordKey) -> tuple[Record, int] | None: ...

    async def delete(self, key: RecordKey, revision: int | None = None) -> int: ...

    async def deleted_version(self, version_id: str) -> VersionKey | None: ...


class Queues(Protocol):
    """Queues of versions (`gateway.provision.queues.Queues`); may raise `QueueUnavailable`."""

    async def load(self, version_id: str) -> Load: ...

    async def end(self, version_id: str) -> None: ...

    async def remove(self, version_id: str) -> None: ...

    async def version_ids(self) -> list[str]: ...


SecretsOf = Callable[[VersionDetails], Awaitable[Mapping[str, str]]]
"""Returns the values of a version's secrets by name."""
WorkerEnvironment = Callable[[Instance], Awaitable[Mapping[str, str]]]
"""Returns the settings by which an instance's worker reaches and logs in to the platform."""


def fitted(health: Sequence[HealthInfo]) -> tuple[HealthInfo, ...]:
    """Return ``health`` with its errors cut to equal shares of `MAX_HEALTH_BYTES`, if need be."""
    if sum(len(one.error) for one in health) * 4 <= MAX_HEALTH_BYTES:
        return tuple(health)
    share = MAX_HEALTH_BYTES // len(health)
    return tuple(
        replace(one, error=one.error.encode()[:share].decode(errors="ignore")) for one in health
    )


async def no_secrets(details: VersionDetails) -> Mapping[str, str]:  # noqa: ARG001
    """Return none."""
    return {}


async def no_environment(instance: Instance) -> Mapping[str, str]:  # noqa: ARG001
    """Return nothing: the worker's own defaults hold."""
    return {}


@dataclass(frozen=True, slots=True)
class Places:
    """Everything that is acted on."""

    records: Records
    backend: Backend
    queues: Queues
    secrets_of: SecretsOf = no_secrets
    worker_environment: WorkerEnvironment = no_environment


class Execution:
    """Acts on one fleet at a time. Raises what its places do, and then may be asked again."""

    def __init__(self, places: Places, clock: Callable[[], float]) -> None:
        """``clock`` gives Unix seconds."""
        self._records = places.records
        self._backend = places.backend
        self._queues = places.queues
        self._places = places
        self._clock = clock

    async def carry_out(self, fleet: Fleet, action: Action) -> None:
        """Do one thing."""
        match action:
            case Create(spec):
                await self._create(fleet, spec)
            case Restart(instance):
                await self._restart(fleet, instance)
            case Note():
                await self._note(fleet, action)
            case Stop(instance_id, grace_s):
                await self._stop(fleet, instance_id, grace_s)
            case Break(instance_id, reason):
                self._backend.fail(instance_id, reason)
            case Forget(instance):
                await self.forget(fleet, instance)
            case EndQueue():
                await self._queues.end(fleet.version_id)
            case Finish(deployment):
                await self._finish(fleet, deployment)

    async def put_back(self, fleet: Fleet, instance: Instance) -> None:
        """Write down again what the store has lost."""
        await self._records.put(instance)
        fleet.wrote(instance)

    async def forget(self, fleet: Fleet, instance: Instance) -> None:
        """Remove an instance's record."""
        await self._records.delete(InstanceKey(instance.version_id, instance.instance_id))
        fleet.dropped(instance.instance_id)

    async def settle_state(self, fleet: Fleet, now: float) -> None:
        """Make stored state and capacity what follows from the records as they are now.

        The version is read first: whoever changes the deployment after we read it writes the
        version afterwards, and our write conflicts.
        """
        key = VersionKey(fleet.function_id, fleet.version_id)
        version, revision = await self._get(FunctionVersion, key)
        if version is None:
            fleet.state, fleet.capacity = State.INACTIVE, 0
            return
        deployment, _ = await self._deployment(fleet)
        state = state_of(version.state, deployment, fleet.instances(), now)
        capacity = capacity_of(deployment, fleet.instances(), now)
        if state is not version.state or capacity != version.capacity:
            await self._records.put(replace(version, state=state, capacity=capacity), revision)
        fleet.state, fleet.capacity = state, capacity

    async def settle_health(
        self, fleet: Fleet, deployment_id: str, health: tuple[HealthInfo, ...]
    ) -> None:
        """Write down why instances do not run, unless it is written already."""
        deployment, revision = await self._deployment(fleet)
        if deployment is None or deployment.deployment_id != deployment_id:
            return
        if deployment.health != health:
            deployment = replace(deployment, health=health)
            await self._records.put(deployment, revision)
        fleet.deployment = deployment

    async def _get(self, kind: type[Kind], key: RecordKey) -> tuple[Kind | None, int]:
        found = await self._records.get(key)
        if found is None:
            return None, 0
        record, revision = found
        return (record, revision) if isinstance(record, kind) else (None, 0)

    async def _deployment(self, fleet: Fleet) -> tuple[Deployment | None, int]:
        key = DeploymentKey(fleet.function_id, fleet.version_id)
        return await self._get(Deployment, key)

    async def _create(self, fleet: Fleet, spec: GpuSpec) -> None:
        deployment = fleet.deployment
        if deployment is None:
            return
        now = timestamp(self._clock())
        instance = Instance(
            instance_id=uuid4_text(os.urandom(16)),
            deployment_id=deployment.deployment_id,
            spec_id=spec.spec_id,
            function_id=deployment.function_id,
            version_id=deployment.version_id,
            account=deployment.account,
            gpu=spec.gpu,
            instance_type=spec.instance_type,
            backend=spec.backend,
            phase=Phase.STARTING,
            created_at=now,
            updated_at=now,
        )
        order = await self._order(instance, spec)
        await self._records.put(instance, 0)
        fleet.wrote(instance)
        await self._backend.start(order)

    async def _restart(self, fleet: Fleet, instance: Instance) -> None:
        spec = None if fleet.deployment is None else fleet.deployment.spec(instance.spec_id)
        if spec is not None:
            await self._backend.start(await self._order(instance, spec))

    async def _order(self, instance: Instance, spec: GpuSpec) -> Order:
        key = DetailsKey(instance.function_id, instance.version_id)
        details, _ = await self._get(VersionDetails, key)
        if details is None:
            raise Conflict("the version is being deleted")
        return Order(
            instance,
            spec,
            details,
            await self._places.secrets_of(details),
            await self._places.worker_environment(instance),
        )

    async def _stop(self, fleet: Fleet, instance_id: str, grace_s: float) -> None:
        known = next((one for one in fleet.instances() if one.instance_id == instance_id), None)
        if known is not None:
            await self._note(fleet, Note(known, Phase.STOPPING, known.error))
        self._backend.stop(instance_id, grace_s)

    async def _note(self, fleet: Fleet, note: Note) -> None:
        """Change our half of an instance's record; the other half is its worker's."""
        key = InstanceKey(note.instance.version_id, note.instance.instance_id)
        stored, revision = await self._get(Instance, key)
        instance = stored or note.instance
        changed = replace(instance, phase=note.phase, error=note.error)
        if note.is_gone:
            changed = replace(
                changed, is_connected=False, is_healthy=False, busy=0, slots=0, lease_until=0
            )
        if changed != instance or not revision:
            changed = replace(changed, updated_at=timestamp(self._clock()))
            await self._records.put(changed, revision)
        fleet.wrote(changed)

    async def _finish(self, fleet: Fleet, deployment: Deployment | None) -> None:
        await self._queues.remove(fleet.version_id)
        fleet.has_queue = False
        if deployment is None:
            return
        stored, revision = await self._deployment(fleet)
        if stored is not None and stored.deployment_id == deployment.deployment_id:
            key = DeploymentKey(fleet.function_id, fleet.version_id)
            await self._records.delete(key, revision)
        fleet.deployment = None
