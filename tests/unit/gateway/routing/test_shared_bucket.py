"""Processes that share a bucket, in every order in which their reads and writes can happen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.rate_limit import parse_rates
from gateway.routing.shared_bucket import (
    Claim,
    SharedBucket,
    available,
    decode,
    encode,
    portion_of,
    taken,
)

SECOND_NS = 10**9
NOW_NS = 1_800_000_000 * SECOND_NS


class Shared:
    """The stored numbers: one writer of several that read the same revision is accepted."""

    def __init__(self) -> None:
        self.data = b""
        self.revision = 0

    def read(self) -> tuple[bytes, int] | None:
        return (self.data, self.revision) if self.revision else None

    def accepts(self, claim: Claim) -> bool:
        if claim.revision != self.revision:
            return False
        self.data, self.revision = claim.data, self.revision + 1
        return True


class Process:
    """One process; a claim is computed, and written later."""

    def __init__(self, shared: Shared, rates: str, *, is_exact: bool = False) -> None:
        self.shared = shared
        self.bucket = SharedBucket(parse_rates(rates), is_exact=is_exact)
        self.under_way: Claim | None = None

    def begin(self, waiting: int, now_ns: int) -> None:
        if self.under_way is None:
            if not self.bucket.is_known:
                self.bucket.read(self.shared.read())
            self.under_way = self.bucket.claim(waiting, now_ns)
            if self.under_way is not None:
                self.bucket.sent()

    def finish(self) -> bool:
        claim, self.under_way = self.under_way, None
        if claim is None:
            return True
        if self.shared.accepts(claim):
            self.bucket.written(claim, self.shared.revision)
            return True
        self.bucket.lost(claim)
        return False

    def calls(self, count: int, now_ns: int) -> int:
        """Return how many of ``count`` calls are admitted."""
        self.begin(count, now_ns)
        while not self.finish():
            self.begin(count, now_ns)
        return sum(self.bucket.take(now_ns) for _ in range(count))

    def give_back(self, now_ns: int) -> None:
        while self.bucket.stock:
            if not self.bucket.is_known:
                self.bucket.read(self.shared.read())
            self.under_way = self.bucket.surrender(now_ns)
            self.bucket.sent()
            self.finish()


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("rates", ["2-M", "100-S", "1000-S", "7-H,3-M"])
def test_one_process_admits_as_many_calls_at_once_as_the_smallest_rate_has(
    rates: str, is_exact: bool
) -> None:
    process = Process(Shared(), rates, is_exact=is_exact)
    smallest = min(rate.calls for rate in parse_rates(rates))
    assert process.calls(5000, NOW_NS) == smallest
    assert process.calls(1, NOW_NS) == 0


def test_a_bucket_gains_a_call_after_each_interval() -> None:
    process = Process(Shared(), "2-M")
    assert process.calls(3, NOW_NS) == 2
    assert process.bucket.is_empty(NOW_NS + 29 * SECOND_NS)
    wait_ns, rate = process.bucket.wait(NOW_NS + 29 * SECOND_NS)
    assert (wait_ns, str(rate)) == (SECOND_NS, "2 calls per minute")
    assert process.calls(3, NOW_NS + 30 * SECOND_NS) == 1
    assert process.calls(9, NOW_NS + 3600 * SECOND_NS) == 2


def test_every_rate_counts() -> None:
    process = Process(Shared(), "2-S,3-M")
    assert process.calls(9, NOW_NS) == 2
    assert process.calls(9, NOW_NS + SECOND_NS) == 1
    wait_ns, rate = process.bucket.wait(NOW_NS + SECOND_NS)
    assert (wait_ns // SECOND_NS, rate.unit) == (19, "minute")


@pytest.mark.parametrize("rates", ["2-M", "100-S", "1000-S"])
def test_four_processes_admit_as_many_as_one(rates: str) -> None:
    shared = Shared()
    processes = [Process(shared, rates) for _ in range(4)]
    (rate,) = parse_rates(rates)
    admitted = 0
    for turn in range(1000):
        now_ns = NOW_NS + turn * rate.interval_ns * rate.calls // 500
        admitted += sum(process.calls(8, now_ns) for process in processes)
    allowed = rate.calls * 3
    # What the processes hold in stock is not refused to anybody: it is within 5 %.
    assert allowed - 4 * portion_of([rate]) - 1 <= admitted <= allowed
    assert 4 * portion_of([rate]) <= rate.calls * 0.025


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["begin", "finish", "take", "back", "die"]),
            st.integers(0, 5),
            st.integers(0, SECOND_NS // 2),
        ),
        max_size=120,
    ),
    st.sampled_from(["5-S", "400-S", "9-M,3-S"]),
)
def test_no_order_of_events_admits_more_than_the_bucket_had(
    events: list[tuple[int, str, int, int]], rates: str
) -> None:
    shared = Shared()
    processes = [Process(shared, rates) for _ in range(3)]
    parsed = parse_rates(rates)
    now_ns, admitted = NOW_NS, 0
    for index, event, count, passed_ns in events:
        now_ns += passed_ns
        process = processes[index]
        if event == "begin":
            process.begin(count, now_ns)
        elif event == "finish":
            process.finish()
        elif event == "take":
            admitted += sum(process.bucket.take(now_ns) for _ in range(count))
        elif event == "back" and process.under_way is None:
            process.give_back(now_ns)
        elif event == "die":
            processes[index] = Process(shared, rates)
        for rate in parsed:
            gained = -(-(now_ns - NOW_NS) // rate.interval_ns)
            assert admitted <= rate.calls + gained


def test_what_a_process_gives_back_another_can_take() -> None:
    shared = Shared()
    first, second = Process(shared, "1000-D"), Process(shared, "1000-D")
    assert first.calls(1, NOW_NS) == 1
    held = first.bucket.stock
    assert held == 6
    assert second.calls(2000, NOW_NS) == 999 - held
    first.give_back(NOW_NS)
    assert (first.bucket.stock, second.calls(2000, NOW_NS + 90 * SECOND_NS)) == (0, held + 1)


def test_a_write_of_which_nothing_is_heard_counts_as_made() -> None:
    shared = Shared()
    process = Process(shared, "10-D")
    process.begin(4, NOW_NS)
    assert process.under_way is not None
    assert shared.accepts(process.under_way)
    process.under_way = None
    assert process.calls(20, NOW_NS) == 6


def test_without_the_shared_numbers_a_process_counts_alone_and_pays_later() -> None:
    shared = Shared()
    away, other = Process(shared, "10-M"), Process(shared, "10-M")
    assert away.calls(4, NOW_NS) == 4
    away.bucket.take_alone(20, NOW_NS)
    assert sum(away.bucket.take(NOW_NS) for _ in range(20)) == 6
    assert away.bucket.is_empty(NOW_NS)
    assert other.calls(3, NOW_NS) == 3
    # 13 calls were admitted of 10: after four intervals the bucket has one.
    assert away.calls(1, NOW_NS + 6 * SECOND_NS) == 0
    assert other.calls(1, NOW_NS + 18 * SECOND_NS) == 0
    assert other.calls(5, NOW_NS + 24 * SECOND_NS) == 1


def test_what_was_taken_alone_long_ago_is_not_owed() -> None:
    process = Process(Shared(), "10-S")
    for second in range(60):
        now_ns = NOW_NS + second * SECOND_NS
        process.bucket.take_alone(10, now_ns)
        assert sum(process.bucket.take(now_ns) for _ in range(20)) == 10
    assert process.calls(20, NOW_NS + 62 * SECOND_NS) == 10


def test_numbers_that_the_broker_has_lost_are_those_that_a_process_knows() -> None:
    process = Process(Shared(), "10-D")
    assert process.calls(8, NOW_NS) == 8
    process.shared = Shared()
    assert process.calls(8, NOW_NS) == 2
    assert Process(process.shared, "10-D").calls(8, NOW_NS) == 0


@pytest.mark.parametrize("data", [b"", b"x", b"1 2 3", b"-1 2", b"1  2", b"9" * 40 + b" 1"])
def test_numbers_that_cannot_be_read_count_as_a_full_bucket(data: bytes) -> None:
    assert decode(data, 2) is None
    bucket = SharedBucket(parse_rates("3-S,9-H"), is_exact=True)
    bucket.read((data, 5))
    claim = bucket.claim(9, NOW_NS)
    assert claim is not None
    assert (claim.calls, claim.revision) == (3, 5)


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=4))
def test_numbers_are_read_as_they_were_written(numbers: list[int]) -> None:
    assert decode(encode(tuple(numbers)), len(numbers)) == tuple(numbers)


@given(
    st.integers(1, 10**30),
    st.sampled_from("SMHD"),
    st.integers(0, 10**6),
    st.integers(0, 10**14),
)
def test_calls_that_are_taken_come_back_in_time(
    calls: int, unit: str, count: int, passed_ns: int
) -> None:
    rates = parse_rates(f"{calls}-{unit}")
    limit, interval_ns = rates[0].calls, rates[0].interval_ns
    count = min(count, limit)
    full_at = taken(rates, (0,), count, NOW_NS)
    assert available(rates, full_at, NOW_NS) == limit - count
    expected = min(limit - count + passed_ns // interval_ns, limit)
    assert available(rates, full_at, NOW_NS + passed_ns) == expected


@pytest.mark.parametrize("text", ["", "5", "0-S", "5-W", "5-S,", "-S", "5 -S", "²-S", "5-s"])
def test_a_text_that_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rates(text)
