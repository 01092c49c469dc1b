"""What may be done to a version and its deployment, and what the records are afterwards.

    register   INACTIVE, no deployment
    deploy     INACTIVE, no deployment        -> deployment; DEPLOYING, or ACTIVE if every min is 0
    update     DEPLOYING ACTIVE DEGR…         -> other numbers in the same deployment
    undeploy   any state with a deployment    -> INACTIVE; the deployment drains, or is removed

Records that follow from a call are written in the order given here, the deployment before the
state, so that a process that dies between the two leaves what a later look can finish: INACTIVE
with a deployment that does not drain has just been deployed, any state with one that drains is
about to be INACTIVE. Everything else that happens to a state is `gateway.domain.states`.

Sources: `spec/control-plane.md` §1.2, §1.5 to §1.8, §3.3.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from gateway.domain.clusters import Clusters
from gateway.domain.deployment import Deployment, GpuSpec, VersionDetails
from gateway.domain.model import BUSY, FunctionVersion, State
from gateway.errors import BadRequest, NotFound
from wire.ids import FunctionId, VersionId

DEFAULT_PORT = 8000


@dataclass(frozen=True, slots=True)
class Wish:
    """One GPU specification of a call; `None` and empty mean that nothing was said.

    ``extra`` are the members that nobody here looks at, in the API's own form.
    """

    gpu: str = ""
    backend: str = ""
    clusters: tuple[str, ...] = ()
    instance_type: str = ""
    min_instances: int = 0
    max_instances: int = 1
    concurrency: int | None = None
    spec_id: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)


def timestamp(now: float) -> str:
    """Return Unix seconds as ISO 8601, UTC, microseconds, ``Z``: text that sorts by time."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def registered(
    account: str,
    function_id: FunctionId,
    version_id: VersionId,
    spec: Mapping[str, object],
    now: float,
    secret_names: Sequence[str] = (),
) -> tuple[VersionDetails, FunctionVersion]:
    """Return the records of a new version, in the order in which they are to be written."""
    at = timestamp(now)
    url = str(spec["inferenceUrl"])
    port = spec.get("inferencePort")
    version = FunctionVersion(
        function_id,
        version_id,
        account,
        str(spec["name"]),
        State.INACTIVE,
        inference_path=url if url.startswith("/") else f"/{url}",
        inference_port=port if isinstance(port, int) else DEFAULT_PORT,
        created_at=at,
    )
    details = VersionDetails(
        function_id, version_id, account, at, spec, tuple(secret_names), updated_at=at
    )
    return details, version


def check_family(existing: Iterable[str], new: str) -> None:
    """Refuse an LLM version under a function of another type, and the reverse."""
    if any((kind == "LLM") != (new == "LLM") for kind in existing):
        raise BadRequest("The versions of one function are all of type LLM, or none is")


def check_limit(functions: int, limit: int) -> None:
    """Refuse one more function when there are as many as an account may have."""
    if functions >= limit:
        raise BadRequest(f"The account has {functions} functions; {limit} are allowed")


def placed(
    wishes: Sequence[Wish], clusters: Clusters, account: str, new_id: Callable[[], str]
) -> tuple[GpuSpec, ...]:
    """Return where instances are to run. Raises `BadRequest` for what cannot be."""
    specs = []
    for wish in wishes:
        _check_bounds(wish.min_instances, wish.max_instances)
        choice = clusters.choose(
            account,
            wish.gpu,
            backend=wish.backend,
            clusters=wish.clusters,
            instance_type=wish.instance_type,
        )
        specs.append(
            GpuSpec(
                spec_id=new_id(),
                gpu=choice.gpu,
                backend=choice.group,
                instance_type=choice.instance_type,
                min_instances=wish.min_instances,
                max_instances=wish.max_instances,
                concurrency=wish.concurrency or 1,
                extra=wish.extra,
            )
        )
    return tuple(specs)


def check_deployable(version: FunctionVersion, deployment: Deployment | None) -> None:
    """Refuse a deploy in a state that does not allow it."""
    if version.state is State.ERROR:
        raise _refused(version, "has a deployment with errors: undeploy it first")
    if version.state is not State.INACTIVE:
        raise _refused(version, "already deployed: change the deployment with PATCH or PUT")
    if deployment is not None:
        raise _refused(version, "is still being undeployed: wait until that is finished")


def deployed(
    version: FunctionVersion,
    deployment_id: str,
    specs: tuple[GpuSpec, ...],
    now: float,
    deadline_s: float,
) -> tuple[Deployment, FunctionVersion]:
    """Return the records of a new deployment, in the order in which they are to be written."""
    at = timestamp(now)
    deployment = Deployment(
        deployment_id,
        version.function_id,
        version.version_id,
        version.account,
        specs,
        created_at=at,
        updated_at=at,
        deadline_at=int(now + deadline_s),
    )
    idle = all(spec.min_instances == 0 for spec in specs)
    return deployment, replace(version, state=State.ACTIVE if idle else State.DEPLOYING)


def updated(
    version: FunctionVersion, deployment: Deployment, wishes: Sequence[Wish], now: float
) -> Deployment:
    """Return the deployment with other numbers; the same object if nothing changes.

    Raises `BadRequest` for a wish that would change more than numbers.
    """
    check_updatable(version, deployment)
    if len(wishes) != len(deployment.specs):
        raise _refused(version, f"has {len(deployment.specs)} GPU specifications: give them all")
    if len({wish.spec_id for wish in wishes}) != len(wishes):
        raise _refused(version, "give the gpuSpecificationId of each specification, once")
    changed = {}
    for wish in wishes:
        spec = _meant(version, deployment, wish)
        _check_same(version, spec, wish)
        _check_bounds(wish.min_instances, wish.max_instances)
        changed[spec.spec_id] = replace(
            spec,
            min_instances=wish.min_instances,
            max_instances=wish.max_instances,
            concurrency=wish.concurrency or spec.concurrency,
        )
    return _with(deployment, tuple(changed[spec.spec_id] for spec in deployment.specs), now)


def patched(
    deployment: Deployment,
    spec_id: str,
    bounds: tuple[int | None, int | None],
    extra: Mapping[str, object],
    now: float,
) -> Deployment:
    """Return the deployment with one GPU specification changed; the same if nothing changes.

    ``bounds`` are min and max, `None` as it was. ``extra`` replaces members of that name; `None`
    takes one away. Raises `NotFound`, `BadRequest`.
    """
    spec = deployment.spec(spec_id)
    if spec is None:
        raise NotFound("The deployment has no GPU specification with this id")
    low = spec.min_instances if bounds[0] is None else bounds[0]
    high = spec.max_instances if bounds[1] is None else bounds[1]
    _check_bounds(low, high)
    merged = {name: value for name, value in {**spec.extra, **extra}.items() if value is not None}
    new = replace(spec, min_instances=low, max_instances=high, extra=merged)
    specs = tuple(new if one.spec_id == spec_id else one for one in deployment.specs)
    return _with(deployment, specs, now)


def check_busy(version: FunctionVersion) -> None:
    """Refuse to change the deployment of a version that has none, or one that failed."""
    if version.state not in BUSY:
        raise _refused(version, f"cannot be changed while {version.state.value}")


def check_updatable(version: FunctionVersion, deployment: Deployment) -> None:
    """Refuse to change a deployment that failed or is on its way out."""
    check_busy(version)
    if deployment.draining_until is not None:
        raise _refused(version, "is being undeployed and cannot be changed")


def draining(deployment: Deployment, until: float, now: float) -> Deployment:
    """Return the deployment on its way out, by ``until`` (Unix seconds) at the latest.

    One that drains already may be hurried, never given more time.
    """
    before = deployment.draining_until
    at = int(until) if before is None else min(before, int(until))
    return replace(deployment, draining_until=at, updated_at=timestamp(now))


def moved(version: FunctionVersion, state: State) -> FunctionVersion:
    """Return the version in another state."""
    return replace(version, state=state)


def named(version: FunctionVersion) -> str:
    """Return how problem documents call a version (`spec/control-plane.md` §1.0)."""
    return f"Function id '{version.function_id}', version '{version.version_id}'"


def _refused(version: FunctionVersion, why: str) -> BadRequest:
    return BadRequest(f"{named(version)}: {why}", functionStatus=version.state.value)


def _check_bounds(low: int, high: int) -> None:
    if low > high:
        raise BadRequest("minInstances is above maxInstances")


def _meant(version: FunctionVersion, deployment: Deployment, wish: Wish) -> GpuSpec:
    if wish.spec_id is None:
        if len(deployment.specs) > 1:
            raise _refused(version, "has several GPU specifications: give gpuSpecificationId")
        return deployment.specs[0]
    spec = deployment.spec(wish.spec_id)
    if spec is None:
        raise _refused(version, "a gpuSpecificationId is none of this deployment's")
    return spec


def _check_same(version: FunctionVersion, spec: GpuSpec, wish: Wish) -> None:
    for what, said, stored in (
        ("backend", wish.backend, spec.backend),
        ("gpu", wish.gpu, spec.gpu),
        ("instanceType", wish.instance_type, spec.instance_type),
    ):
        if said and said.lower() != stored.lower():
            raise _refused(version, f"{what} cannot be changed: undeploy and deploy again")
    stored_clusters = spec.extra.get("clusters")
    known = set(stored_clusters) if isinstance(stored_clusters, list) else set()
    if wish.clusters and set(wish.clusters) != known:
        raise _refused(version, "clusters cannot be changed: undeploy and deploy again")


def _with(deployment: Deployment, specs: tuple[GpuSpec, ...], now: float) -> Deployment:
    if specs == deployment.specs:
        return deployment
    return replace(deployment, specs=specs, updated_at=timestamp(now))
