"""The result of publishes: the metric ``nats_jetstream_publish``, on every backend.

The metric is NVCF's (`docs/wire.md` §17.1). A request counts once, when its publish is
decided, however often it was sent: `OK` when the broker has stored it, else the reason why not. A
request that was withdrawn before does not count. What happens to a stored request later does not
change the count.
"""

from collections.abc import Callable
from enum import StrEnum

from runtime.metrics import Counter, MetricRegistry


class PublishStatus(StrEnum):
    """Values of the label ``status``: NVCF's, and further ones in the same form."""

    OK = "Ok"
    QUEUE_FULL = "QueueFull"
    """The stream has reached its limit of requests or bytes."""
    TIMEOUT = "Timeout"
    """The broker did not acknowledge in time."""
    DENIED = "Denied"
    """Our account has no permission to publish there."""
    TOO_LARGE = "TooLarge"
    """The envelope exceeds the broker's ``max_payload``; it was not sent."""
    OVERLOADED = "Overloaded"
    """This process has its maximum of requests or queues; the request was not sent."""
    UNAVAILABLE = "Unavailable"
    """No connection, a lost connection, no stream, or any other refusal of the broker."""


def publish_counter() -> Counter:
    """Return the metric with all counts at 0."""
    statuses = ", ".join(PublishStatus)
    return Counter(
        "nats_jetstream_publish",
        f"Publishes that were decided, one per request; status: {statuses}",
        ("stream", "status"),
    )


def register_publishes(
    registry: MetricRegistry,
    publishes: Counter,
    losses: Callable[[], int],
    republished: Callable[[], int],
) -> None:
    """Show the results of publishes, and the requests that were lost later."""
    registry.add(publishes)
    registry.counter(
        "gateway_queue_losses_total", "Requests that were lost with their queue"
    ).set_function(losses)
    registry.counter(
        "gateway_queue_republished_total", "Requests that were lost and published again"
    ).set_function(republished)
