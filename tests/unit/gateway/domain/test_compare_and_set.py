import pytest

from gateway.domain.compare_and_set import ATTEMPTS, compare_and_delete, compare_and_set
from gateway.errors import Conflict, NotFound


class Register:
    """One stored number with its revision, and writers that are faster ``races`` times."""

    def __init__(self, value: int | None, races: int = 0) -> None:
        self.value = value
        self.revision = 1
        self.races = races
        self.writes = 0

    async def read(self) -> tuple[int, int] | None:
        return None if self.value is None else (self.value, self.revision)

    async def write(self, value: int, revision: int) -> int:
        self._race(revision)
        self.value = value
        return self.revision

    async def delete(self, value: int, revision: int) -> None:
        self._race(revision)
        assert self.value == value
        self.value = None

    def _race(self, revision: int) -> None:
        if self.races:
            self.races -= 1
            assert self.value is not None
            self.value += 10
            self.revision += 1
        if revision != self.revision:
            raise Conflict
        self.writes += 1
        self.revision += 1


def increment(value: int) -> int:
    return value + 1


async def test_a_change_is_repeated_on_what_faster_writers_wrote() -> None:
    register = Register(1, races=3)
    assert await compare_and_set(register.read, increment, register.write) == 32
    assert (register.value, register.writes) == (32, 1)


async def test_a_deletion_is_repeated_and_returns_what_was_deleted() -> None:
    register = Register(1, races=3)
    assert await compare_and_delete(register.read, register.delete) == 31
    assert (register.value, register.writes) == (None, 1)


async def test_a_missing_value_is_neither_changed_nor_deleted() -> None:
    register = Register(None)
    assert await compare_and_set(register.read, increment, register.write) is None
    assert await compare_and_delete(register.read, register.delete) is None
    assert register.writes == 0


async def test_an_equal_value_is_not_written() -> None:
    register = Register(1)
    assert await compare_and_set(register.read, lambda value: value, register.write) == 1
    assert register.writes == 0


async def test_conflicts_are_reported_after_the_last_attempt() -> None:
    register = Register(1, races=ATTEMPTS)
    with pytest.raises(Conflict):
        await compare_and_set(register.read, increment, register.write)
    assert register.races == 0
    register.races = ATTEMPTS - 1
    assert await compare_and_set(register.read, increment, register.write) is not None


@pytest.mark.parametrize("error", [Conflict("exists already"), NotFound()])
async def test_an_error_of_read_or_change_is_passed_on_at_once(error: Exception) -> None:
    register = Register(1)
    calls = []

    async def failing_read() -> tuple[int, int]:
        calls.append("read")
        raise error

    def failing_change(value: int) -> int:
        calls.append("change")
        raise error

    for read, change in ((failing_read, increment), (register.read, failing_change)):
        with pytest.raises(type(error)) as raised:
            await compare_and_set(read, change, register.write)
        assert raised.value is error
    assert calls == ["read", "change"]
