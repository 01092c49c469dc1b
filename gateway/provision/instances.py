"""Which versions have something asked for or running, and the instances of each. Pure.

`Fleets` is fed with every change of the store and keeps only versions that need looking after, the
deployed ones. A `Fleet` joins what the store says with what we wrote ourselves a moment ago and the
store has yet to tell us, so that no instance is started twice.
"""

from collections.abc import Callable, Collection

from gateway.domain.model import (
    Change,
    Deployment,
    DeploymentKey,
    FunctionVersion,
    Instance,
    InstanceKey,
    Removed,
    State,
    VersionKey,
)


class Fleet:
    """One version: what is asked for, its state as stored, its instances."""

    __slots__ = (
        "_dropped",
        "_fresh",
        "_records",
        "_seen",
        "capacity",
        "deployment",
        "function_id",
        "has_queue",
        "state",
        "version_id",
    )

    def __init__(self, function_id: str, version_id: str) -> None:
        self.function_id = function_id
        self.version_id = version_id
        self.deployment: Deployment | None = None
        self.state = State.INACTIVE
        self.capacity = 0
        self.has_queue = False
        self._seen: dict[str, Instance] = {}
        self._records: dict[str, Instance] = {}
        self._fresh: set[str] = set()
        self._dropped: set[str] = set()

    def is_empty(self) -> bool:
        """Whether nothing is asked for, and nothing is on record."""
        return (
            self.deployment is None
            and self.state is State.INACTIVE
            and not self.has_queue
            and not self._seen
            and not self._records
        )

    def take(self, instance: Instance) -> None:
        """The store has this record of an instance."""
        instance_id = instance.instance_id
        self._seen[instance_id] = instance
        self._fresh.discard(instance_id)
        if instance_id not in self._dropped:
            self._records[instance_id] = instance

    def take_removal(self, instance_id: str) -> None:
        """The store has no record of an instance any more."""
        self._seen.pop(instance_id, None)
        self._dropped.discard(instance_id)

    def wrote(self, instance: Instance) -> None:
        """We have written this to the store."""
        if instance.instance_id not in self._seen:
            self._fresh.add(instance.instance_id)
        self._records[instance.instance_id] = instance

    def dropped(self, instance_id: str) -> None:
        """We have removed this from the store."""
        self._records.pop(instance_id, None)
        self._fresh.discard(instance_id)
        if instance_id in self._seen:
            self._dropped.add(instance_id)

    def lost(self, held: Collection[str]) -> list[Instance]:
        """Return records that the store has lost of instances that are ``held``.

        The store keeps instances in memory: it loses them all when it starts again. Records of
        instances that nobody holds are forgotten here, as they are there.
        """
        gone = self._records.keys() - self._seen.keys() - self._fresh
        lost = []
        for instance_id in gone:
            if instance_id in held:
                lost.append(self._records[instance_id])
            else:
                del self._records[instance_id]
        return lost

    def instances(self) -> list[Instance]:
        """Return what there is, to the best of our knowledge, oldest first."""
        return sorted(self._records.values(), key=lambda one: (one.created_at, one.instance_id))


class Fleets:
    """All of them. ``touched`` is called with each that something has changed of."""

    def __init__(self, touched: Callable[[Fleet], None]) -> None:
        self._touched = touched
        self._fleets: dict[str, Fleet] = {}
        self._function_of: dict[str, str] = {}

    def apply(self, change: Change) -> None:
        """Take one change of the store; those of other kinds are ignored."""
        match change:
            case FunctionVersion():
                self._function_of[change.version_id] = change.function_id
                if change.state is State.INACTIVE and change.version_id not in self._fleets:
                    return
                fleet = self.fleet(change.function_id, change.version_id)
                fleet.state, fleet.capacity = change.state, change.capacity
            case Removed(VersionKey(function_id, version_id)):
                self._function_of.pop(version_id, None)
                fleet = self.fleet(function_id, version_id)
                fleet.state = State.INACTIVE
            case Deployment():
                fleet = self.fleet(change.function_id, change.version_id)
                fleet.deployment = change
            case Removed(DeploymentKey(function_id, version_id)):
                fleet = self.fleet(function_id, version_id)
                fleet.deployment = None
            case Instance():
                fleet = self.fleet(change.function_id, change.version_id)
                fleet.take(change)
            case Removed(InstanceKey(version_id, instance_id)):
                known = self._fleets.get(version_id)
                if known is None:
                    return
                fleet = known
                fleet.take_removal(instance_id)
            case _:
                return
        self._touched(fleet)

    def fleet(self, function_id: str, version_id: str) -> Fleet:
        """Return the version's entry, made if need be."""
        fleet = self._fleets.get(version_id)
        if fleet is None:
            fleet = self._fleets[version_id] = Fleet(function_id, version_id)
        return fleet

    def get(self, version_id: str) -> Fleet | None:
        """Return the version's entry, if it has one."""
        return self._fleets.get(version_id)

    def known(self, version_id: str) -> Fleet | None:
        """Return the entry of a version that the store knows, made if need be."""
        function_id = self._function_of.get(version_id)
        return None if function_id is None else self.fleet(function_id, version_id)

    def everything(self) -> list[Fleet]:
        """Return all entries."""
        return list(self._fleets.values())

    def forget(self, fleet: Fleet) -> None:
        """Drop the entry of a version that needs nothing any more."""
        self._fleets.pop(fleet.version_id, None)
