"""Somebody has called a version that nothing serves: told by gateway processes, for who leads.

An empty message on ``nvcf.wanted.<versionId>`` (core NATS), at most once in `TELL_EVERY_S` for each
version and process. One that is lost costs time only: the leader reads the queues of such versions
as well, now and then.
"""

from collections.abc import Callable

from gateway.provision.notices import Notices
from queueing.nats.connection import Connection

TELL_EVERY_S = 1.0
_MAX_TOLD = 10_000


class Wants(Notices):
    """Hears of versions that are wanted."""

    prefix = b"nvcf.wanted."


class Teller:
    """Tells of versions, from one gateway process."""

    __slots__ = ("_again_at", "_clock", "_connection")

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        """``clock`` is monotonic, in seconds."""
        self._connection = connection
        self._clock = clock
        self._again_at: dict[str, float] = {}

    def tell(self, version_id: str) -> None:
        """Somebody has called this version now."""
        now = self._clock()
        if now < self._again_at.get(version_id, now):
            return
        if len(self._again_at) >= _MAX_TOLD:
            self._again_at.clear()
        self._again_at[version_id] = now + TELL_EVERY_S
        self._connection.publish(Wants.subject(version_id), b"")
