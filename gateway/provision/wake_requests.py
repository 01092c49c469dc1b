"""Wake requests: a version was invoked while none of its instances runs.

Gateway processes publish an empty message on ``nvcf.wanted.<versionId>``, at most one in
`PUBLISH_EVERY_S` for each version; the leader among the reconcilers subscribes. A lost message
only costs time: the leader also reads the queues of such versions now and then.
"""

from collections.abc import Callable

from gateway.provision.notices import Notices
from queueing.interface import Bus
from wire.subjects import WAKE_PREFIX

PUBLISH_EVERY_S = 1.0
_MAX_REMEMBERED = 10_000


class WakeSubscriber(Notices):
    """Receives the ids of versions that were invoked."""

    prefix = WAKE_PREFIX


class WakePublisher:
    """Publishes wake requests of one gateway process."""

    __slots__ = ("_bus", "_clock", "_next_at")

    def __init__(self, bus: Bus, clock: Callable[[], float]) -> None:
        """``clock`` is monotonic, in seconds."""
        self._bus = bus
        self._clock = clock
        self._next_at: dict[str, float] = {}

    def publish(self, version_id: str) -> None:
        """Publish a wake request for a version, unless one was published just before."""
        now = self._clock()
        if now < self._next_at.get(version_id, now):
            return
        if len(self._next_at) >= _MAX_REMEMBERED:
            self._next_at.clear()
        self._next_at[version_id] = now + PUBLISH_EVERY_S
        self._bus.publish(WakeSubscriber.subject(version_id), b"")
