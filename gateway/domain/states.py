"""The state of a version, computed from its deployment and its instances.

    INACTIVE    no deployment, or an undeploy is in progress
    DEPLOYING   deployed; the minimum of instances has never been running yet
    ACTIVE      of every GPU specification at least the minimum of instances is running
    DEGRADING   fewer are running, but at least one: the version serves
    DEGRADED    none is running
    ERROR       the minimum did not run before the deploy deadline, or every instance has failed

An instance is running if it can serve: the worker is connected, its lease has not ended, and the
inference server is healthy (`docs/wire.md` §13.3). DEPLOYING and ERROR depend on the state
before: DEPLOYING ends when the minimum has run once, ERROR only with an undeploy. A deployment of
external workers only is not given up: it is ERROR from the deadline on until their minimum runs.

These functions cannot tell "absent" from "not read": after a failed read, do not call them.
"""

from collections import Counter
from collections.abc import Iterable

from gateway.domain.model import Deployment, GpuSpec, HealthInfo, Instance, Phase, VersionState

ALIVE = frozenset({Phase.STARTING, Phase.RUNNING})
"""Phases of an instance that serves or is going to serve."""
WAITS_FOR_WORKERS = "fewer workers than minInstances are registered and healthy"
"""Without numbers: this text is stored, and each change of it is a write."""
MAX_HEALTH_PER_SPEC = 4
"""At most this many failing instances of a GPU specification are reported."""


def is_running(instance: Instance, now: float) -> bool:
    """Whether the instance can serve at ``now``, Unix seconds."""
    return (
        instance.is_connected
        and instance.is_healthy
        and instance.phase in ALIVE
        and now < instance.lease_until
    )


def of_deployment(deployment: Deployment, instances: Iterable[Instance]) -> list[Instance]:
    """Return the instances that were started for ``deployment``, not for an earlier one."""
    return [
        instance for instance in instances if instance.deployment_id == deployment.deployment_id
    ]


def state_of(
    before: VersionState, deployment: Deployment | None, instances: Iterable[Instance], now: float
) -> VersionState:
    """Return the state at ``now``, Unix seconds, of a version that had the state ``before``.

    An INACTIVE version with a deployment has just been deployed: the deployment is written first.
    """
    if deployment is None or deployment.draining_until is not None:
        return VersionState.INACTIVE
    own = of_deployment(deployment, instances)
    running = Counter(instance.spec_id for instance in own if is_running(instance, now))
    is_complete = all(running[spec.spec_id] >= spec.min_instances for spec in deployment.specs)
    if before is VersionState.ERROR:
        recovers = is_complete and deployment.is_external
        return VersionState.ACTIVE if recovers else VersionState.ERROR
    if is_complete:
        return VersionState.ACTIVE
    if before in {VersionState.INACTIVE, VersionState.DEPLOYING}:
        if now >= deployment.deadline_at or has_failed(deployment, own):
            return VersionState.ERROR
        return VersionState.DEPLOYING
    serves = any(running[spec.spec_id] for spec in deployment.specs)
    return VersionState.DEGRADING if serves else VersionState.DEGRADED


def capacity_of(deployment: Deployment | None, instances: Iterable[Instance], now: float) -> int:
    """Return how many requests at a time the version can serve at ``now``, Unix seconds."""
    if deployment is None:
        return 0
    own = of_deployment(deployment, instances)
    return sum(instance.slots for instance in own if is_running(instance, now))


def has_failed(deployment: Deployment, own: Iterable[Instance]) -> bool:
    """Whether every wanted instance has failed for good."""
    phases = Counter(instance.phase for instance in own)
    wanted = sum(spec.min_instances for spec in deployment.specs)
    return not any(phases[phase] for phase in ALIVE) and phases[Phase.FAILED] >= wanted > 0


def changes_at(deployment: Deployment, instances: Iterable[Instance], now: float) -> float | None:
    """Return when the state may change by time alone, in Unix seconds; `None` if it cannot."""
    own = of_deployment(deployment, instances)
    times = [instance.lease_until for instance in own if is_running(instance, now)]
    times.append(deployment.deadline_at)
    return min((time for time in times if time > now), default=None)


def health_of(
    deployment: Deployment, instances: Iterable[Instance], now: float, *, is_error: bool = False
) -> tuple[HealthInfo, ...]:
    """Return why GPU specifications have fewer running instances than wanted.

    Only for specifications with instances that report an error, or that wait for external workers;
    if the state ``is_error``, for all.
    """
    own = of_deployment(deployment, instances)
    found: list[HealthInfo] = []
    for spec in deployment.specs:
        of_spec = [instance for instance in own if instance.spec_id == spec.spec_id]
        running = sum(is_running(instance, now) for instance in of_spec)
        if running >= max(spec.min_instances, 1):
            continue
        failing = [
            instance for instance in of_spec if instance.error and not is_running(instance, now)
        ]
        failing.sort(key=lambda instance: instance.updated_at, reverse=True)
        found += [
            _health(spec, instance.instance_id, instance.error)
            for instance in failing[:MAX_HEALTH_PER_SPEC]
        ]
        if running >= spec.min_instances or failing:
            continue
        if is_error:
            missing = f"{running} of {spec.min_instances} instances ran before the deploy deadline"
            if spec.is_external:
                missing += f"; {WAITS_FOR_WORKERS}"
            found.append(_health(spec, of_spec[0].instance_id if of_spec else "", missing))
        elif spec.is_external:
            found.append(_health(spec, "", WAITS_FOR_WORKERS))
    return tuple(found)


def _health(spec: GpuSpec, instance_id: str, error: str) -> HealthInfo:
    return HealthInfo(
        spec_id=spec.spec_id,
        gpu=spec.gpu,
        backend=spec.backend,
        instance_type=spec.instance_type,
        instance_id=instance_id,
        error=error,
    )
