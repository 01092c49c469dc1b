"""The wait helper itself: its deadline, its message, and what wakes it."""

import asyncio
import itertools

import pytest

from tests.support.waiting import Signal, until, until_blocking, until_unchanged

SHORT_S = 0.05


async def test_a_wait_returns_the_value_that_was_accepted() -> None:
    numbers = itertools.count()
    assert await until(lambda: next(numbers), lambda number: number == 3) == 3


async def test_a_wait_reads_a_coroutine_function() -> None:
    async def read() -> str:
        return "value"

    assert await until(read) == "value"


async def test_a_wait_that_fails_names_what_was_waited_for_and_the_last_value() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.05 s for four; last value: 3"):
        await until(lambda: 3, lambda found: found == 4, what="four", timeout_s=SHORT_S)
    with pytest.raises(AssertionError, match=r"for .*lambda: 1 > 2.*; last value: False"):
        await until(lambda: 1 > 2, timeout_s=SHORT_S)


async def test_a_read_that_hangs_ends_at_the_deadline() -> None:
    with pytest.raises(AssertionError, match="for an event"):
        await until(asyncio.Event().wait, what="an event", timeout_s=SHORT_S)


async def test_errors_and_outer_deadlines_pass_through() -> None:
    def fail() -> None:
        raise TimeoutError("of the read")

    with pytest.raises(TimeoutError, match="of the read"):
        await until(fail)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT_S):
            await until(lambda: False)


async def test_a_signal_wakes_every_waiter_and_nothing_else_does() -> None:
    changed, values, reads = Signal(), list[int](), 0

    def read() -> list[int]:
        nonlocal reads
        reads += 1
        return values

    def change() -> None:
        values.append(1)
        changed.notify()

    asyncio.get_running_loop().call_later(SHORT_S, change)
    found = await asyncio.gather(*(until(read, changed=changed) for _ in range(2)))
    assert found == [[1], [1]]
    assert reads == 4


async def test_what_goes_on_changing_is_not_unchanged() -> None:
    numbers = itertools.count()
    with pytest.raises(AssertionError, match="without a change"):
        await until_unchanged(lambda: next(numbers), for_s=SHORT_S, timeout_s=2 * SHORT_S)
    assert await until_unchanged(lambda: "still", for_s=SHORT_S) == "still"


def test_a_blocking_wait_fails_alike() -> None:
    numbers = itertools.count()
    assert until_blocking(lambda: next(numbers), lambda number: number == 3, what="three") == 3
    with pytest.raises(AssertionError, match="for zero; last value: 0"):
        until_blocking(lambda: 0, what="zero", timeout_s=SHORT_S)
