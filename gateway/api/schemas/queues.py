"""Queues and positions (`docs/wire.md` §12.1), GPUs and cluster groups (`docs/wire.md` §12.3)."""

from pydantic import Field, RootModel

from gateway.api.schemas.fields import View
from gateway.api.schemas.function_views import StateName


class QueueView(View):
    """The queue of a deployed version."""

    function_id: str
    function_version_id: str
    function_name: str
    function_status: StateName
    queue_depth: int
    """Number of waiting requests, without those in progress."""
    size: int
    """Same as queueDepth, for the CLI."""
    status_detail: StateName | None = None
    """The true state, if functionStatus is replaced for an old SDK."""


class QueuesResponse(View):
    """The queues of the deployed versions of a function."""

    function_id: str
    queues: list[QueueView]


class PositionResponse(View):
    """The position of a request in its queue."""

    function_id: str
    function_version_id: str
    position_in_queue: int = Field(ge=0, le=1000)
    """1 is next, 0 is in progress, 1000 means 1000 or more."""
    position: int
    """Same as positionInQueue, for the CLI."""


class InstanceTypeView(View):
    """A type of machine with GPUs."""

    name: str
    description: str
    default: bool


class SupportedGpu(View):
    """A GPU in a cluster group."""

    gpu: str
    backend: str
    instance_types: list[InstanceTypeView]


class SupportedGpus(RootModel[list[SupportedGpu]]):
    """GPUs that the account can deploy on."""


class GroupGpu(View):
    """A GPU of a cluster group."""

    name: str
    instance_types: list[InstanceTypeView]


class ClusterView(View):
    """A member of a cluster group."""

    id: str
    name: str
    k8s_version: str = Field(serialization_alias="k8sVersion")


class ClusterGroupView(View):
    """Clusters between which a deployment does not distinguish."""

    id: str
    name: str
    nca_id: str
    authorized_nca_ids: list[str]
    gpus: list[GroupGpu]
    clusters: list[ClusterView]


class ClusterGroupsResponse(View):
    """The cluster groups that the account can use."""

    cluster_groups: list[ClusterGroupView]
