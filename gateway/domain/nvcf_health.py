"""The health of NVIDIA's workers, which send no heartbeats: what can be seen of them. Pure.

A worker of NVIDIA's checks its inference server before it listens to cancels, and does not pull
requests while that is unhealthy. So one that listens is healthy, unless requests have waited for
a while of which no worker of the version has any.
"""

STALLED_S = 20.0
"""Longer than a worker may need to notice, after a reconnect, that its pull is lost (10 s)."""


class QueueWatch:
    """The queue of one version: since when requests wait while no worker has one."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since: float | None = None

    def is_served(self, waiting: int, leased: int, now: float) -> bool:
        """Whether workers still take requests at ``now``, monotonic seconds."""
        if waiting == 0 or leased > 0:
            self._since = None
            return True
        if self._since is None:
            self._since = now
        return now - self._since < STALLED_S


def instance_name(version_id: str, connection: str) -> str:
    """Return what an instance of the version calls itself, of its connection's name.

    Empty for another connection (`docs/wire.md` §4.5).
    """
    prefix = f"worker_{version_id}_"
    return connection.removeprefix(prefix) if connection.startswith(prefix) else ""


def share_of(leased: int, workers: int, slots: int) -> int:
    """Return how many requests one of ``workers`` has, rounded up: nothing tells whose they are."""
    return min(slots, -(-leased // workers)) if workers else 0
