"""Queues and positions (§1.9), GPUs and cluster groups (§1.10, §2)."""

from pydantic import Field, RootModel

from gateway.api.schemas.fields import View
from gateway.api.schemas.function_views import StateName


class QueueView(View):
    """The queue of one deployed version."""

    function_id: str
    function_version_id: str
    function_name: str
    function_status: StateName
    queue_depth: int
    """Requests that wait; those in progress not counted."""
    size: int
    """As queueDepth, for the CLI."""
    status_detail: StateName | None = None
    """The true state, where functionStatus has been put into the words of an old SDK."""


class QueuesAnswer(View):
    """The queues of a function's deployed versions."""

    function_id: str
    queues: list[QueueView]


class PositionAnswer(View):
    """Where a request stands."""

    function_id: str
    function_version_id: str
    position_in_queue: int = Field(ge=0, le=1000)
    """1 is next, 0 in progress, 1000 that or further back."""
    position: int
    """As positionInQueue, for the CLI."""


class InstanceTypeView(View):
    """A machine with GPUs."""

    name: str
    description: str
    default: bool


class SupportedGpu(View):
    """A GPU in a cluster group."""

    gpu: str
    backend: str
    instance_types: list[InstanceTypeView]


class SupportedGpus(RootModel[list[SupportedGpu]]):
    """What the account can deploy on."""


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
    """Clusters that are the same to whoever deploys."""

    id: str
    name: str
    nca_id: str
    authorized_nca_ids: list[str]
    gpus: list[GroupGpu]
    clusters: list[ClusterView]


class ClusterGroupsAnswer(View):
    """The cluster groups of the account."""

    cluster_groups: list[ClusterGroupView]
