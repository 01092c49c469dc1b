"""From records to the views in responses."""

from collections.abc import Iterable, Mapping
from typing import Literal

from gateway.api.schemas.deployments import DeploymentView, HealthInfoView, SpecView
from gateway.api.schemas.function_views import FunctionView, InstanceView, WorkerFactsView
from gateway.domain.deployment import Deployment, GpuSpec, HealthInfo, Instance, VersionDetails
from gateway.domain.model import FunctionVersion, Phase
from gateway.domain.states import ALIVE, is_running

_DEFAULT_HEALTH = "/v2/health/ready"
_FOR_OWNERS = (
    "inferenceUrl",
    "inferencePort",
    "allowRerun",
    "passInterim",
    "maxBodyBytes",
    "cors",
    "containerImage",
    "containerArgs",
    "containerEnvironment",
    "helmChart",
    "helmChartServiceName",
    "models",
    "resources",
    "health",
    "tags",
    "rateLimit",
    "llmInvocationConfig",
    "telemetries",
)
"""Members that only the owner gets. NVCF also shows the last four to others
(`docs/wire.md` §10.5)."""
_FOR_ALL = ("apiBodyFormat", "description")


def function_view(
    version: FunctionVersion,
    details: VersionDetails | None,
    *,
    is_owner: bool,
    with_secrets: bool = False,
    instances: list[InstanceView] | None = None,
) -> FunctionView:
    """Return the view of a version; ``details`` are `None` if they cannot be read."""
    spec: Mapping[str, object] = details.spec if details is not None else {}
    members: dict[str, object] = {
        "id": version.function_id,
        "ncaId": version.account,
        "versionId": version.version_id,
        "name": version.name,
        "status": version.state.value,
        "createdAt": version.created_at,
        "creationTime": version.created_at,
        "healthUri": spec.get("healthUri", _DEFAULT_HEALTH) if is_owner else _DEFAULT_HEALTH,
        "functionType": spec.get("functionType", "DEFAULT"),
    }
    members.update((name, spec[name]) for name in _FOR_ALL if name in spec)
    if not is_owner:
        return FunctionView.model_validate({**members, "ownedByDifferentAccount": True})
    members.update((name, spec[name]) for name in _FOR_OWNERS if name in spec)
    if with_secrets and details is not None and details.secret_names:
        members["secrets"] = list(details.secret_names)
    if instances is not None:
        members["activeInstances"] = instances
    return FunctionView.model_validate(members)


def instance_views(instances: Iterable[Instance], now: float) -> list[InstanceView]:
    """Return the owner's view of instances that serve or are going to, the oldest first.

    One that can serve at ``now``, Unix seconds, is RUNNING at once: the version's state, which is
    shown beside it, does not wait for the provisioner to store the phase either.
    """
    shown = sorted(instances, key=lambda instance: (instance.created_at, instance.instance_id))
    return [_instance_view(instance, now) for instance in shown if instance.phase in ALIVE]


def _instance_view(instance: Instance, now: float) -> InstanceView:
    runs = instance.phase is Phase.RUNNING or is_running(instance, now)
    status: Literal["RUNNING", "STARTING"] = "RUNNING" if runs else "STARTING"
    return InstanceView(
        instance_id=instance.instance_id,
        function_id=instance.function_id,
        function_version_id=instance.version_id,
        instance_type=instance.instance_type,
        instance_status=status,
        status=status,
        icms_request_id=instance.deployment_id,
        sis_request_id=instance.deployment_id,
        nca_id=instance.account,
        gpu=instance.gpu,
        backend=instance.backend,
        location=instance.backend,
        instance_created_at=instance.created_at,
        instance_updated_at=instance.updated_at,
        healthy=is_running(instance, now),
        slots=instance.slots,
        busy=instance.busy,
        external=instance.is_external or None,
        worker=WorkerFactsView.model_validate(instance.facts) if instance.facts else None,
    )


def deployment_view(
    version: FunctionVersion, deployment: Deployment, region: str
) -> DeploymentView:
    """Return the owner's view of a deployment."""
    return DeploymentView(
        deployment_id=deployment.deployment_id,
        function_id=deployment.function_id,
        function_version_id=deployment.version_id,
        function_name=version.name,
        nca_id=deployment.account,
        function_status=version.state.value,
        request_queue_url=f"nats://rq/{region}/{deployment.version_id}",
        deployment_specifications=[spec_view(spec) for spec in deployment.specs],
        health_info=[_health_view(health, deployment) for health in deployment.health] or None,
        created_at=deployment.created_at,
        last_updated_at=deployment.updated_at,
    )


def spec_view(spec: GpuSpec) -> SpecView:
    """Return the owner's view of a GPU specification."""
    return SpecView.model_validate(
        {
            "gpu": spec.gpu,
            "backend": "",
            "instanceType": spec.instance_type or "default",
            **spec.extra,
            "gpuSpecificationId": spec.spec_id,
            "minInstances": spec.min_instances,
            "maxInstances": spec.max_instances,
            "maxRequestConcurrency": spec.concurrency,
        }
    )


def _health_view(health: HealthInfo, deployment: Deployment) -> HealthInfoView:
    return HealthInfoView(
        icms_request_id=deployment.deployment_id,
        sis_request_id=deployment.deployment_id,
        instance_id=health.instance_id or None,
        gpu=health.gpu,
        backend=health.backend,
        instance_type=health.instance_type,
        error=health.error,
    )
