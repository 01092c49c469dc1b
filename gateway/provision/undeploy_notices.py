"""Notices that a version was undeployed, from the reconciler to all gateway processes.

When a version is undeployed without grace, or its grace period has passed, the reconciler publishes
an empty message on ``nvcf.ended.<versionId>``. Each gateway process then fails its invocations of
the version to which no worker has begun to respond, those whose body still arrives included.
"""

from collections.abc import Iterable

from gateway.invocation.machine import Invocation
from gateway.invocation.states import State
from gateway.provision.notices import Notices
from queueing.interface import FunctionQueue, QueueUnavailable
from wire.subjects import UNDEPLOYED_PREFIX

UNDEPLOYED = "The version was undeployed"
_UNANSWERED = frozenset({State.RECEIVING, State.SENT, State.QUEUED})


class UndeployNotices(Notices):
    """Receives the ids of versions that were undeployed."""

    prefix = UNDEPLOYED_PREFIX


def fail_waiting(live: Iterable[Invocation], queue: FunctionQueue, version_id: str) -> int:
    """Fail every invocation of the version to which no worker responds yet; return how many."""
    waiting = [
        invocation
        for invocation in live
        if invocation.state in _UNANSWERED and invocation.version.version_id == version_id
    ]
    for invocation in waiting:
        queue.forget(invocation.request_id)
        invocation.publish_failed(QueueUnavailable(UNDEPLOYED))
    return len(waiting)
