"""Leases that wait in a worker for a slot."""

import pytest

from queueing.held import HeldLeases
from tests.support.waiting import until


class _Lease:
    """A lease that remembers how it ended."""

    request_id, envelope, deliveries = "request", b"", 1

    def __init__(self) -> None:
        self.ends: list[str] = []

    def is_over(self) -> bool:
        return False

    def followers(self) -> int:
        return 0

    def stored_at_ns(self) -> int:
        return 0

    def is_first_known(self) -> bool:
        return True

    def in_progress(self) -> None:
        self.ends.append("in progress")

    def ack(self) -> None:
        self.ends.append("ack")

    def nak(self, delay_s: float = 0.0) -> None:
        self.ends.append(f"nak {delay_s:g}")

    def term(self) -> None:
        self.ends.append("term")


class _Times:
    """A clock, and whether the leases may be over."""

    def __init__(self) -> None:
        self.now = 100.0
        self.may_be_over = False

    def held(self) -> HeldLeases:
        return HeldLeases(lambda: self.now, lambda: self.may_be_over)


@pytest.mark.parametrize(
    ("begun", "ahead"), [(0, 0), (100, 0), (249, 0), (250, 1), (2000, 8), (100_000, 16)]
)
async def test_only_short_calls_are_pulled_ahead_and_never_many(begun: int, ahead: int) -> None:
    held = _Times().held()
    held.begun = 2 * begun
    held.measure(2.0)
    assert held.ahead == ahead
    held.measure(2.0)
    assert held.ahead == 0


async def test_a_lease_held_for_too_long_is_given_back_and_nothing_more_is_pulled_ahead() -> None:
    times = _Times()
    held = times.held()
    held.ahead = 5
    old, young = _Lease(), _Lease()
    held.hold(old, times.now)
    times.now += 0.06
    held.hold(young, times.now)
    await until(lambda: old.ends)
    assert (old.ends, young.ends, held.ahead) == (["nak 0"], [], 0)
    times.now += 0.06
    await until(lambda: young.ends)
    assert young.ends == ["nak 0"]
    assert not held.waiting


async def test_a_lease_that_may_be_anothers_is_dropped_without_a_word() -> None:
    times = _Times()
    held = times.held()
    lease = _Lease()
    held.hold(lease, times.now)
    times.may_be_over = True
    times.now += 60.0
    await until(lambda: held.lapsed)
    assert (lease.ends, list(held.waiting)) == ([], [])


async def test_it_has_a_bound() -> None:
    times = _Times()
    held = times.held()
    leases = [_Lease() for _ in range(100)]
    for lease in leases:
        if held.has_room():
            held.hold(lease, times.now)
    assert len(held.waiting) == 16
    held.give_back()
    assert [lease.ends for lease in leases] == [["nak 0"]] * 16 + [[]] * 84
