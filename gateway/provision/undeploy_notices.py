"""The end of a queue, as gateway processes hear of it.

When a version is undeployed without grace, or its grace is over, the reconciler publishes an empty
message on ``nvcf.ended.<versionId>`` (core NATS). Each gateway process listens to all of them and
answers its clients whose requests no worker has begun to answer.
"""

from collections.abc import Iterable

from gateway.invocation.machine import Invocation
from gateway.invocation.states import State
from gateway.provision.notices import Notices
from queueing.interface import FunctionQueue, QueueUnavailable

UNDEPLOYED = "The version was undeployed"


class Endings(Notices):
    """Hears of ends."""

    prefix = b"nvcf.ended."


def end_queued(live: Iterable[Invocation], queue: FunctionQueue, version_id: str) -> int:
    """Answer every invocation of the version that waits for a worker; return how many."""
    waiting = [
        one for one in live if one.state is State.QUEUED and one.version.version_id == version_id
    ]
    for invocation in waiting:
        queue.settled(invocation.request_id)
        invocation.refused(QueueUnavailable(UNDEPLOYED))
    return len(waiting)
