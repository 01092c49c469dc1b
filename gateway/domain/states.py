"""The state of a version: one function of what was asked for and what is there.

    INACTIVE    nothing is asked for, or an undeploy is under way
    DEPLOYING   asked for, and not yet once everything that was asked for has run
    ACTIVE      of every GPU specification at least as many instances run as are asked for
    DEGRADING   fewer, but some: what runs serves
    DEGRADED    none runs
    ERROR       not everything ran before the deploy deadline, or every instance failed for good

Of instances only those count that can serve: the worker is connected, its lease has not ended, the
inference server is healthy (`spec/control-plane.md` §3.5). DEPLOYING and ERROR depend on the state
before: the first ends when everything ran once, the second only with an undeploy.

Nothing here knows why something is not there. Whoever reads and fails must not call.
"""

from collections import Counter
from collections.abc import Iterable

from gateway.domain.model import Deployment, GpuSpec, HealthInfo, Instance, Phase, State

ALIVE = frozenset({Phase.STARTING, Phase.RUNNING})
"""Phases of an instance that serves or shall serve."""
MAX_HEALTH_PER_SPEC = 4
"""More instances that fail at the same time rarely tell more."""


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
    return [one for one in instances if one.deployment_id == deployment.deployment_id]


def state_of(
    before: State, deployment: Deployment | None, instances: Iterable[Instance], now: float
) -> State:
    """Return the state of the version at ``now``, Unix seconds, that had the state ``before``.

    An INACTIVE version with a deployment has just been deployed: the deployment is written first.
    """
    if deployment is None or deployment.draining_until is not None:
        return State.INACTIVE
    if before is State.ERROR:
        return State.ERROR
    own = of_deployment(deployment, instances)
    running = Counter(one.spec_id for one in own if is_running(one, now))
    if all(running[spec.spec_id] >= spec.min_instances for spec in deployment.specs):
        return State.ACTIVE
    if before in {State.INACTIVE, State.DEPLOYING}:
        if now >= deployment.deadline_at or has_failed(deployment, own):
            return State.ERROR
        return State.DEPLOYING
    return State.DEGRADING if running else State.DEGRADED


def capacity_of(deployment: Deployment | None, instances: Iterable[Instance], now: float) -> int:
    """Return how many requests the version can serve at the same time at ``now``."""
    if deployment is None:
        return 0
    return sum(one.slots for one in of_deployment(deployment, instances) if is_running(one, now))


def has_failed(deployment: Deployment, own: Iterable[Instance]) -> bool:
    """Whether every instance that was asked for has failed for good."""
    phases = Counter(one.phase for one in own)
    wanted = sum(spec.min_instances for spec in deployment.specs)
    return not any(phases[phase] for phase in ALIVE) and phases[Phase.FAILED] >= wanted > 0


def changes_at(deployment: Deployment, instances: Iterable[Instance], now: float) -> float | None:
    """Return when the state may change by time alone, `None` when it cannot."""
    times = [
        one.lease_until for one in of_deployment(deployment, instances) if is_running(one, now)
    ]
    times.append(deployment.deadline_at)
    return min((time for time in times if time > now), default=None)


def health_of(
    deployment: Deployment, instances: Iterable[Instance], now: float, *, is_error: bool = False
) -> tuple[HealthInfo, ...]:
    """Return why specifications have fewer running instances than asked for.

    Only of specifications whose instances have something to say, unless the state ``is_error``:
    then also of those that are just not there.
    """
    own = of_deployment(deployment, instances)
    found: list[HealthInfo] = []
    for spec in deployment.specs:
        of_spec = [one for one in own if one.spec_id == spec.spec_id]
        running = sum(is_running(one, now) for one in of_spec)
        if running >= max(spec.min_instances, 1):
            continue
        failing = [one for one in of_spec if one.error and not is_running(one, now)]
        failing.sort(key=lambda one: one.updated_at, reverse=True)
        found += [
            _health(spec, one.instance_id, one.error) for one in failing[:MAX_HEALTH_PER_SPEC]
        ]
        if is_error and not failing and running < spec.min_instances:
            missing = f"{running} of {spec.min_instances} instances ran before the deploy deadline"
            found.append(_health(spec, of_spec[0].instance_id if of_spec else "", missing))
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
