"""Operations of the API on a version and its deployment: when they are allowed, what they write.

    register                                  -> INACTIVE, no deployment
    deploy     INACTIVE or ERROR              -> deployment; DEPLOYING, or ACTIVE if every min is 0
    update     DEPLOYING ACTIVE DEGR…         -> other numbers in the same deployment
    undeploy   any state with a deployment    -> INACTIVE; the deployment drains, or is deleted

Functions that return several records return them in the order in which they must be written: the
deployment before the state. A process that dies between the two writes leaves records from which
the reconciler can continue: INACTIVE with a deployment that does not drain has just been deployed;
any state with a deployment that drains becomes INACTIVE. A deployment replaces one that has failed,
or that drains without requests. All other state changes:
`gateway.domain.states`.

Sources: `docs/wire.md` §10.1, §11, §13.2.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from gateway.domain.clusters import Choice, Clusters, VersionSource
from gateway.domain.cors import page_policy_of
from gateway.domain.deployment import Deployment, GpuSpec, VersionDetails
from gateway.domain.model import BUSY, FunctionVersion, VersionState
from gateway.domain.rate_limit import policy_of
from gateway.errors import BadRequest, NotFound
from wire.ids import FunctionId, VersionId

DEFAULT_PORT = 8000


@dataclass(frozen=True, slots=True)
class SpecRequest:
    """One GPU specification of a call; `None` or empty means that the call does not say.

    ``extra`` are members that the gateway only stores, in the form of the API.
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


def register_records(
    account: str,
    function_id: FunctionId,
    version_id: VersionId,
    spec: Mapping[str, object],
    now: float,
    secret_names: Sequence[str] = (),
) -> tuple[VersionDetails, FunctionVersion]:
    """Return the records of a new version, in the order in which to write them."""
    at = timestamp(now)
    url = str(spec["inferenceUrl"])
    port, max_body_bytes = spec.get("inferencePort"), spec.get("maxBodyBytes")
    version = FunctionVersion(
        function_id,
        version_id,
        account,
        str(spec["name"]),
        VersionState.INACTIVE,
        inference_path=url if url.startswith("/") else f"/{url}",
        inference_port=port if isinstance(port, int) else DEFAULT_PORT,
        created_at=at,
        allows_rerun=spec.get("allowRerun") is not False,
        passes_interim=spec.get("passInterim") is True,
        max_body_bytes=max_body_bytes if isinstance(max_body_bytes, int) else 0,
        rate_limit=policy_of(spec),
        page_policy=page_policy_of(spec),
    )
    details = VersionDetails(
        function_id, version_id, account, at, spec, tuple(secret_names), updated_at=at
    )
    return details, version


def check_family(existing: Iterable[str], new: str) -> None:
    """Raise `BadRequest` if one of the two types is LLM and the other is not."""
    if any((kind == "LLM") != (new == "LLM") for kind in existing):
        raise BadRequest("The versions of one function are all of type LLM, or none is")


def check_limit(functions: int, limit: int) -> None:
    """Raise `BadRequest` if an account has reached its limit of functions."""
    if functions >= limit:
        raise BadRequest(f"The account has {functions} functions; {limit} are allowed")


def choose_specs(
    requests: Sequence[SpecRequest],
    clusters: Clusters,
    account: str,
    source: VersionSource,
    new_id: Callable[[], str],
) -> tuple[GpuSpec, ...]:
    """Choose cluster group, GPU and instance type, where ``source`` can be run.

    Raises `BadRequest` if there is no such place for a request.
    """
    able = clusters.that_run(source, account)
    specs = []
    for request in requests:
        _check_bounds(request.min_instances, request.max_instances)
        choice = _choose(request, clusters, account)
        if able.group(choice.group) is None:
            try:
                choice = _choose(request, able, account)
            except BadRequest:
                raise BadRequest(clusters.explain(source, account, choice.group)) from None
        specs.append(
            GpuSpec(
                spec_id=new_id(),
                gpu=choice.gpu,
                backend=choice.group,
                instance_type=choice.instance_type,
                min_instances=request.min_instances,
                max_instances=request.max_instances,
                concurrency=request.concurrency or 1,
                extra=request.extra,
                is_external=choice.is_external,
            )
        )
    return tuple(specs)


def _choose(request: SpecRequest, clusters: Clusters, account: str) -> Choice:
    return clusters.choose(
        account,
        request.gpu,
        backend=request.backend,
        clusters=request.clusters,
        instance_type=request.instance_type,
    )


def check_deployable(version: FunctionVersion, deployment: Deployment | None) -> None:
    """Raise `BadRequest` if the version cannot be deployed in its state.

    A failed deployment is replaced, and so is one that drains: if it has requests to finish, the
    caller checks that with `refuse_draining`.
    """
    if version.state in BUSY:
        raise _refuse(
            version,
            "already deployed: change its deployment with 'gateway deployments update' "
            "(PATCH or PUT)",
        )
    if version.state is VersionState.INACTIVE and deployment is not None:
        if deployment.draining_until is None:
            raise _refuse(version, "is being deployed by another call")


def refuse_draining(version: FunctionVersion) -> BadRequest:
    """Return the error for a version whose last deployment has requests to finish."""
    return _refuse(version, "is still being undeployed: wait until its requests are finished")


def deploy_records(
    version: FunctionVersion,
    deployment_id: str,
    specs: tuple[GpuSpec, ...],
    now: float,
    deadline_s: float,
) -> tuple[Deployment, FunctionVersion]:
    """Return the records of a new deployment, in the order in which to write them.

    ``now`` is Unix seconds, ``deadline_s`` the deploy timeout.
    """
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
    return deployment, replace(
        version, state=VersionState.ACTIVE if idle else VersionState.DEPLOYING
    )


def update_deployment(
    version: FunctionVersion, deployment: Deployment, requests: Sequence[SpecRequest], now: float
) -> Deployment:
    """Return the deployment with the requested numbers; the same object if nothing changes.

    Raises `BadRequest` for a request that would change more than numbers.
    """
    check_updatable(version, deployment)
    if len(requests) != len(deployment.specs):
        raise _refuse(version, f"has {len(deployment.specs)} GPU specifications: give them all")
    if len({request.spec_id for request in requests}) != len(requests):
        raise _refuse(version, "give the gpuSpecificationId of each specification, once")
    changed = {}
    for request in requests:
        spec = _find_spec(version, deployment, request)
        _check_same(version, spec, request)
        _check_bounds(request.min_instances, request.max_instances)
        changed[spec.spec_id] = replace(
            spec,
            min_instances=request.min_instances,
            max_instances=request.max_instances,
            concurrency=request.concurrency or spec.concurrency,
        )
    return _with(deployment, tuple(changed[spec.spec_id] for spec in deployment.specs), now)


def patch_deployment(
    deployment: Deployment,
    spec_id: str,
    bounds: tuple[int | None, int | None],
    extra: Mapping[str, object],
    now: float,
) -> Deployment:
    """Return the deployment with one GPU specification changed; the same if nothing changes.

    ``bounds`` are min and max instances; `None` keeps a value. ``extra`` replaces members by name;
    `None` deletes one. Raises `NotFound`, `BadRequest`.
    """
    spec = deployment.spec(spec_id)
    if spec is None:
        raise NotFound("The deployment has no GPU specification with this id")
    low = spec.min_instances if bounds[0] is None else bounds[0]
    high = spec.max_instances if bounds[1] is None else bounds[1]
    _check_bounds(low, high)
    merged = {name: value for name, value in {**spec.extra, **extra}.items() if value is not None}
    new = replace(spec, min_instances=low, max_instances=high, extra=merged)
    specs = tuple(new if old.spec_id == spec_id else old for old in deployment.specs)
    return _with(deployment, specs, now)


def check_busy(version: FunctionVersion) -> None:
    """Raise `BadRequest` if the version is not deployed or its deployment has failed."""
    if version.state not in BUSY:
        raise _refuse(version, f"cannot be changed while {version.state.value}")


def check_updatable(version: FunctionVersion, deployment: Deployment) -> None:
    """Raise `BadRequest` if the deployment has failed or drains."""
    check_busy(version)
    if deployment.draining_until is not None:
        raise _refuse(version, "is being undeployed and cannot be changed")


def drain_deployment(deployment: Deployment, until: float, now: float) -> Deployment:
    """Return the deployment draining until ``until`` (Unix seconds) at the latest.

    The end of a deployment that drains already can be moved forward, not back.
    """
    before = deployment.draining_until
    at = int(until) if before is None else min(before, int(until))
    return replace(deployment, draining_until=at, updated_at=timestamp(now))


def with_state(version: FunctionVersion, state: VersionState) -> FunctionVersion:
    """Return the version with another state."""
    return replace(version, state=state)


def label(version: FunctionVersion) -> str:
    """Return the name of a version in problem documents (`docs/wire.md` §9.3)."""
    return f"Function id '{version.function_id}', version '{version.version_id}'"


def _refuse(version: FunctionVersion, why: str) -> BadRequest:
    return BadRequest(f"{label(version)}: {why}", functionStatus=version.state.value)


def _check_bounds(low: int, high: int) -> None:
    if low > high:
        raise BadRequest("minInstances is above maxInstances")


def _find_spec(version: FunctionVersion, deployment: Deployment, request: SpecRequest) -> GpuSpec:
    """Return the stored specification that a request is about. Raises `BadRequest`."""
    if request.spec_id is None:
        if len(deployment.specs) > 1:
            raise _refuse(version, "has several GPU specifications: give gpuSpecificationId")
        return deployment.specs[0]
    spec = deployment.spec(request.spec_id)
    if spec is None:
        raise _refuse(version, "a gpuSpecificationId is none of this deployment's")
    return spec


def _check_same(version: FunctionVersion, spec: GpuSpec, request: SpecRequest) -> None:
    """Raise `BadRequest` if the request names another backend, GPU, type or clusters."""
    for member, requested, stored in (
        ("backend", request.backend, spec.backend),
        ("gpu", request.gpu, spec.gpu),
        ("instanceType", request.instance_type, spec.instance_type),
    ):
        given = str(spec.extra.get(member, ""))
        if requested and requested.lower() not in (stored.lower(), given.lower()):
            raise _refuse(version, f"{member} cannot be changed: undeploy and deploy again")
    stored_clusters = spec.extra.get("clusters")
    known = set(stored_clusters) if isinstance(stored_clusters, list) else set()
    if request.clusters and set(request.clusters) != known:
        raise _refuse(version, "clusters cannot be changed: undeploy and deploy again")


def _with(deployment: Deployment, specs: tuple[GpuSpec, ...], now: float) -> Deployment:
    if specs == deployment.specs:
        return deployment
    return replace(deployment, specs=specs, updated_at=timestamp(now))
