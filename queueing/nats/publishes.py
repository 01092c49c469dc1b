"""The result of publishes: the metric ``nats_jetstream_publish`` and errors of the broker.

The metric is NVCF's (`docs/wire.md` §17.1). A request counts once, when its publish is
decided, however often its frame was sent: `OK` when the stream has stored it, else the reason why
not. A request that was withdrawn before does not count. What happens to a stored request later
does not change the count.
"""

from enum import StrEnum

from queueing.interface import QueueError, QueueFull, QueueUnavailable
from queueing.nats.jetstream import MEMORY_EXCEEDED, STORAGE_EXCEEDED, STORE_FAILED
from runtime.metrics import Counter


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


def publish_error(code: int, description: str) -> QueueError:
    """Return the error for a refused publish; ``code`` is JetStream's ``err_code``.

    A stream that is full by its own limits has no code of its own: nats-server reports it as
    `STORE_FAILED`, like a failed disk, and only the description differs ("maximum messages
    exceeded", "maximum bytes exceeded").
    """
    if code in {MEMORY_EXCEEDED, STORAGE_EXCEEDED} or (
        code == STORE_FAILED and description.startswith("maximum")
    ):
        return QueueFull(description)
    return QueueUnavailable(description or "The broker refused the request")


def is_duplicate(description: str) -> bool:
    """Whether a publish was refused because an earlier copy of the request is in the stream.

    A stream holds one message per subject. For a second one nats-server has no code of its own,
    only this description, see `publish_error`.
    """
    return description.startswith("maximum messages per subject")
