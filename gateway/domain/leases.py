"""The leases of external workers as they are now. Pure.

The record of an instance has the lease with which its worker last changed something. Heartbeats
that change nothing renew it in `gateway.domain.renewals.Renewals`, of which each process that takes
heartbeats has its own. `Leases` is put before the models that follow the store: they see instances
with the later of both.
"""

from collections.abc import Callable
from dataclasses import replace

from gateway.domain.model import (
    Change,
    Instance,
    InstanceKey,
    Removed,
    Renewals,
    RenewalsKey,
)
from gateway.domain.renewals import PARTS, Renewal, part_of


class Leases:
    """Passes changes of the store on, with the present leases of instances."""

    def __init__(self, pass_on: Callable[[Change], None]) -> None:
        self._pass_on = pass_on
        self._stored: dict[str, Instance] = {}
        self._parts: dict[str, dict[str, Renewals]] = {part: {} for part in PARTS}

    def apply(self, change: Change) -> None:
        """Take one change of the store. The same change may come again."""
        match change:
            case Renewals():
                self._renew(change)
            case Removed(RenewalsKey(process, part)):
                self._parts.get(part, {}).pop(process, None)
            case Instance() if change.is_external:
                self._stored[change.instance_id] = change
                self._pass_on(self.current(change))
            case Removed(InstanceKey(_, instance_id)):
                self._stored.pop(instance_id, None)
                self._pass_on(change)
            case _:
                self._pass_on(change)

    def current(self, stored: Instance) -> Instance:
        """Return an instance, as it is stored, with the lease that its worker has now.

        A worker that is not connected any more, because it stops, has none but the stored one.
        """
        if not (stored.is_external and stored.is_connected):
            return stored
        found = self._latest(stored.instance_id)
        if found is None or found.lease_until <= stored.lease_until:
            return stored
        return replace(stored, lease_until=found.lease_until, busy=found.busy)

    def ended(self, before: int) -> list[RenewalsKey]:
        """Return the keys of records whose leases have all ended ``before``, in Unix seconds."""
        return [
            record.key
            for records in self._parts.values()
            for record in records.values()
            if record.ended_at < before
        ]

    def _renew(self, renewals: Renewals) -> None:
        records = self._parts.get(renewals.part)
        if records is None:
            return
        before = records.get(renewals.process)
        known = {} if before is None else before.workers
        records[renewals.process] = renewals
        for instance_id, renewal in renewals.workers.items():
            stored = self._stored.get(instance_id)
            if stored is None or known.get(instance_id) == renewal:
                continue
            if self._latest(instance_id) != renewal:
                continue
            current = self.current(stored)
            if current is not stored:
                self._pass_on(current)

    def _latest(self, instance_id: str) -> Renewal | None:
        records = self._parts[part_of(instance_id)]
        found = (record.workers.get(instance_id) for record in records.values())
        return max((one for one in found if one is not None), default=None)
