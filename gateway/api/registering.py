"""Whether an external worker is wanted: at its registration, and at each heartbeat after that."""

from typing import NamedTuple, Protocol

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

_GIVEN_S = 10.0
"""By then the catalog shows a record that was written."""


class Records(Protocol):
    """The store (`gateway.store.records.Store`); may raise `StoreUnavailable`."""

    async def get(self, key: RecordKey) -> tuple[Record, int] | None: ...


class _Given(NamedTuple):
    """A place that a worker has got; it counts until ``ends_at`` unless its record shows."""

    spec_id: str
    ends_at: float


class Vacancies:
    """The places that versions have for external workers, as one process knows them.

    A worker that has just got one counts, although the catalog does not show its record yet: those
    that are one too many wait as spares. Workers that register at two processes at the same moment
    may still be too many, which the reconciler tells to stop.
    """

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], _Given] = {}
        """By version and instance."""

    async def take(
        self, api: Api, records: Records, token: VersionToken, instance_id: str, now: float
    ) -> tuple[Deployment, GpuSpec]:
        """Give a worker a place; return the deployment and the first specification that has one.

        Raises `Conflict` while there is none.
        """
        deployment = await _deployment(api, records, token)
        specs = [spec for spec in deployment.specs if spec.is_external]
        shown = api.catalog.instances(token.version_id)
        taken = [
            one.spec_id
            for one in of_deployment(deployment, shown)
            if one.instance_id != instance_id and one.phase in ALIVE and _keeps_place(one, now)
        ]
        known = {instance_id, *(one.instance_id for one in shown)}
        self._given = {key: one for key, one in self._given.items() if now < one.ends_at}
        taken += [
            one.spec_id
            for (version_id, given_to), one in self._given.items()
            if version_id == token.version_id and given_to not in known
        ]
        for spec in specs:
            if taken.count(spec.spec_id) < spec.max_instances:
                given = _Given(spec.spec_id, now + _GIVEN_S)
                self._given[token.version_id, instance_id] = given
                return deployment, spec
        most = sum(spec.max_instances for spec in specs)
        raise Conflict(f"The deployment has its maxInstances of workers, {most}")

    def give_back(self, version_id: str, instance_id: str) -> None:
        """Count a worker by its record only, if it has one."""
        self._given.pop((version_id, instance_id), None)


async def _deployment(api: Api, records: Records, token: VersionToken) -> Deployment:
    """Return the deployment of a token's version. Raises `Conflict` if it takes no workers."""
    found = await records.get(DeploymentKey(token.function_id, token.version_id))
    deployment = found[0] if found is not None else None
    if not isinstance(deployment, Deployment) or deployment.account != token.account:
        raise Conflict("The version is not deployed; a worker can register once it is")
    if deployment.draining_until is not None:
        raise Conflict("The version is being undeployed")
    if not any(spec.is_external for spec in deployment.specs):
        clusters = ", ".join(dict.fromkeys(spec.backend for spec in deployment.specs))
        raise Conflict(
            f"The version is deployed on {clusters}, where the gateway starts the instances; "
            "workers register where the backend of a cluster is external"
        )
    version = api.catalog.version(token.function_id, token.version_id)
    if version is not None and version.state is VersionState.ERROR and not deployment.is_external:
        raise Conflict("The deployment has failed; undeploy the version and deploy it again")
    return deployment


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
