"""Deploy, get, update and undeploy versions (`docs/wire.md` §11).

These routes only write records; the reconciler starts and stops instances accordingly. The order of
writes is that of `gateway.domain.lifecycle`.
"""

from collections.abc import Mapping, Sequence

from gateway.api.access import (
    AnyCall,
    VisibleVersion,
    find_owned,
    find_visible,
    not_found,
    refuse_public,
    require_reach,
)
from gateway.api.removal import decide, delete_rest
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.deployments import (
    Deploy,
    DeploymentResponse,
    PatchSpec,
    SpecResponse,
    UndeployQuery,
    UpdateDeployment,
)
from gateway.api.schemas.function_views import FunctionResponse
from gateway.api.serializers import deployment_view, function_view, spec_view
from gateway.domain import lifecycle
from gateway.domain.clusters import source_of
from gateway.domain.compare_and_set import change_deployment, change_version, delete_record
from gateway.domain.lifecycle import SpecRequest
from gateway.domain.model import (
    Deployment,
    FunctionVersion,
    GpuSpec,
    VersionState,
)
from gateway.domain.ports import AccountStore
from gateway.domain.readmodel import FunctionEntry
from gateway.domain.telemetry_endpoint import check_version, endpoint_ids
from gateway.errors import BadRequest, Conflict, NotFound
from queueing.interface import QueueUnavailable


async def deploy(api: Api, call: Call[Deploy, None]) -> DeploymentResponse:
    """Deploy a version; a failed deployment is replaced. Of two concurrent calls, one gets 409."""
    version = await find_owned(api, call)
    store = call.store(api)
    found = await store.deployment(call.function_id, call.version_id)
    before, revision = found if found is not None else (None, 0)
    lifecycle.check_deployable(version, before)
    if version.state is VersionState.INACTIVE and before is not None:
        if await _has_requests(api, call.version_id):
            raise lifecycle.refuse_draining(version)
    requests = [body.spec_request() for body in call.body.deployment_specifications]
    details = await store.details(call.function_id, call.version_id)
    spec: Mapping[str, object] = details[0].spec if details is not None else {}
    _check_requests(requests, spec, api.region)
    specs = lifecycle.choose_specs(
        requests, api.clusters, call.account, source_of(spec), api.new_id
    )
    await _check_telemetries(api, call.account, spec, specs)
    deployment, wanted = lifecycle.deploy_records(
        version, api.new_id(), specs, api.clock(), api.deploy_timeout_s
    )
    await _replace(store, deployment, before, revision)

    def begin(now: FunctionVersion) -> FunctionVersion:
        # The reconciler may already have set a state for the new deployment.
        if now.state in (VersionState.INACTIVE, VersionState.ERROR):
            return lifecycle.with_state(now, wanted.state)
        return now

    after = await change_version(store, call.function_id, call.version_id, begin)
    if after is None:
        await delete_record(store, lambda: store.deployment(call.function_id, call.version_id))
        raise not_found(call.function_id, call.version_id)
    return DeploymentResponse(deployment=deployment_view(after, deployment, api.region))


async def get(api: Api, call: Call[None, None]) -> DeploymentResponse:
    """Get the deployment of a version, also while it drains."""
    version = (await find_visible(api, call)).version
    deployment = api.catalog.deployment(call.version_id)
    if deployment is None:
        found = await call.store(api).deployment(call.function_id, call.version_id)
        deployment = found[0] if found is not None else None
    if deployment is None or deployment.account != call.account:
        raise _not_deployed(call)
    return DeploymentResponse(deployment=deployment_view(version, deployment, api.region))


async def update(api: Api, call: Call[UpdateDeployment, None]) -> DeploymentResponse:
    """Update the numbers of a deployment."""
    version = await find_owned(api, call)
    lifecycle.check_busy(version)
    requests = [body.spec_request() for body in call.body.deployment_specifications]
    now = api.clock()
    deployment = await change_deployment(
        call.store(api),
        call.function_id,
        call.version_id,
        lambda stored: lifecycle.update_deployment(version, stored, requests, now),
    )
    if deployment is None:
        raise _not_deployed(call)
    return DeploymentResponse(deployment=deployment_view(version, deployment, api.region))


async def undeploy(api: Api, call: Call[None, UndeployQuery]) -> FunctionResponse:
    """Undeploy a version, at once or after its queued and running requests.

    The deployment is marked first: the reconciler finishes what this call cannot write after that.
    """
    version = await find_owned(api, call)
    store, function_id, version_id = call.store(api), call.function_id, call.version_id
    now = api.clock()
    is_graceful = call.query.graceful and await _has_work(api, version_id)
    until = now + api.drain_timeout_s if is_graceful else now

    async def read_draining() -> Deployment | None:
        found = await store.deployment(function_id, version_id)
        return None if found is None or found[0].draining_until is None else found[0]

    draining = await decide(
        lambda: change_deployment(
            store,
            function_id,
            version_id,
            lambda stored: lifecycle.drain_deployment(stored, until, now),
        ),
        read_draining,
        "the version was not undeployed",
    )
    if draining is None:
        raise _not_deployed(call)

    async def set_inactive() -> None:
        await change_version(store, function_id, version_id, _inactive)

    async def delete_deployment() -> None:
        if not is_graceful:
            await delete_record(store, lambda: store.deployment(function_id, version_id))

    await delete_rest(version_id, set_inactive, delete_deployment)
    details = api.catalog.details(function_id, version_id)
    return FunctionResponse(function=function_view(_inactive(version), details, is_owner=True))


def _inactive(version: FunctionVersion) -> FunctionVersion:
    return lifecycle.with_state(version, VersionState.INACTIVE)


async def get_by_id(api: Api, call: Call[None, None]) -> DeploymentResponse:
    """Get a deployment by its id."""
    version, deployment = await _find_by_id(api, call)
    return DeploymentResponse(deployment=deployment_view(version, deployment, api.region))


async def patch(api: Api, call: Call[PatchSpec, None]) -> SpecResponse:
    """Update one GPU specification of a deployment."""
    version, known = await _find_by_id(api, call)
    refuse_public(api.catalog.function(known.function_id), known.version_id)
    body, now = call.body, api.clock()
    spec_id = call.variable("gpuSpecificationId")

    def change(stored: Deployment) -> Deployment:
        if stored.deployment_id != known.deployment_id:
            raise _no_deployment()
        bounds = (body.min_instances, body.max_instances)
        changed = lifecycle.patch_deployment(stored, spec_id, bounds, body.extra(), now)
        lifecycle.check_updatable(version, stored)
        return changed

    after = await change_deployment(call.store(api), known.function_id, known.version_id, change)
    spec = after.spec(spec_id) if after is not None else None
    if spec is None:
        raise _no_deployment()
    return SpecResponse(gpu_specification=spec_view(spec))


async def _find_by_id(api: Api, call: AnyCall) -> tuple[FunctionVersion, Deployment]:
    """Return the deployment that a call names, if it is the caller's own. Raises `NotFound`."""
    deployment_id, store = call.variable("deploymentId"), call.store(api)
    deployment = api.catalog.deployment_of_id(deployment_id)
    if deployment is None:
        # Another process may have written it a moment ago.
        await store.show_deployments()
        deployment = api.catalog.deployment_of_id(deployment_id)
    if deployment is None or deployment.account != call.account:
        raise _no_deployment()
    found = await store.version(deployment.function_id, deployment.version_id)
    if found is None:
        raise _no_deployment()
    require_reach(call.principal, VisibleVersion(FunctionEntry(), found[0]))
    return found[0], deployment


async def _has_work(api: Api, version_id: str) -> bool:
    """Whether a graceful undeploy has to wait; also if the broker is away and it is not known."""
    if api.catalog.instances(version_id):
        return True
    try:
        return await api.queue.depth(version_id) > 0
    except QueueUnavailable:
        return True


async def _replace(
    store: AccountStore, deployment: Deployment, before: Deployment | None, revision: int
) -> None:
    """Write ``deployment`` in place of ``before``, which the reconciler may delete meanwhile."""
    try:
        await store.put(deployment, revision)
    except Conflict:
        is_gone = await store.deployment(deployment.function_id, deployment.version_id) is None
        if before is None or not is_gone:
            raise
        await store.put(deployment, 0)


async def _has_requests(api: Api, version_id: str) -> bool:
    """Whether requests of a version that drains wait or run; also if that is not known."""
    if any(instance.busy for instance in api.catalog.instances(version_id)):
        return True
    try:
        return await api.queue.depth(version_id) > 0
    except QueueUnavailable:
        return True


def _check_requests(
    requests: Sequence[SpecRequest], spec: Mapping[str, object], region: str
) -> None:
    """Raise `BadRequest` for members that do not fit the version or this gateway."""
    for request in requests:
        regions = request.extra.get("regions")
        named = {str(name).lower() for name in regions} if isinstance(regions, list) else set()
        if named - {""} and region.lower() not in named:
            raise BadRequest(f"regions: this gateway runs instances in '{region}' only")
        for name in ("configuration", "helmValidationPolicy"):
            if name in request.extra and "helmChart" not in spec:
                raise BadRequest(f"{name} is for Helm functions")


async def _check_telemetries(
    api: Api, account: str, spec: Mapping[str, object], specs: Sequence[GpuSpec]
) -> None:
    """Raise `BadRequest` for telemetries that the version's instances could not send to."""
    if not endpoint_ids(spec):
        return
    for one in specs:
        if one.is_external:
            raise BadRequest(
                f"telemetries: others start the workers of cluster '{one.backend}'; deploy a "
                "version without it there, and give OTEL_EXPORTER_OTLP_* to its servers yourself"
            )
    check_version(spec, await api.telemetry_endpoints.of(account), ())


def _no_deployment() -> NotFound:
    return NotFound("The account has no deployment with this id")


def _not_deployed(call: AnyCall) -> NotFound:
    return NotFound(f"Function id '{call.function_id}', version '{call.version_id}': not deployed")


_VERSION = "/v2/nvcf/deployments/functions/{functionId}/versions/{functionVersionId}"
_TAG = "deployments"
_SCOPES = ("deploy_function",)

ROUTES: tuple[AnyRoute, ...] = (
    Route("POST", _VERSION, deploy, "Deploy a version", _TAG, _SCOPES, DeploymentResponse, Deploy),
    Route("GET", _VERSION, get, "Get a deployment", _TAG, _SCOPES, DeploymentResponse),
    Route(
        "PUT",
        _VERSION,
        update,
        "Update the deployment of a version",
        _TAG,
        _SCOPES,
        DeploymentResponse,
        UpdateDeployment,
    ),
    Route(
        "DELETE",
        _VERSION,
        undeploy,
        "Undeploy a version",
        _TAG,
        _SCOPES,
        FunctionResponse,
        query=UndeployQuery,
    ),
    Route(
        "GET",
        "/v2/nvcf/deployments/{deploymentId}",
        get_by_id,
        "Get a deployment by its id",
        _TAG,
        _SCOPES,
        DeploymentResponse,
    ),
    Route(
        "PATCH",
        "/v2/nvcf/deployments/{deploymentId}/gpu-specifications/{gpuSpecificationId}",
        patch,
        "Update one GPU specification",
        _TAG,
        _SCOPES,
        SpecResponse,
        PatchSpec,
    ),
)
