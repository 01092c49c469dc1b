"""Whether an external worker is wanted: at its registration, and at each heartbeat after that."""

from typing import Protocol

from gateway.api.route import Api
from gateway.auth.tokens import VersionToken
from gateway.domain.model import (
    Deployment,
    DeploymentKey,
    GpuSpec,
    Instance,
    Phase,
    Record,
    RecordKey,
    VersionState,
)
from gateway.domain.states import ALIVE, of_deployment
from gateway.errors import Conflict


class Records(Protocol):
    """The store (`gateway.store.records.Store`); may raise `StoreUnavailable`."""

    async def get(self, key: RecordKey) -> tuple[Record, int] | None: ...


async def vacancy(
    api: Api, records: Records, token: VersionToken, instance_id: str, now: float
) -> tuple[Deployment, GpuSpec]:
    """Return the deployment and the first of its specifications that has a place for a worker.

    The instances are counted in this process's catalog: workers that register at the same moment
    may be one too many, which the reconciler tells to stop. Raises `Conflict` while there is none.
    """
    found = await records.get(DeploymentKey(token.function_id, token.version_id))
    deployment = found[0] if found is not None else None
    if not isinstance(deployment, Deployment) or deployment.account != token.account:
        raise Conflict("The version is not deployed; a worker can register once it is")
    if deployment.draining_until is not None:
        raise Conflict("The version is being undeployed")
    specs = [spec for spec in deployment.specs if spec.is_external]
    if not specs:
        clusters = ", ".join(dict.fromkeys(spec.backend for spec in deployment.specs))
        raise Conflict(
            f"The version is deployed on {clusters}, where the gateway starts the instances; "
            "workers register where the backend of a cluster is external"
        )
    version = api.catalog.version(token.function_id, token.version_id)
    if version is not None and version.state is VersionState.ERROR and not deployment.is_external:
        raise Conflict("The deployment has failed; undeploy the version and deploy it again")
    taken = [
        one.spec_id
        for one in of_deployment(deployment, api.catalog.instances(token.version_id))
        if one.instance_id != instance_id and one.phase in ALIVE and _keeps_place(one, now)
    ]
    for spec in specs:
        if taken.count(spec.spec_id) < spec.max_instances:
            return deployment, spec
    most = sum(spec.max_instances for spec in specs)
    raise Conflict(f"The deployment has its maxInstances of workers, {most}")


def stop_reason(api: Api, instance: Instance) -> str | None:
    """Return why the worker of an instance is to stop, `None` if it is not.

    Only external workers are told so: what starts the others stops them as well.
    """
    if not instance.is_external:
        return None
    if api.registrations.is_revoked(instance.version_id, instance.registered_with):
        return "its registration token was revoked"
    if instance.phase is not Phase.STOPPING:
        return None
    deployment = api.catalog.deployment(instance.version_id)
    if deployment is None or deployment.draining_until is not None:
        return "the version was undeployed"
    if deployment.deployment_id != instance.deployment_id:
        return "the version was deployed anew"
    return "the deployment has more workers than it wants"


def _keeps_place(instance: Instance, now: float) -> bool:
    return instance.is_connected and now < instance.lease_until
