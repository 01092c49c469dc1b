"""The end of a queue, as gateway processes hear of it.

When a version is undeployed without grace, or its grace is over, the reconciler publishes an empty
message on ``nvcf.ended.<versionId>`` (core NATS). Each gateway process listens to all of them and
answers its clients whose requests no worker has begun to answer.
"""

from collections.abc import Callable, Iterable

from gateway.invocation.machine import Invocation
from gateway.invocation.state import State
from queueing.interface import FunctionQueue, QueueUnavailable
from queueing.nats.connection import Connection
from wire.ids import parse_uuid

_PREFIX = b"nvcf.ended."
UNDEPLOYED = "The version was undeployed"


def ended_subject(version_id: str) -> bytes:
    """Return where the end of a version's queue is told."""
    return _PREFIX + version_id.encode()


class Endings:
    """Listens for ends, for as long as ``connection`` lives; ``ended`` gets the version's id."""

    def __init__(self, connection: Connection, ended: Callable[[str], object]) -> None:
        self._connection = connection
        self._ended = ended
        self._subscription = connection.subscribe(_PREFIX + b"*", self._heard)

    def close(self) -> None:
        """Listen no more."""
        self._connection.unsubscribe(self._subscription)

    def _heard(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:  # noqa: ARG002  the subject says it
        version_id = parse_uuid(subject.removeprefix(_PREFIX))
        if version_id is not None:
            self._ended(version_id)


def end_queued(live: Iterable[Invocation], queue: FunctionQueue, version_id: str) -> int:
    """Answer every invocation of the version that waits for a worker; return how many."""
    waiting = [
        one for one in live if one.state is State.QUEUED and one.version.version_id == version_id
    ]
    for invocation in waiting:
        queue.settled(invocation.request_id)
        invocation.refused(QueueUnavailable(UNDEPLOYED))
    return len(waiting)
