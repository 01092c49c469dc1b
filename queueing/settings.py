"""The section ``[queue]`` of the gateway's settings: the same for every broker."""

from typing import Annotated

from pydantic import Field

from runtime.settings import Seconds, Section

Count = Annotated[int, Field(ge=1)]
Region = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Replicas = Annotated[int, Field(ge=1, le=5)]


class QueueSettings(Section):
    """The function queues."""

    region: Region = "local"
    """Part of stream and subject names; the value of nvcf-invocation-region."""
    max_messages: Count = 100_000
    """Waiting requests per version; more are answered 429."""
    lease_s: Annotated[Seconds, Field(ge=1)] = 30.0
    """A worker that does not report for this time loses its request to another worker."""
    max_deliveries: Annotated[int, Field(ge=1, le=100)] = 3
    """How often one request is delivered to workers; then it is answered 502."""
    replicas: Replicas = 1
    """Of each stream."""
