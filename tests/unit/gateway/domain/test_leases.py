"""The leases of external workers, renewed by several processes."""

from collections import Counter
from dataclasses import replace

from gateway.domain.leases import Leases
from gateway.domain.model import Change, Instance, Removed, Renewals
from gateway.domain.renewals import PARTS, Renewal, part_of
from tests.support.deployments import running

ONE = running("a1", registered_with="t1", lease_until=100, busy=0)


def renewals(process: str, **workers: tuple[int, int]) -> Renewals:
    return Renewals(process, part_of("a1"), {name: Renewal(*one) for name, one in workers.items()})


class Model:
    """What follows the store behind `Leases`."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.leases = Leases(self.changes.append)

    @property
    def last(self) -> Instance:
        assert isinstance(self.changes[-1], Instance)
        return self.changes[-1]

    def apply(self, *changes: Change) -> int:
        """Apply changes; return how many were passed on."""
        before = len(self.changes)
        for change in changes:
            self.leases.apply(change)
        return len(self.changes) - before


def test_the_latest_renewal_counts_whichever_process_took_it() -> None:
    model = Model()
    assert model.apply(ONE, renewals("p", a1=(110, 3)), renewals("q", a1=(105, 1))) == 2
    assert (model.last.lease_until, model.last.busy) == (110, 3)
    assert model.apply(renewals("q", a1=(120, 0))) == 1
    assert (model.last.lease_until, model.last.busy) == (120, 0)
    # The same again, as after the feed broke, is no news.
    assert model.apply(renewals("q", a1=(120, 0))) == 0


def test_a_record_that_is_written_meanwhile_keeps_the_renewed_lease() -> None:
    model = Model()
    model.apply(renewals("p", a1=(110, 2)), ONE)
    assert model.last.lease_until == 110
    model.apply(replace(ONE, is_healthy=False))
    assert (model.last.lease_until, model.last.is_healthy) == (110, False)
    model.apply(replace(ONE, lease_until=130))
    assert model.last.lease_until == 130


def test_a_worker_that_said_goodbye_or_was_not_external_has_the_stored_lease() -> None:
    model = Model()
    model.apply(renewals("p", a1=(110, 2)))
    gone = replace(ONE, is_connected=False, lease_until=90)
    local = replace(ONE, registered_with="")
    model.apply(gone, local)
    assert model.changes == [gone, local]


def test_what_a_process_left_counts_until_it_is_removed() -> None:
    model = Model()
    left = renewals("p", a1=(110, 2))
    model.apply(left, ONE)
    assert model.leases.ended(110) == []
    assert model.leases.ended(111) == [left.key]
    assert model.apply(Removed(left.key)) == 0
    assert model.leases.ended(111) == []
    model.apply(ONE)
    assert model.last.lease_until == 100


def test_renewals_of_an_instance_that_is_gone_are_nothing() -> None:
    model = Model()
    assert model.apply(ONE, Removed(ONE.key)) == 2
    assert model.apply(renewals("p", a1=(110, 2))) == 0


def test_the_parts_are_about_equal() -> None:
    digits = Counter(part_of(digit) for digit in "0123456789abcdef")
    assert digits.keys() == set(PARTS)
    assert max(digits.values()) <= min(digits.values()) + 2
