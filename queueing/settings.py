"""The section ``[queue]`` of the gateway's settings: the same for every broker."""

from typing import Annotated

from pydantic import Field

from runtime.settings import Seconds, Section

Count = Annotated[int, Field(ge=1)]
Region = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Replicas = Annotated[int, Field(ge=1, le=5)]


class QueueSettings(Section):
    """The function queues, one per function version and region."""

    region: Region = "local"
    """Region in the names of queues, and the value of the header nvcf-invocation-region."""
    max_messages: Count = 100_000
    """Queued requests per function version; more get 429."""
    lease_s: Annotated[Seconds, Field(ge=1)] = 30.0
    """Time after which a lease that its worker has not renewed ends: the request is redelivered."""
    max_deliveries: Annotated[int, Field(ge=1, le=100)] = 3
    """Deliveries of one request to workers; after the last it gets 502."""
    replicas: Replicas = 1
    """Copies of each queue in the broker's cluster."""
