"""Documents between worker agents and the API (`wire.worker_api`)."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from gateway.api.schemas.fields import WHOLE, Body, ShortText, Uuid, View

Slots = Annotated[int, Field(ge=0, le=1_000_000), WHOLE]


class ConnectBody(Body):
    """The instance of the worker; all three ids must be those of the token."""

    instance_id: ShortText
    function_id: Uuid
    function_version_id: Uuid


class ConnectResponse(View):
    """What a worker needs to process requests. It replaces an earlier response.

    Further members are the worker's credentials for the broker of its queue
    (`queueing.interface.WorkerCredentials`); without any, the worker logs in as configured.
    """

    model_config = ConfigDict(extra="allow")

    region: str
    """Part of the name of its queue."""
    token: str = Field(repr=False)
    """For the next calls."""
    expires_in_seconds: float
    """Life of token and credentials; connect again before."""
    lease_seconds: float
    """The worker counts as lost after this time without a heartbeat."""
    max_request_concurrency: int | None = None
    """Requests to process at a time from now on; absent: unchanged."""

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


class HeartbeatResponse(View):
    """The lease is renewed."""

    lease_seconds: float
    """As in the response to connect."""
    max_request_concurrency: int | None = None
    """As in the response to connect."""
