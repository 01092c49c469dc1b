"""The function queue behind one interface.

One queue per function version and region. The gateway publishes envelopes and may withdraw them;
workers lease them, tell that they still work on them, and acknowledge them when all is over.
"""

from typing import Protocol


class QueueError(Exception):
    """A publish that did not reach the queue, or was lost from it."""


class QueueFull(QueueError):
    """The queue holds as many requests as it may."""


class QueueUnavailable(QueueError):
    """The broker cannot be reached, refused, or lost the queue's contents."""


class Waiting(Protocol):
    """One published request, told what becomes of it. Called at most as the comments say."""

    def published(self, sequence: int) -> None:
        """The queue holds it; ``sequence`` orders it within its queue. At most once."""

    def refused(self, error: QueueError) -> None:
        """It is not in the queue, or no longer. At most once; nothing follows."""

    def exhausted(self) -> None:
        """Every allowed delivery was used up without an answer. At most once; nothing follows."""


class FunctionQueue(Protocol):
    """The gateway's side."""

    def is_available(self) -> bool:
        """Whether a publish can be attempted now."""

    def publish(
        self, version_id: str, request_id: str, envelope: bytes, waiting: Waiting, trace: bytes
    ) -> None:
        """Put ``envelope`` into the queue of ``version_id``; the answer comes to ``waiting``.

        ``trace`` is the value of ``traceparent``, or empty. Never blocks and never raises for
        what the broker does; ``waiting`` is called later, never before this returns.
        """

    def withdraw(self, version_id: str, request_id: str) -> None:
        """Take it out of the queue and tell workers to stop: nobody waits for it any more."""

    def settled(self, request_id: str) -> None:
        """A worker has answered: forget it. The worker's own acknowledgement takes it out."""

    async def position(self, version_id: str, request_id: str) -> int:
        """Return the place in line, 1 = next to be leased, 0 = leased already or unknown.

        Exact at rest, over all gateway processes, withdrawn requests not counted.
        Raises `QueueUnavailable`.
        """

    async def depth(self, version_id: str) -> int:
        """Return how many requests wait to be leased. Raises `QueueUnavailable`."""


class Lease(Protocol):
    """A worker's time-limited right to one envelope."""

    envelope: bytes
    deliveries: int

    def progress(self) -> None:
        """Still working: the lease's time starts again."""

    def ack(self) -> None:
        """All is over; the request leaves the queue."""

    def hand_back(self) -> None:
        """Not begun: let another worker have it at once."""

    def reject(self) -> None:
        """Not a request anybody can serve: take it out of the queue, deliver it to nobody."""
