"""How an invocation ended; labels metrics and the access line."""

from enum import Enum


class Outcome(Enum):
    """One per invocation, set when it is over."""

    ANSWERED = "answered"
    """The worker's response reached the client whole, whatever its status."""
    CLIENT_GONE = "client_gone"
    """The client left first; counted as status 499."""
    BAD_REQUEST = "bad_request"
    """The request cannot be put into an envelope."""
    QUEUE_FULL = "queue_full"
    QUEUE_UNAVAILABLE = "queue_unavailable"
    POLL_TIMEOUT = "poll_timeout"
    """No response head within the poll window."""
    WORKER_LOST = "worker_lost"
    """The worker broke off, or every delivery was used up."""
    TOO_LONG = "too_long"
    """The response outlived the ceiling of one invocation."""
    DRAINED = "drained"
    """The process stopped before the response was complete."""
