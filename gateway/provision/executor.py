"""Executes the planner's actions: in the store, at the backend, at the queue.

A change is written to the store first and then carried out. A change that was written but not
carried out is planned again; one that was carried out but not written would be lost if this
process died.
"""

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
    VersionDetails,
    VersionKey,
    VersionState,
)
from gateway.domain.states import capacity_of, state_of
from gateway.errors import Conflict
from gateway.provision.actions import (
    Action,
    Create,
    EndQueue,
    Fail,
    Finish,
    Forget,
    Restart,
    SetPhase,
    Stop,
)
from gateway.provision.backend import Backend, LaunchSpec
from gateway.provision.instances import VersionInstances
from queueing.interface import Load
from runtime.ids import new_uuid

MAX_HEALTH_BYTES = 128 << 10
"""Limit of all errors in a deployment's record; NATS takes up to 1 MiB, with JSON escapes."""

Kind = TypeVar("Kind", FunctionVersion, VersionDetails, Deployment, Instance)


class VersionRecords(Protocol):
    """Stored records (`gateway.store.records.Store`).

    Every call may raise `StoreUnavailable`, and writes `Conflict`.
    """

    async def put(self, record: Record, revision: int | None = None) -> int: ...

    async def get(self, key: RecordKey) -> tuple[Record, int] | None: ...

    async def delete(self, key: RecordKey, revision: int | None = None) -> int: ...

    async def deleted_version(self, version_id: str) -> VersionKey | None: ...


class Queues(Protocol):
    """Queues of versions (`gateway.provision.queues.Queues`).

    Every call may raise `QueueUnavailable`.
    """

    async def load(self, version_id: str) -> Load: ...

    async def end(self, version_id: str) -> None: ...

    async def remove(self, version_id: str) -> None: ...

    async def version_ids(self) -> list[str]: ...


SecretsOf = Callable[[VersionDetails], Awaitable[Mapping[str, str]]]
"""Returns the values of a version's secrets by name."""
VariablesOf = Callable[[VersionDetails], Awaitable[Mapping[str, str]]]
"""Returns the inference server's variables that have credentials. May raise `Conflict`."""
LoginsOf = Callable[[VersionDetails], Awaitable[str]]
"""Returns a file of Docker's logins for a version's image, empty if there is none."""
WorkerEnvironment = Callable[[Instance], Awaitable[Mapping[str, str]]]
"""Returns the settings with which an instance's worker logs in to the platform."""


def truncate_health(health: Sequence[HealthInfo]) -> tuple[HealthInfo, ...]:
    """Return ``health`` with the errors cut to equal shares of `MAX_HEALTH_BYTES`, if longer."""
    if sum(len(info.error) for info in health) * 4 <= MAX_HEALTH_BYTES:
        return tuple(health)
    share = MAX_HEALTH_BYTES // len(health)
    return tuple(
        replace(info, error=info.error.encode()[:share].decode(errors="ignore")) for info in health
    )


async def no_secrets(details: VersionDetails) -> Mapping[str, str]:  # noqa: ARG001
    """Return no secrets."""
    return {}


async def no_logins(details: VersionDetails) -> str:  # noqa: ARG001
    """Return no logins."""
    return ""


async def no_environment(instance: Instance) -> Mapping[str, str]:  # noqa: ARG001
    """Return no settings: the worker uses its own defaults."""
    return {}


@dataclass(frozen=True, slots=True)
class LaunchCredentials:
    """What the instances of a version get that must not be seen elsewhere.

    Every call may raise `StoreUnavailable`.
    """

    secrets_of: SecretsOf = no_secrets
    variables_of: VariablesOf = no_secrets
    logins_of: LoginsOf = no_logins


NO_CREDENTIALS = LaunchCredentials()


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that the reconciler reads and changes."""

    records: VersionRecords
    backend: Backend
    queues: Queues
    credentials: LaunchCredentials = NO_CREDENTIALS
    worker_environment: WorkerEnvironment = no_environment


class Executor:
    """Executes actions. Raises what the ports raise; the action may then be executed again."""

    def __init__(self, ports: Ports, clock: Callable[[], float]) -> None:
        """``clock`` returns Unix seconds."""
        self._ports = ports
        self._records = ports.records
        self._backend = ports.backend
        self._queues = ports.queues
        self._clock = clock

    async def execute(self, version: VersionInstances, action: Action) -> None:
        """Execute one action for a version."""
        match action:
            case Create(spec):
                await self._create(version, spec)
            case Restart(instance):
                await self._restart(version, instance)
            case SetPhase():
                await self._set_phase(version, action)
            case Stop(instance_id, grace_s):
                await self._stop(version, instance_id, grace_s)
            case Fail(instance_id, reason):
                self._backend.fail(instance_id, reason)
            case Forget(instance):
                await self.forget(version, instance)
            case EndQueue():
                await self._queues.end(version.version_id)
            case Finish(deployment):
                await self._finish(version, deployment)

    async def restore(self, version: VersionInstances, instance: Instance) -> None:
        """Write an instance's record again that the store has lost."""
        await self._records.put(instance)
        version.mark_written(instance)

    async def end_deployment_of_deleted(self, version: VersionInstances) -> None:
        """Delete the deployment of a version that was deleted, if the store has no such version.

        The call that deleted the version could not do it. The instances end in any case.
        """
        record, _ = await self._get(
            FunctionVersion, VersionKey(version.function_id, version.version_id)
        )
        if record is not None:
            return
        version.deployment = None
        deployment, revision = await self._deployment(version)
        if deployment is not None:
            await self._records.delete(deployment.key, revision)

    async def forget(self, version: VersionInstances, instance: Instance) -> None:
        """Delete an instance's record."""
        await self._records.delete(InstanceKey(instance.version_id, instance.instance_id))
        version.mark_removed(instance.instance_id)

    async def store_state(self, version: VersionInstances, now: float) -> None:
        """Store the state and the capacity that follow from the current records.

        The version is read first: a writer that changes the deployment after it was read here
        writes the version afterwards, so that the write here conflicts.
        """
        name = VersionKey(version.function_id, version.version_id)
        record, revision = await self._get(FunctionVersion, name)
        if record is None:
            version.state, version.capacity = VersionState.INACTIVE, 0
            return
        deployment, _ = await self._deployment(version)
        state = state_of(record.state, deployment, version.instances(), now)
        capacity = capacity_of(deployment, version.instances(), now)
        if state is not record.state or capacity != record.capacity:
            await self._records.put(replace(record, state=state, capacity=capacity), revision)
        version.state, version.capacity = state, capacity

    async def store_health(
        self, version: VersionInstances, deployment_id: str, health: tuple[HealthInfo, ...]
    ) -> None:
        """Store why instances do not run, unless that is stored already."""
        deployment, revision = await self._deployment(version)
        if deployment is None or deployment.deployment_id != deployment_id:
            return
        if deployment.health != health:
            deployment = replace(deployment, health=health)
            await self._records.put(deployment, revision)
        version.deployment = deployment

    async def _get(self, kind: type[Kind], key: RecordKey) -> tuple[Kind | None, int]:
        found = await self._records.get(key)
        if found is None:
            return None, 0
        record, revision = found
        return (record, revision) if isinstance(record, kind) else (None, 0)

    async def _deployment(self, version: VersionInstances) -> tuple[Deployment | None, int]:
        name = DeploymentKey(version.function_id, version.version_id)
        return await self._get(Deployment, name)

    async def _create(self, version: VersionInstances, spec: GpuSpec) -> None:
        deployment = version.deployment
        if deployment is None:
            return
        now = timestamp(self._clock())
        instance = Instance(
            instance_id=new_uuid(),
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
        launch = await self._launch_spec(instance, spec)
        await self._records.put(instance, 0)
        version.mark_written(instance)
        await self._backend.start(launch)

    async def _restart(self, version: VersionInstances, instance: Instance) -> None:
        spec = None if version.deployment is None else version.deployment.spec(instance.spec_id)
        if spec is not None:
            await self._backend.start(await self._launch_spec(instance, spec))

    async def _launch_spec(self, instance: Instance, spec: GpuSpec) -> LaunchSpec:
        name = DetailsKey(instance.function_id, instance.version_id)
        details, _ = await self._get(VersionDetails, name)
        if details is None:
            raise Conflict("the version is being deleted")
        credentials = self._ports.credentials
        return LaunchSpec(
            instance,
            spec,
            details,
            await credentials.secrets_of(details),
            await self._ports.worker_environment(instance),
            await credentials.variables_of(details),
            await credentials.logins_of(details),
        )

    async def _stop(self, version: VersionInstances, instance_id: str, grace_s: float) -> None:
        for instance in version.instances():
            if instance.instance_id == instance_id:
                await self._set_phase(version, SetPhase(instance, Phase.STOPPING, instance.error))
                if instance.is_external:
                    # Its worker is told by the API. It may have the id of an instance here.
                    return
                break
        self._backend.stop(instance_id, grace_s)

    async def _set_phase(self, version: VersionInstances, action: SetPhase) -> None:
        """Change the reconciler's half of an instance's record; its worker writes the other."""
        name = InstanceKey(action.instance.version_id, action.instance.instance_id)
        stored, revision = await self._get(Instance, name)
        instance = stored or action.instance
        changed = replace(instance, phase=action.phase, error=action.error)
        if instance.is_connected:
            # That of an external worker is renewed elsewhere (`gateway.domain.leases`).
            lease_until = max(instance.lease_until, action.instance.lease_until)
            changed = replace(changed, lease_until=lease_until)
        if action.is_gone:
            changed = replace(
                changed, is_connected=False, is_healthy=False, busy=0, slots=0, lease_until=0
            )
        if changed != instance or not revision:
            changed = replace(changed, updated_at=timestamp(self._clock()))
            await self._records.put(changed, revision)
        version.mark_written(changed)

    async def _finish(self, version: VersionInstances, deployment: Deployment | None) -> None:
        await self._queues.remove(version.version_id)
        version.has_queue = False
        if deployment is None:
            return
        stored, revision = await self._deployment(version)
        if stored is not None and stored.deployment_id == deployment.deployment_id:
            name = DeploymentKey(version.function_id, version.version_id)
            await self._records.delete(name, revision)
        now = version.deployment
        if now is not None and now.deployment_id == deployment.deployment_id:
            version.deployment = None
