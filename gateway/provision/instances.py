"""The versions that need reconciling, and the instances of each. Pure.

`ManagedVersions` takes every change of the store and keeps only versions that need something:
those that are deployed, run or have a queue left. `VersionInstances` joins the records that the
store has reported with those that this process wrote a moment ago and the store has yet to report,
so that no instance is started twice.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

from gateway.domain.model import (
    Change,
    Deployment,
    DeploymentKey,
    FunctionVersion,
    Instance,
    InstanceKey,
    Phase,
    Removed,
    VersionKey,
    VersionState,
)


class VersionInstances:
    """One version: its deployment, its state and capacity as stored, its instances."""

    __slots__ = (
        "_records",
        "_removed",
        "_reported",
        "_unreported",
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
        self.state = VersionState.INACTIVE
        self.capacity = 0
        self.has_queue = False
        self._reported: dict[str, Instance] = {}
        self._records: dict[str, Instance] = {}
        self._unreported: set[str] = set()
        self._removed: set[str] = set()

    def is_empty(self) -> bool:
        """Whether the version is not deployed and nothing of it is left."""
        return (
            self.deployment is None
            and self.state is VersionState.INACTIVE
            and not self.has_queue
            and not self._reported
            and not self._records
        )

    def apply(self, instance: Instance) -> None:
        """Take an instance's record that the store reports."""
        instance_id = instance.instance_id
        self._reported[instance_id] = instance
        self._unreported.discard(instance_id)
        if instance_id not in self._removed:
            self._records[instance_id] = instance

    def record(self, instance_id: str) -> Instance | None:
        """Return the current record of one instance."""
        return self._records.get(instance_id)

    def apply_removal(self, instance_id: str) -> None:
        """Take the removal of an instance's record that the store reports."""
        self._reported.pop(instance_id, None)
        self._removed.discard(instance_id)

    def mark_written(self, instance: Instance) -> None:
        """Record that this process has written ``instance`` to the store.

        Its worker may have renewed its lease meanwhile.
        """
        known = self._records.get(instance.instance_id)
        if known is not None and known.is_connected and instance.is_connected:
            lease_until = max(known.lease_until, instance.lease_until)
            instance = replace(instance, lease_until=lease_until)
        if instance.instance_id not in self._reported:
            self._unreported.add(instance.instance_id)
        self._records[instance.instance_id] = instance

    def mark_removed(self, instance_id: str) -> None:
        """Record that this process has deleted an instance from the store."""
        self._records.pop(instance_id, None)
        self._unreported.discard(instance_id)
        if instance_id in self._reported:
            self._removed.add(instance_id)

    def find_lost(
        self, running_ids: Collection[str], started: Collection[Instance] = ()
    ) -> list[Instance]:
        """Return the records that the store has lost of the instances in ``running_ids``.

        The store keeps instances in memory and loses them all when it restarts. Lost records of
        other instances are dropped here as well. ``started`` are the records with which running
        instances were started, perhaps by another process: without any other they count, if the
        deployment is still the same.
        """
        lost_ids = self._records.keys() - self._reported.keys() - self._unreported
        lost = []
        for instance_id in lost_ids:
            if instance_id in running_ids:
                lost.append(self._records[instance_id])
            else:
                del self._records[instance_id]
        lost += [
            instance
            for instance in started
            if instance.instance_id not in self._records and self._is_of_deployment(instance)
        ]
        return lost

    def wanted_ids(self) -> set[str]:
        """Return the ids of the instances that, by the store, are to go on."""
        return {
            instance.instance_id
            for instance in self._reported.values()
            if instance.phase is not Phase.STOPPING and self._is_of_deployment(instance)
        }

    def _is_of_deployment(self, instance: Instance) -> bool:
        deployment = self.deployment
        return (
            deployment is not None
            and instance.deployment_id == deployment.deployment_id
            and deployment.spec(instance.spec_id) is not None
        )

    def instances(self) -> list[Instance]:
        """Return the current instances, oldest first."""
        return sorted(
            self._records.values(),
            key=lambda instance: (instance.created_at, instance.instance_id),
        )


def is_renewal(before: Instance, after: Instance) -> bool:
    """Whether a running external worker has only renewed its lease: nothing follows from that.

    A pass is due when the lease that it had would have ended. Thousands of workers renew theirs
    several times in that time.
    """
    if not after.is_external or after.phase is not Phase.RUNNING or after.error:
        return False
    renewed = replace(
        before, lease_until=after.lease_until, updated_at=after.updated_at, busy=after.busy
    )
    return renewed == after


class ManagedVersions:
    """All versions that need reconciling. ``on_change`` is called with each that has changed."""

    def __init__(self, on_change: Callable[[VersionInstances], None]) -> None:
        self._on_change = on_change
        self._versions: dict[str, VersionInstances] = {}
        self._function_ids: dict[str, str] = {}

    def apply(self, change: Change) -> None:
        """Take one change of the store; changes of other kinds of records are ignored."""
        match change:
            case FunctionVersion():
                self._function_ids[change.version_id] = change.function_id
                if (
                    change.state is VersionState.INACTIVE
                    and change.version_id not in self._versions
                ):
                    return
                version = self.ensure(change.function_id, change.version_id)
                version.state, version.capacity = change.state, change.capacity
            case Removed(VersionKey(function_id, version_id)):
                self._function_ids.pop(version_id, None)
                version = self.ensure(function_id, version_id)
                version.state = VersionState.INACTIVE
            case Deployment():
                version = self.ensure(change.function_id, change.version_id)
                version.deployment = change
            case Removed(DeploymentKey(function_id, version_id)):
                version = self.ensure(function_id, version_id)
                version.deployment = None
            case Instance():
                version = self.ensure(change.function_id, change.version_id)
                before = version.record(change.instance_id)
                version.apply(change)
                if before is not None and is_renewal(before, change):
                    return
            case Removed(InstanceKey(version_id, instance_id)):
                known = self._versions.get(version_id)
                if known is None:
                    return
                version = known
                version.apply_removal(instance_id)
            case _:
                return
        self._on_change(version)

    def ensure(self, function_id: str, version_id: str) -> VersionInstances:
        """Return the version's entry; creates it if there is none."""
        version = self._versions.get(version_id)
        if version is None:
            version = self._versions[version_id] = VersionInstances(function_id, version_id)
        return version

    def get(self, version_id: str) -> VersionInstances | None:
        """Return the version's entry, if there is one."""
        return self._versions.get(version_id)

    def ensure_stored(self, version_id: str) -> VersionInstances | None:
        """Return the entry of a version that is in the store, created if need be; else `None`."""
        function_id = self._function_ids.get(version_id)
        return None if function_id is None else self.ensure(function_id, version_id)

    def is_stored(self, version_id: str) -> bool:
        """Whether the store has reported the version, and not its removal."""
        return version_id in self._function_ids

    def all(self) -> list[VersionInstances]:
        """Return all entries."""
        return list(self._versions.values())

    def forget(self, version: VersionInstances) -> None:
        """Drop the entry of a version that needs nothing any more."""
        self._versions.pop(version.version_id, None)
