"""Which calls of a limited function are admitted, refused, and held until that is known."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.dispatch.rate_limits import AWAY_S, IDLE_S, RateLimits
from gateway.domain.model import FunctionVersion, VersionState
from gateway.domain.rate_limit import RateLimitPolicy
from gateway.errors import RateLimited
from gateway.routing.admission import Caller
from tests.support.stored_numbers import StoredNumbers
from wire.ids import FunctionId, VersionId

START_NS = 1_800_000_000 * 10**9


class Bench:
    """One process's limits, whose clock the test sets."""

    def __init__(self, numbers: StoredNumbers | None = None) -> None:
        self.now_s = 0.0
        self.numbers = numbers or StoredNumbers()
        self.limits = RateLimits(self.numbers, lambda: START_NS + round(self.now_s * 1e9))

    async def calls(self, count: int, caller: Caller) -> int:
        """Return how many of ``count`` calls at the same time are admitted."""
        return (await asyncio.gather(*(self.call(caller) for _ in range(count)))).count(None)

    async def call(self, caller: Caller) -> RateLimited | None:
        """Return why a call is refused, `None` if it is admitted."""
        try:
            decision = self.limits.admit(caller)
            if decision is not None:
                await decision
        except RateLimited as error:
            return error
        return None


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    found = Bench()
    yield found
    found.numbers.answers.set()


def caller(
    policy: RateLimitPolicy, account: str = "own", user: str = "u", key: bytes = b"k"
) -> Caller:
    version = FunctionVersion(
        FunctionId("6f9619ff-8b86-4011-b42d-00c04fc964ff"),
        VersionId("11111111-1111-4111-8111-111111111111"),
        "own",
        "name",
        VersionState.ACTIVE,
        rate_limit=policy,
    )
    return Caller(version, account, user, 60, key)


async def test_each_account_has_the_rate_for_itself(bench: Bench) -> None:
    policy = RateLimitPolicy(rate="3-M")
    assert await bench.calls(5, caller(policy)) == 3
    assert await bench.calls(5, caller(policy, "other")) == 3


async def test_an_exempted_account_has_no_limit_and_another_one_of_its_own(bench: Bench) -> None:
    policy = RateLimitPolicy(
        rate="3-M", exempted=frozenset({"free"}), per_account=(("slow", "1-M"),)
    )
    assert await bench.calls(50, caller(policy, "free")) == 50
    assert await bench.calls(50, caller(policy, "slow")) == 1
    assert await bench.calls(50, caller(policy, "any")) == 3


async def test_an_account_without_a_rate_has_no_limit(bench: Bench) -> None:
    policy = RateLimitPolicy(per_account=(("slow", "1-M"),))
    assert await bench.calls(50, caller(policy)) == 50
    assert bench.numbers.asked == 0


async def test_each_key_has_the_rate_of_users_beside_the_accounts(bench: Bench) -> None:
    policy = RateLimitPolicy(rate="5-M", per_user="3-M")
    assert await bench.calls(9, caller(policy, key=b"one")) == 3
    assert await bench.calls(9, caller(policy, key=b"two")) == 2
    # What the account refused is not counted for the user.
    bench.now_s = 24.0
    assert await bench.calls(9, caller(policy, key=b"two")) == 2


async def test_a_refusal_says_which_limit_is_used_up_and_until_when(bench: Bench) -> None:
    policy = RateLimitPolicy(rate="100-S", per_user="2-M")
    assert await bench.calls(2, caller(policy)) == 2
    bench.now_s = 0.5
    error = await bench.call(caller(policy))
    assert error is not None
    assert (
        error.detail == "The function accepts 2 calls per minute from this caller; they are used up"
    )
    assert error.headers == [
        (b"retry-after", b"30"),
        (b"x-ratelimit-limit", b"2"),
        (b"x-ratelimit-remaining", b"0"),
        (b"x-ratelimit-reset", b"1800000031"),
    ]


async def test_what_is_known_to_be_used_up_is_refused_without_asking(bench: Bench) -> None:
    limited = caller(RateLimitPolicy(rate="2-M"))
    assert await bench.calls(9, limited) == 2
    asked = bench.numbers.asked
    assert await bench.calls(9, limited) == 0
    assert bench.numbers.asked == asked


async def test_calls_that_come_together_wait_for_one_claim(bench: Bench) -> None:
    limited = caller(RateLimitPolicy(rate="50-S"))
    assert await bench.calls(40, limited) == 40
    # Read, one claim for the first and one for all that came meanwhile.
    assert bench.numbers.asked <= 3


async def test_most_calls_below_a_high_rate_wait_for_nothing(bench: Bench) -> None:
    limited = caller(RateLimitPolicy(rate="8000-S"))
    waited = 0
    for _ in range(1000):
        decision = bench.limits.admit(limited)
        if decision is not None:
            waited += 1
            await decision
        await asyncio.sleep(0)
    assert waited == 1
    assert bench.numbers.asked < 50


async def test_with_sync_check_every_call_is_counted_with_the_others(bench: Bench) -> None:
    limited = caller(RateLimitPolicy(rate="8000-S", is_exact=True))
    for count in range(1, 6):
        assert await bench.call(limited) is None
        assert bench.numbers.asked == count + 1


async def test_processes_share_a_limit() -> None:
    numbers = StoredNumbers()
    processes = [Bench(numbers) for _ in range(4)]
    limited = caller(RateLimitPolicy(rate="100-M"))
    admitted = await asyncio.gather(*(process.calls(60, limited) for process in processes))
    assert sum(admitted) == 100


async def test_what_a_process_does_not_use_it_gives_back() -> None:
    numbers = StoredNumbers()
    first, second = Bench(numbers), Bench(numbers)
    limited = caller(RateLimitPolicy(rate="800-D"))
    assert await first.calls(1, limited) == 1
    assert await second.calls(800, limited) == 794
    first.now_s = second.now_s = IDLE_S + 0.1
    first.limits.tick()
    await asyncio.sleep(0.01)
    second.now_s = 110
    assert await second.calls(20, limited) == 6


async def test_a_process_that_ends_gives_back_what_it_has() -> None:
    numbers = StoredNumbers()
    first, second = Bench(numbers), Bench(numbers)
    limited = caller(RateLimitPolicy(rate="800-D"))
    assert await first.calls(1, limited) == 1
    await first.limits.close()
    assert await second.calls(900, limited) == 799


async def test_without_the_shared_numbers_calls_are_counted_alone(bench: Bench) -> None:
    limited = caller(RateLimitPolicy(rate="5-M"))
    assert await bench.calls(2, limited) == 2
    bench.numbers.is_away = True
    bench.now_s = 1.0
    assert await bench.calls(9, limited) == 3
    bench.numbers.is_away = False
    bench.now_s = 2.0 + AWAY_S
    other = Bench(bench.numbers)
    other.now_s = bench.now_s
    assert await bench.calls(1, limited) == 0
    bench.now_s = other.now_s = 15.0
    assert await bench.calls(1, limited) == 1
    # It has told the others what was taken meanwhile.
    assert await other.calls(1, limited) == 0


async def test_no_call_waits_long_for_numbers_that_do_not_come(bench: Bench) -> None:
    bench.numbers.answers.clear()
    limited = caller(RateLimitPolicy(rate="5-M"))
    assert await bench.calls(9, limited) == 5
    asked = bench.numbers.asked
    assert await bench.calls(1, caller(RateLimitPolicy(rate="6-M"))) == 1
    assert bench.numbers.asked == asked


async def test_a_call_that_is_not_made_gives_back_what_it_took(bench: Bench) -> None:
    limited = caller(RateLimitPolicy(rate="1-M"))
    assert await bench.calls(1, limited) == 1
    bench.limits.withdraw(limited)
    assert await bench.calls(2, limited) == 1


async def test_what_is_not_called_is_forgotten(bench: Bench) -> None:
    for index in range(3):
        await bench.call(caller(RateLimitPolicy(rate="1-M"), account=f"a{index}"))
    assert len(bench.limits) == 3
    bench.now_s = 61.0
    bench.limits.tick()
    assert len(bench.limits) == 0
    assert await bench.calls(1, caller(RateLimitPolicy(rate="1-M"), account="a0")) == 1
