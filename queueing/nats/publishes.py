"""The errors with which JetStream refuses a publish."""

from queueing.interface import QueueError, QueueFull, QueueUnavailable
from queueing.nats.jetstream import MEMORY_EXCEEDED, STORAGE_EXCEEDED, STORE_FAILED


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
