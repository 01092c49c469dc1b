"""Documents between worker agents and the API (`wire.worker_api`)."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from gateway.api.schemas.fields import WHOLE, Body, ShortText, Uuid, View, items

MAX_SLOTS = 1_000_000
Slots = Annotated[int, Field(ge=0, le=MAX_SLOTS), WHOLE]


class GpuFacts(Body):
    """A GPU of the worker's machine."""

    name: ShortText
    memory_mib: Annotated[int, Field(ge=0)] | None = Field(default=None, alias="memoryMiB")
    uuid: ShortText | None = None


class WorkerFacts(Body):
    """What a worker tells of itself; nothing depends on it."""

    node: ShortText | None = None
    """The machine."""
    pod: ShortText | None = None
    """The pod, the job or whatever else the process belongs to."""
    pid: Annotated[int, Field(ge=0)] | None = None
    agent_version: ShortText | None = None
    gpus: Annotated[list[GpuFacts], items(64)] = Field(default_factory=list)


class ConnectBody(Body):
    """The instance of the worker.

    With a worker token all three ids must be those of the token. With a registration token none is
    required: the worker becomes a new instance, or, with ``instanceId``, the one that it was before
    its record was lost.
    """

    instance_id: ShortText | None = None
    function_id: Uuid | None = None
    function_version_id: Uuid | None = None
    worker: WorkerFacts | None = None


class ConnectResponse(View):
    """What a worker needs to process requests. It replaces an earlier response.

    Further members are the worker's credentials for the broker of its queue
    (`queueing.interface.WorkerCredentials`); without any, the worker logs in as configured.
    """

    model_config = ConfigDict(extra="allow")

    region: str
    """Part of the name of its queue."""
    other_regions: list[str] | None = None
    """Regions whose queues it serves while its own is empty; absent: none."""
    token: str = Field(repr=False)
    """For the next calls."""
    expires_in_seconds: float
    """Life of token and credentials; connect again before."""
    lease_seconds: float
    """The worker counts as lost after this time without a heartbeat."""
    max_request_concurrency: int | None = None
    """Requests to process at a time from now on; absent: unchanged."""
    stop: str | None = None
    """Why the worker is to finish its requests and to exit; absent: it is not."""
    instance_id: str | None = None
    """After a registration: the instance that the worker is from now on."""
    function_id: str | None = None
    function_version_id: str | None = None
    environment: dict[str, str] | None = None
    """After a registration: settings of the worker, as environment variables; its own win."""

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Leave out the credentials."""
        extra = self.model_extra or {}
        return [(name, value) for name, value in super().__repr_args__() if name not in extra]


class HeartbeatBody(Body):
    """The state of a worker."""

    instance_id: ShortText
    healthy: bool
    """Whether requests can be processed."""
    slots: Slots
    """Requests that it processes at a time."""
    busy: Slots
    """Requests in progress; at least 1 when there was one since the last heartbeat."""
    stopping: bool = False
    """It takes no more requests and ends when it has none."""
    gone: bool = False
    """It has none and ends now: this is its last heartbeat."""


class HeartbeatResponse(View):
    """The lease is renewed."""

    lease_seconds: float
    """As in the response to connect."""
    max_request_concurrency: int | None = None
    """As in the response to connect."""
    stop: str | None = None
    """As in the response to connect."""
