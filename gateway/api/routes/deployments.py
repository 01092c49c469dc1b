"""Deploy, look, change, undeploy (§1.5 to §1.8).

Only records are written here; whoever keeps instances follows them. The order of writes is that of
`gateway.domain.lifecycle`.
"""

from collections.abc import Mapping, Sequence

from gateway.api.access import (
    AnyCall,
    Seen,
    not_found,
    owned,
    refuse_public,
    require_reach,
    visible,
)
from gateway.api.compare_and_set import change_deployment, change_version, clear
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.deployments import (
    Deploy,
    DeploymentAnswer,
    PatchSpec,
    SpecAnswer,
    UndeployQuery,
    UpdateDeployment,
)
from gateway.api.schemas.function_views import FunctionAnswer
from gateway.api.serializers import deployment_view, function_view, spec_view
from gateway.domain import lifecycle
from gateway.domain.lifecycle import Wish
from gateway.domain.model import (
    Deployment,
    DeploymentRemoved,
    FunctionVersion,
    State,
    VersionDetails,
)
from gateway.domain.readmodel import FunctionEntry
from gateway.errors import BadRequest, NotFound
from queueing.interface import QueueUnavailable


async def deploy(api: Api, call: Call[Deploy, None]) -> DeploymentAnswer:
    """Run a version. Of two who do it at once, one is told 409."""
    version, _ = await owned(api, call)
    store = call.own(api)
    found = await store.deployment(call.function_id, call.version_id)
    lifecycle.check_deployable(version, found[0] if found is not None else None)
    wishes = [body.wish() for body in call.body.deployment_specifications]
    details = await store.details(call.function_id, call.version_id)
    _check_source(wishes, details[0] if details is not None else None)
    specs = lifecycle.placed(wishes, api.clusters, call.account, api.new_id)
    deployment, wanted = lifecycle.deployed(
        version, api.new_id(), specs, api.clock(), api.deploy_timeout_s
    )
    await store.put(deployment, 0)

    def begin(now: FunctionVersion) -> FunctionVersion:
        # Whoever keeps instances may have seen the deployment and been quicker.
        return lifecycle.moved(now, wanted.state) if now.state is State.INACTIVE else now

    after = await change_version(store, call.function_id, call.version_id, begin)
    if after is None:
        await clear(store, DeploymentRemoved(call.function_id, call.version_id))
        raise not_found(call.function_id, call.version_id)
    return DeploymentAnswer(deployment=deployment_view(after, deployment, api.region))


async def get(api: Api, call: Call[None, None]) -> DeploymentAnswer:
    """Look at a version's deployment, also while it drains."""
    seen = await visible(api, call)
    deployment = api.catalog.deployment(call.version_id)
    if deployment is None:
        found = await call.own(api).deployment(call.function_id, call.version_id)
        deployment = found[0] if found is not None else None
    if deployment is None or deployment.account != call.account:
        raise _not_deployed(call)
    return DeploymentAnswer(deployment=deployment_view(seen.version, deployment, api.region))


async def update(api: Api, call: Call[UpdateDeployment, None]) -> DeploymentAnswer:
    """Change the numbers of a deployment."""
    version, _ = await owned(api, call)
    lifecycle.check_busy(version)
    wishes = [body.wish() for body in call.body.deployment_specifications]
    now = api.clock()
    deployment = await change_deployment(
        call.own(api),
        call.function_id,
        call.version_id,
        lambda one: lifecycle.updated(version, one, wishes, now),
    )
    if deployment is None:
        raise _not_deployed(call)
    return DeploymentAnswer(deployment=deployment_view(version, deployment, api.region))


async def undeploy(api: Api, call: Call[None, UndeployQuery]) -> FunctionAnswer:
    """Take a version down: at once, or when what is queued and running is finished."""
    await owned(api, call)
    store, function_id, version_id = call.own(api), call.function_id, call.version_id
    now = api.clock()
    is_graceful = call.query.graceful and await _has_work(api, version_id)
    until = now + api.drain_timeout_s if is_graceful else now
    draining = await change_deployment(
        store, function_id, version_id, lambda one: lifecycle.draining(one, until, now)
    )
    if draining is None:
        raise _not_deployed(call)
    version = await change_version(
        store, function_id, version_id, lambda one: lifecycle.moved(one, State.INACTIVE)
    )
    if not is_graceful:
        await clear(store, DeploymentRemoved(function_id, version_id))
    if version is None:
        raise not_found(function_id, version_id)
    details = api.catalog.details(function_id, version_id)
    return FunctionAnswer(function=function_view(version, details, is_owner=True))


async def get_by_id(api: Api, call: Call[None, None]) -> DeploymentAnswer:
    """Look at a deployment."""
    version, deployment = await _by_id(api, call)
    return DeploymentAnswer(deployment=deployment_view(version, deployment, api.region))


async def patch(api: Api, call: Call[PatchSpec, None]) -> SpecAnswer:
    """Change one GPU specification."""
    version, known = await _by_id(api, call)
    refuse_public(api.catalog.function(known.function_id), known.version_id)
    body, now = call.body, api.clock()
    spec_id = call.part("gpuSpecificationId")

    def change(one: Deployment) -> Deployment:
        if one.deployment_id != known.deployment_id:
            raise _no_deployment()
        bounds = (body.min_instances, body.max_instances)
        changed = lifecycle.patched(one, spec_id, bounds, body.extra(), now)
        lifecycle.check_updatable(version, one)
        return changed

    after = await change_deployment(call.own(api), known.function_id, known.version_id, change)
    spec = after.spec(spec_id) if after is not None else None
    if spec is None:
        raise _no_deployment()
    return SpecAnswer(gpu_specification=spec_view(spec))


async def _by_id(api: Api, call: AnyCall) -> tuple[FunctionVersion, Deployment]:
    """Return the caller's own deployment. Others' are not found."""
    deployment_id, own = call.part("deploymentId"), call.own(api)
    deployment = api.catalog.deployment_of_id(deployment_id)
    if deployment is None:
        # Another process may have made it a moment ago.
        await own.show_deployments()
        deployment = api.catalog.deployment_of_id(deployment_id)
    if deployment is None or deployment.account != call.account:
        raise _no_deployment()
    found = await own.version(deployment.function_id, deployment.version_id)
    if found is None:
        raise _no_deployment()
    require_reach(call.principal, Seen(FunctionEntry(), found[0]))
    return found[0], deployment


async def _has_work(api: Api, version_id: str) -> bool:
    """Whether a graceful undeploy has anything to wait for; a broker that is away: it may have."""
    if api.catalog.instances(version_id):
        return True
    try:
        return await api.queue.depth(version_id) > 0
    except QueueUnavailable:
        return True


def _check_source(wishes: Sequence[Wish], details: VersionDetails | None) -> None:
    spec: Mapping[str, object] = details.spec if details is not None else {}
    if "helmChart" in spec:
        return
    for wish in wishes:
        for name in ("configuration", "helmValidationPolicy"):
            if name in wish.extra:
                raise BadRequest(f"{name} is for Helm functions")


def _no_deployment() -> NotFound:
    return NotFound("The account has no deployment with this id")


def _not_deployed(call: AnyCall) -> NotFound:
    return NotFound(f"Function id '{call.function_id}', version '{call.version_id}': not deployed")


_VERSION = "/v2/nvcf/deployments/functions/{functionId}/versions/{functionVersionId}"
_TAG = "deployments"
_SCOPES = ("deploy_function",)

ROUTES: tuple[AnyRoute, ...] = (
    Route("POST", _VERSION, deploy, "Deploy a version", _TAG, _SCOPES, DeploymentAnswer, Deploy),
    Route("GET", _VERSION, get, "Look at a deployment", _TAG, _SCOPES, DeploymentAnswer),
    Route(
        "PUT",
        _VERSION,
        update,
        "Change a deployment",
        _TAG,
        _SCOPES,
        DeploymentAnswer,
        UpdateDeployment,
    ),
    Route(
        "DELETE",
        _VERSION,
        undeploy,
        "Undeploy a version",
        _TAG,
        _SCOPES,
        FunctionAnswer,
        query=UndeployQuery,
    ),
    Route(
        "GET",
        "/v2/nvcf/deployments/{deploymentId}",
        get_by_id,
        "Look at a deployment by its id",
        _TAG,
        _SCOPES,
        DeploymentAnswer,
    ),
    Route(
        "PATCH",
        "/v2/nvcf/deployments/{deploymentId}/gpu-specifications/{gpuSpecificationId}",
        patch,
        "Change one GPU specification",
        _TAG,
        _SCOPES,
        SpecAnswer,
        PatchSpec,
    ),
)
