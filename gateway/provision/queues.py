"""The queues of versions, for the reconciler: load, end, removal.

Ending a queue takes two steps, because a request is in two places. A notice to every gateway
process (`gateway.provision.undeploy_notices`) makes it respond to the clients whose requests no
worker has; then the queue is purged. A process that misses the notice responds to its clients at
their own deadline.
"""

from collections.abc import Awaitable, Callable

from gateway.provision.undeploy_notices import UndeployNotices
from queueing.interface import Bus, Load, QueueAdmin, QueueUnavailable

Removed = Callable[[str], Awaitable[None]]
"""Called with a version id after its queue was removed.

When it raises `QueueUnavailable`, removal and call are repeated.
"""


class Queues:
    """The queues of all versions. Every method may raise `QueueUnavailable`."""

    def __init__(self, admin: QueueAdmin, bus: Bus) -> None:
        self._admin = admin
        self._direct: Callable[[str], int] = lambda _: 0
        self._bus = bus
        self._removed: Removed = _do_nothing

    def on_removed(self, removed: Removed) -> None:
        """Call ``removed`` after every removal of a queue from now on."""
        self._removed = removed

    def count_direct(self, direct: Callable[[str], int]) -> None:
        """Call ``direct`` for how many calls of a version workers have over channels."""
        self._direct = direct

    async def load(self, version_id: str) -> Load:
        """Return how many requests wait, and how many workers have, over channels or leased."""
        load = await self._admin.load(version_id)
        return load._replace(leased=load.leased + self._direct(version_id))

    async def end(self, version_id: str) -> None:
        """Fail every request that waits, now."""
        if not self._bus.publish(UndeployNotices.subject(version_id), b""):
            raise QueueUnavailable("not connected")
        await self._admin.purge(version_id)

    async def remove(self, version_id: str) -> None:
        """Remove the queue, if it exists, and the credentials of the version's workers."""
        await self._admin.remove(version_id)
        await self._removed(version_id)

    async def version_ids(self) -> list[str]:
        """Return the ids of all versions that have a queue."""
        return await self._admin.version_ids()


async def _do_nothing(version_id: str) -> None:
    """Keep the credentials of workers: there are none."""
