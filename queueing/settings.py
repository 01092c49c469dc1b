"""The settings of the queue and its broker, in the settings of both programs.

A new backend adds its section to both classes at the end, and nowhere else in the programs.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from queueing.nats.settings import GatewayNatsSettings, WorkerNatsSettings
from queueing.redis.settings import GatewayRedisSettings, WorkerRedisSettings
from runtime.setting_rules import Above, AtLeast, AtMost
from runtime.settings import Name, Seconds, Section

Backend = Literal["nats", "redis"]
Count = Annotated[int, AtLeast(1)]
Replicas = Annotated[int, AtLeast(1), AtMost(5)]
QueueReplicas = Annotated[int, AtLeast(0), AtMost(5)]


class QueueSettings(Section):
    """The function queues, one per function version and region."""

    backend: Backend = "nats"
    """What holds the queues: nats is NATS JetStream, redis is Redis or Valkey."""
    region: Name = "local"
    """Region in the names of queues, and the value of the header nvcf-invocation-region."""
    other_regions: tuple[Name, ...] = ()
    """The other regions of this installation (docs/regions.md): workers serve their queues while
    their own is empty, and requests are found there. Needs nats.region_tag."""
    max_messages: Count = 100_000
    """Requests per function version that wait for a worker; more get 429."""
    lease_s: Annotated[Seconds, AtLeast(1)] = 30.0
    """Time after which a lease that its worker has not renewed ends: the request is redelivered."""
    max_deliveries: Annotated[int, AtLeast(1), AtMost(100)] = 3
    """Runs of one request by workers; after the last it gets 502. What is given back is no run."""
    direct: bool = True
    """Whether a worker with a free slot and nothing in its queue gets a call at once, over a
    channel that it keeps to each gateway process; false: every call goes through the queue."""
    replicas: QueueReplicas = 0
    """Copies of each queue in a NATS cluster; 0: three in a cluster, else one."""

    def defects(self) -> Iterator[tuple[str, str]]:
        """Yield what several regions cannot be."""
        yield from _defects_of_regions(self.backend, self.region, self.other_regions)


class WorkerQueueSettings(Section):
    """The function's queue."""

    backend: Backend = "nats"
    """What holds the queue: nats is NATS JetStream, redis is Redis or Valkey."""
    region: Name = "local"
    """Region in stream and subject names; must equal that of the gateways. The API replaces it."""
    other_regions: tuple[Name, ...] = ()
    """Regions whose queues are served while the own one is empty. The API replaces it."""
    progress_s: Annotated[Seconds, Above(0)] = 10.0
    """Time between two renewals of a lease, which ends after 30 s without; at most 0.4 of it."""

    def defects(self) -> Iterator[tuple[str, str]]:
        """Yield what several regions cannot be."""
        yield from _defects_of_regions(self.backend, self.region, self.other_regions)


def _defects_of_regions(
    backend: Backend, region: str, others: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    if others and backend != "nats":
        yield "other_regions", 'need queue.backend = "nats": a Redis is one region'
    elif len({region, *others}) <= len(others):
        yield "other_regions", f"must name each region once, and not the own one, '{region}'"


class GatewayBrokerSettings(Section):
    """The gateway's sections about the queue and its broker."""

    nats: GatewayNatsSettings = GatewayNatsSettings()
    redis: GatewayRedisSettings = GatewayRedisSettings()
    queue: QueueSettings = QueueSettings()

    def defects(self) -> Iterator[tuple[str, str]]:
        """Yield what several regions need and do not have."""
        if self.queue.other_regions and not self.nats.region_tag:
            yield "nats.region_tag", "must be set, because queue.other_regions is"


class WorkerBrokerSettings(Section):
    """The worker agent's sections about the queue and its broker."""

    nats: WorkerNatsSettings = WorkerNatsSettings()
    redis: WorkerRedisSettings = WorkerRedisSettings()
    queue: WorkerQueueSettings = WorkerQueueSettings()
