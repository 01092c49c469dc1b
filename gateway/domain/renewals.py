"""The record with which a process renews the leases of many external workers at once.

A process that takes heartbeats keeps `PARTS` of these records, each with a part of the workers that
it has heard from, so that thousands of heartbeats are a few writes. What a worker's instance is
follows from its own record and these (`gateway.domain.leases`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from gateway.domain.documents import SCHEMA, Document, RecordError
from gateway.domain.keys import RenewalsKey

PARTS = "0123"
"""Few, because each is a write, and more than one, because a record is read in one turn."""
_PAIR = 2


class Renewal(NamedTuple):
    """End of a lease in Unix seconds, and the requests that the worker has."""

    lease_until: int
    busy: int


@dataclass(frozen=True, slots=True)
class Renewals:
    """The last renewals that ``process`` has taken, by the ids of the instances of one part."""

    process: str
    part: str
    workers: Mapping[str, Renewal]

    @property
    def key(self) -> RenewalsKey:
        return RenewalsKey(self.process, self.part)

    @property
    def ended_at(self) -> int:
        """When the last of the leases ends."""
        return max((one.lease_until for one in self.workers.values()), default=0)

    def document(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "kind": "renewals",
            "process": self.process,
            "part": self.part,
            "workers": {name: tuple(one) for name, one in self.workers.items()},
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        workers = document.mapping("workers")
        return cls(
            process=document.uuid("process"),
            part=document.text("part"),
            workers={name: _read(value) for name, value in workers.items()},
        )


def part_of(instance_id: str) -> str:
    """Return the part of an instance: its id is a UUID, whose first digit is as good as random."""
    return PARTS[ord(instance_id[0]) % len(PARTS)]


def _read(value: object) -> Renewal:
    if not isinstance(value, list) or len(value) != _PAIR:
        raise RecordError("a renewal is not a pair")
    if type(value[0]) is not int or type(value[1]) is not int:
        raise RecordError("a renewal has a number that is no integer")
    return Renewal(value[0], value[1])
