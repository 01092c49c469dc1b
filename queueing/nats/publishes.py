"""What comes of publishes: NVCF's ``nats_jetstream_publish`` (`spec/operations.md` §12).

A request counts once, when its publish is decided, however often its frame was sent: `OK` when the
stream has taken it, else why not. One that was withdrawn before that does not count, and what
becomes later of one that was taken is not a matter of its publish.
"""

from enum import StrEnum

from runtime.metrics import Counter


class PublishStatus(StrEnum):
    """The label ``status``; the words are NVCF's or in their manner."""

    OK = "Ok"
    QUEUE_FULL = "QueueFull"
    """The stream holds as many requests or bytes as it may."""
    TIMEOUT = "Timeout"
    """The broker did not acknowledge in time."""
    DENIED = "Denied"
    """Our account may not publish there."""
    TOO_LARGE = "TooLarge"
    """The envelope is larger than the broker takes; it was not sent."""
    OVERLOADED = "Overloaded"
    """This process holds as many requests or queues as it may; it was not sent."""
    UNAVAILABLE = "Unavailable"
    """No link, the link was lost, no stream takes it, or the broker refused for another reason."""


def publish_counter() -> Counter:
    """Return the metric, nothing counted yet."""
    words = ", ".join(PublishStatus)
    return Counter(
        "nats_jetstream_publish",
        f"Publishes that were decided, one per request; status: {words}",
        ("stream", "status"),
    )
