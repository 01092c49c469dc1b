"""Where instances run, as the reconciler sees it.

A backend keeps no intentions: it starts what it is told to, says what has become of it, and stops
it. When to start again, and whether, is decided in `gateway.provision.planner`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from gateway.domain.model import GpuSpec, Instance, VersionDetails

OnChange = Callable[[str, str], None]
"""Told function id and version id of whatever has changed."""


class Life(Enum):
    """What has become of an instance."""

    UP = "up"
    """It was started and has not ended; whether it serves, its worker tells."""
    DOWN = "down"
    """It has ended or could not start; nothing of it runs."""
    STOPPING = "stopping"
    """It was told to stop. Once it has, the backend knows it no longer."""


@dataclass(frozen=True, slots=True)
class Holding:
    """One instance that a backend has.

    ``since`` is when it came to its ``life``, Unix seconds. ``reason`` is why it is DOWN, with the
    last lines of its log; ``is_final`` when another attempt cannot end otherwise.
    """

    instance_id: str
    life: Life
    since: float
    reason: str = ""
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that is needed to run one instance.

    ``secrets`` are values by name; ``worker_environment`` is how its worker logs in.
    """

    instance: Instance
    spec: GpuSpec
    details: VersionDetails
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    worker_environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class Backend(Protocol):
    """One kind of place for instances. No method fails for what happens to an instance."""

    def listen(self, on_change: OnChange) -> None:
        """Call ``on_change`` whenever a holding changes or ends, from the running loop."""

    async def clear_remains(self) -> Collection[str]:
        """End what backends of leaders that died have left running, as far as we can reach it.

        Return the ids of their instances, of which nothing runs any more.
        """

    def held(self) -> Iterable[tuple[str, str]]:
        """Return function id and version id of everything held."""

    def holdings(self, version_id: str) -> Mapping[str, Holding]:
        """Return what is held of one version, by instance id."""

    async def start(self, order: Order) -> None:
        """Start an instance, or start it again when it is DOWN. Else nothing happens."""

    def stop(self, instance_id: str, grace_s: float) -> None:
        """Have it finish what it does within ``grace_s`` seconds, then end it. Returns at once."""

    def fail(self, instance_id: str, reason: str) -> None:
        """End it at once because it no longer does what it should: it becomes DOWN."""

    def tail(self, instance_id: str) -> str:
        """Return the last lines of its log; empty when there are none."""
