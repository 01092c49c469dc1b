"""GPUs and cluster groups that the account can deploy on, from the configuration.

Source: `docs/wire.md` §12.3.
"""

from collections.abc import Iterable
from uuid import NAMESPACE_URL, uuid5

from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.queues import (
    ClusterGroupsResponse,
    ClusterGroupView,
    ClusterView,
    GroupGpu,
    InstanceTypeView,
    SupportedGpu,
    SupportedGpus,
)
from gateway.auth.scopes import ADMIN
from gateway.domain.clusters import ClusterGroup, InstanceType


async def supported(api: Api, call: Call[None, None]) -> SupportedGpus:
    """List the GPUs of the account, one element per GPU and cluster group."""
    return SupportedGpus(
        [
            SupportedGpu(
                gpu=gpu.name, backend=group.name, instance_types=_types(gpu.instance_types)
            )
            for group in api.clusters.of(call.account)
            for gpu in group.gpus
        ]
    )


async def cluster_groups(api: Api, call: Call[None, None]) -> ClusterGroupsResponse:
    """List the cluster groups of the account."""
    groups = api.clusters.of(call.account)
    return ClusterGroupsResponse(cluster_groups=[_group(group, call.account) for group in groups])


def _group(group: ClusterGroup, account: str) -> ClusterGroupView:
    return ClusterGroupView(
        id=_id(group.name),
        name=group.name,
        nca_id=account,
        authorized_nca_ids=sorted(group.accounts),
        gpus=[
            GroupGpu(name=gpu.name, instance_types=_types(gpu.instance_types)) for gpu in group.gpus
        ],
        clusters=[
            ClusterView(id=_id(f"{group.name}/{name}"), name=name, k8s_version="")
            for name in group.member_names()
        ],
    )


def _types(types: Iterable[InstanceType]) -> list[InstanceTypeView]:
    return [
        InstanceTypeView(name=kind.name, description=kind.description, default=kind.is_default)
        for kind in types
    ]


def _id(name: str) -> str:
    """Return an id that depends only on the name."""
    return str(uuid5(NAMESPACE_URL, f"urn:nvcf:cluster:{name}"))


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        "GET",
        "/v2/nvcf/supportedGpus",
        supported,
        "List available GPUs",
        "gpus",
        ("register_function", "deploy_function", "list_functions", f"{ADMIN}register_function"),
        SupportedGpus,
    ),
    Route(
        "GET",
        "/v2/nvcf/clusterGroups",
        cluster_groups,
        "List available cluster groups",
        "gpus",
        ("list_cluster_groups",),
        ClusterGroupsResponse,
    ),
)
