"""The reconciler and its backend, made from settings and run in a gateway process."""

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.domain.clusters import ClusterGroup, Gpu, InstanceType, find_image
from gateway.domain.model import Change
from gateway.provision.backend import ProvisioningError
from gateway.provision.backends import Backends
from gateway.provision.executor import (
    NO_CREDENTIALS,
    LaunchCredentials,
    Ports,
    WorkerEnvironment,
    no_environment,
)
from gateway.provision.kubernetes.manifests import InstanceShape, PodOptions
from gateway.provision.leader_election import LeaderLease
from gateway.provision.local.backend import ProcessBackend, ProcessOptions
from gateway.provision.planner import Policy
from gateway.provision.queues import Queues
from gateway.provision.reconciler import Reconciler
from gateway.provision.wake_requests import WakeSubscriber
from gateway.settings import ClusterSettings, ProvisionSettings
from gateway.store.records import Store
from queueing.interface import GatewayBroker
from runtime.ids import new_uuid

if TYPE_CHECKING:
    from gateway.provision.kubernetes.backend import KubernetesBackend


class Provisioning:
    """A candidate for leader, and the instances that it runs while it leads.

    `apply` takes the changes of a `gateway.store.watcher.Watcher` of `gateway.store.names.CONTROL`;
    call `start` when that is loaded and the broker is started.
    """

    def __init__(
        self,
        store: Store,
        broker: GatewayBroker,
        provision: ProvisionSettings,
        clusters: Sequence[ClusterSettings],
        credentials: LaunchCredentials = NO_CREDENTIALS,
        worker_environment: WorkerEnvironment = no_environment,
    ) -> None:
        """Raises `ProvisioningError`."""
        owner = new_uuid()
        self.backend = ProcessBackend(process_options(provision, clusters))
        self._pods = {
            cluster.name: kubernetes_backend(cluster, provision)
            for cluster in clusters
            if cluster.backend == "kubernetes"
        }
        self.queues = Queues(broker.admin, broker.bus)
        self.reconciler = Reconciler(
            Ports(
                store,
                Backends(self.backend, self._pods),
                self.queues,
                credentials,
                worker_environment,
            ),
            lambda changed: LeaderLease(store, owner, changed),
            policy(provision),
        )
        self._wake_requests = WakeSubscriber(broker.bus, self.reconciler.wake)
        self._stop_grace_s = provision.stop_grace_s
        self._keeps_instances = provision.at_stop == "keep"

    def apply(self, change: Change) -> None:
        """Process one change of the store."""
        self.reconciler.apply(change)

    async def start(self) -> None:
        """Try to lead. Raises `OSError` and `ProvisioningError`."""
        await self.backend.open()
        for name, backend in self._pods.items():
            await _open(name, backend)
        self.reconciler.lease.machine = self.backend.machine
        self.reconciler.start()

    async def stop(self) -> None:
        """Give up leadership and the instances that run here.

        Those that do not outlive this process are stopped, and their records deleted.
        """
        self._wake_requests.close()
        instance_ids = set() if self._keeps_instances else self.backend.instance_ids()
        await self.reconciler.stop()
        await self.backend.close(self._stop_grace_s)
        for backend in self._pods.values():
            await backend.close()
        await self.reconciler.forget_own(instance_ids)


def policy(provision: ProvisionSettings) -> Policy:
    """Return the policy by which instances are provisioned."""
    return Policy(
        restart_first_s=provision.restart_first_s,
        restart_most_s=provision.restart_most_s,
        max_failed_starts=provision.max_failed_starts,
        unresponsive_s=provision.unresponsive_s,
        idle_s=provision.idle_s,
        stop_grace_s=provision.stop_grace_s,
    )


def process_options(
    provision: ProvisionSettings, clusters: Sequence[ClusterSettings]
) -> ProcessOptions:
    """Return the options for instances that run as processes."""
    images = {cluster.name: cluster.images for cluster in clusters}

    def template_of(cluster: str, image: str) -> str | None:
        """Return the first command template whose pattern matches the image."""
        return find_image(images.get(cluster, {}), image)

    worker = tuple(shlex.split(provision.worker_command))
    return ProcessOptions(
        provision.folder.absolute(),
        template_of,
        worker=worker or (sys.executable, "-P", "-m", "worker_agent"),
        drain_s=provision.stop_grace_s,
        outlive=provision.at_stop == "keep",
    )


def kubernetes_backend(
    cluster: ClusterSettings, provision: ProvisionSettings
) -> "KubernetesBackend":
    """Return the backend of a cluster of Kubernetes.

    Raises `ProvisioningError` if the packages for it are missing.
    """
    # Imported only if it is configured: the client takes memory, and is an extra.
    try:
        from gateway.provision.kubernetes.backend import KubernetesBackend  # noqa: PLC0415
        from gateway.provision.kubernetes.client import ClusterLogin  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ProvisioningError(
            f'cluster {cluster.name} has the backend "kubernetes", for which the package '
            f"{error.name} is missing: pip install 'invocation-gateway[kubernetes]'"
        ) from error
    settings = cluster.kubernetes
    login = ClusterLogin(settings.kubeconfig, settings.context, settings.namespace)
    return KubernetesBackend(login, pod_options(cluster, provision))


def pod_options(cluster: ClusterSettings, provision: ProvisionSettings) -> PodOptions:
    """Return what all pods of a cluster have in common."""
    settings = cluster.kubernetes
    return PodOptions(
        cluster.name,
        settings.agent_image,
        {
            (gpu.name, kind.name): InstanceShape(kind.gpus, kind.resources, kind.node_selector)
            for gpu in cluster.gpus
            for kind in gpu.instance_types
        },
        gpu_resource=settings.gpu_resource,
        image_pull_secrets=settings.image_pull_secrets,
        service_account=settings.service_account,
        tolerations=tuple(
            {
                name: value
                for name in ("key", "operator", "value", "effect")
                if (value := getattr(one, name))
            }
            for one in settings.tolerations
        ),
        drain_s=provision.stop_grace_s,
    )


async def _open(name: str, backend: "KubernetesBackend") -> None:
    from gateway.provision.kubernetes.client import KubernetesError  # noqa: PLC0415

    try:
        await backend.open()
    except KubernetesError as error:
        raise ProvisioningError(f"cluster {name}: {error}") from error


def cluster_groups(clusters: Sequence[ClusterSettings]) -> tuple[ClusterGroup, ...]:
    """Return the clusters in which deployments can be placed."""
    return tuple(
        ClusterGroup(
            cluster.name,
            cluster.backend,
            tuple(
                Gpu(
                    gpu.name,
                    tuple(
                        InstanceType(kind.name, kind.description, kind.is_default)
                        for kind in gpu.instance_types
                    ),
                )
                for gpu in cluster.gpus
            ),
            accounts=frozenset(cluster.accounts),
            images=tuple(cluster.images),
        )
        for cluster in clusters
    )
