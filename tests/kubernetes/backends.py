"""A Kubernetes backend on a test's own namespace, as one gateway process has it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.provision.backend import InstanceStatus, RunState
from gateway.provision.kubernetes.backend import KubernetesBackend
from gateway.provision.kubernetes.client import ClusterLogin
from gateway.provision.kubernetes.manifests import InstanceShape, PodOptions
from runtime.ids import new_uuid
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.servers import START_S, Servers
from tests.support.deployments import VERSION_ID
from tests.support.launches import launch_of
from tests.support.waiting import until

OPTIONS = PodOptions(
    "gpus",
    "registry/worker-agent:1",
    {("L40S", "type-1"): InstanceShape(1, {"cpu": "8", "memory": "64Gi"}, {"gpu": "l40s"})},
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists"},),
)


class Gateway:
    """A backend as one gateway process has it."""

    def __init__(self, backend: KubernetesBackend) -> None:
        self.backend = backend
        self.changes: list[tuple[str, str]] = []
        backend.listen(lambda *ids: self.changes.append(ids))

    def status(self, instance_id: str) -> InstanceStatus | None:
        return self.backend.statuses(VERSION_ID).get(instance_id)

    async def until_state(self, instance_id: str, state: RunState | None) -> InstanceStatus:
        """Wait until an instance is in ``state``; `None` stands for one that is not there."""

        def is_there() -> bool:
            found = self.status(instance_id)
            return (found.state if found is not None else None) is state

        await until(is_there, timeout_s=START_S)
        return self.status(instance_id)  # type: ignore[return-value]

    async def until_reason(self, instance_id: str, *parts: str) -> InstanceStatus:
        """Wait until the reason of an instance has all ``parts``."""

        def has_parts() -> object:
            found = self.status(instance_id)
            return found is not None and all(part in found.reason for part in parts) and found

        found = await until(has_parts, timeout_s=START_S)
        assert isinstance(found, InstanceStatus)
        return found

    async def started(self, cluster: Cluster, instance_id: str = "", **more: Any) -> str:
        """Start an instance and wait for its pod; return its id."""
        instance_id = instance_id or new_uuid()
        await self.backend.start(launch_of(instance_id, **more))
        await cluster.pod_of(instance_id)
        return instance_id


@asynccontextmanager
async def gateway_on(
    servers: Servers,
    cluster: Cluster,
    options: PodOptions = OPTIONS,
    token: str = "gateway-token",
    login: ClusterLogin | None = None,
) -> AsyncIterator[Gateway]:
    """Run a backend; without a ``login`` it is that of a kubeconfig with ``token``."""
    if login is None:
        login = ClusterLogin(servers.kubeconfig(token, token), namespace=cluster.namespace)
    backend = KubernetesBackend(login, options)
    await backend.open()
    try:
        yield Gateway(backend)
    finally:
        await backend.close()
