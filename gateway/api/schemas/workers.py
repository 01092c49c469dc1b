"""What worker agents and the API say to each other (`worker_agent.registration`)."""

from typing import Annotated

from pydantic import Field

from gateway.api.schemas.fields import WHOLE, Body, Text, Uuid, View

Slots = Annotated[int, Field(ge=0, le=1_000_000), WHOLE]


class ConnectBody(Body):
    """Who connects; all three must be what the token says."""

    instance_id: Text
    function_id: Uuid
    function_version_id: Uuid


class NatsView(View):
    """How to log in to NATS."""

    urls: list[str]
    """Of one cluster."""
    jwt: str = Field(repr=False)
    """Of the user."""
    seed: str = Field(repr=False)
    """Of the user's nkey."""
    api_prefix: str
    """Where JetStream answers this user."""


class ConnectAnswer(View):
    """What a worker needs to take requests. Replaces what an earlier answer gave."""

    region: str
    """Part of the names of its queue."""
    nats: NatsView | None = None
    """Absent: the worker logs in as it is configured."""
    token: str = Field(repr=False)
    """For the next calls."""
    expires_in_seconds: float
    """Of token and NATS login; connect again before."""
    lease_seconds: float
    """Without a heartbeat for so long, the worker counts as gone."""
    max_request_concurrency: int | None = None
    """Requests to take at a time from now on; absent: as many as before."""


class HeartbeatBody(Body):
    """How a worker is."""

    instance_id: Text
    healthy: bool
    """Whether requests can be served."""
    slots: Slots
    """Requests it takes at a time."""
    busy: Slots
    """Requests it has; at least 1 when it had any since the last heartbeat."""
    stopping: bool = False
    """It takes no more requests and ends when it has none."""


class HeartbeatAnswer(View):
    """The lease is renewed."""

    lease_seconds: float
    """As in the answer to connect."""
    max_request_concurrency: int | None = None
    """As in the answer to connect."""
