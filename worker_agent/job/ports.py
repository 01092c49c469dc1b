"""What a job may do to the world; implemented by inference, attach, pull and the tests."""

from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from worker_agent.job.machine import Job


class Outcome(IntEnum):
    """How a job ended."""

    ANSWERED = 1
    """The inference server's response was delivered."""
    FAILED = 2
    """A problem document of ours was delivered, or the response broke in its middle."""
    CANCELLED = 3
    """The gateway withdrew the request."""
    UNWANTED = 4
    """The gateway ended the POST early or refused it: nobody waits any more."""
    UNDELIVERED = 5
    """The gateway could not be reached, or the connection to it broke."""
    HANDED_BACK = 6
    """Ended by the agent's own stop before it had an answer; another worker gets it."""


class Call(Protocol):
    """One request at the inference server."""

    def send_data(self, data: bytes) -> None:
        """Send the next bytes of the request's body."""

    def send_end(self) -> None:
        """The request is complete."""

    def pause_reading(self) -> None:
        """Read no more of the response for now."""

    def resume_reading(self) -> None:
        """Read on."""

    def close(self) -> None:
        """Close the connection at once; nothing more is told."""


class Inference(Protocol):
    """The local inference server."""

    def open(self, job: "Job", *, is_fresh: bool) -> None:
        """Find a connection for ``job``; answered by `Job.opened` or `Job.unreachable`.

        ``is_fresh``: only a connection that has not idled will do.
        """


class Post(Protocol):
    """A response on its way to the gateway, piece by piece."""

    def send_data(self, data: bytes) -> None:
        """Send the next bytes of the body."""

    def send_end(self) -> None:
        """The response is complete."""

    def abort(self) -> None:
        """Break off, so that the gateway cannot take it for a complete response."""


class Rest(Protocol):
    """The rest of a request body on its way from the gateway."""

    def pause_reading(self) -> None:
        """Read no more for now."""

    def resume_reading(self) -> None:
        """Read on."""

    def close(self) -> None:
        """No more of it is needed."""


class Attach(Protocol):
    """The gateway processes that hold the clients."""

    def deliver(self, job: "Job") -> None:
        """POST `Job.answer`, a complete response; then `Job.post_answered` or `Job.post_broken`."""

    def stream(self, job: "Job", head: bytes, total_bytes: int | None) -> Post:
        """POST a response that begins with ``head``; ``total_bytes`` of all, ``None``: unknown.

        Answered by `Job.post_answered` or `Job.post_broken` at any time.
        """

    def fetch(self, job: "Job") -> Rest:
        """GET the rest of the body: `Job.rest_data`, `Job.rest_end`, `Job.rest_broken`."""


class Desk(Protocol):
    """Where the agent keeps its jobs."""

    def freed(self, job: "Job") -> None:
        """The inference server is done with the job: its slot is free. Called exactly once."""

    def finished(self, job: "Job") -> None:
        """The job is over, its outcome is set, its lease ended. Called exactly once."""
