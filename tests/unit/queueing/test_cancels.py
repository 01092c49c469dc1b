"""What a worker remembers of cancelled requests."""

from queueing.cancels import CancelMemory


def test_a_cancel_is_remembered_for_minutes() -> None:
    now = [0.0]
    cancels = CancelMemory(lambda: now[0])
    cancels.add("a")
    now[0] = 299.0
    cancels.add("b")
    assert set(cancels.ids) == {"a", "b"}
    now[0] = 301.0
    cancels.add("c")
    assert set(cancels.ids) == {"b", "c"}


def test_a_request_that_is_cancelled_again_is_remembered_from_then_on() -> None:
    now = [0.0]
    cancels = CancelMemory(lambda: now[0])
    cancels.add("a")
    now[0] = 200.0
    cancels.add("a")
    now[0] = 400.0
    cancels.add("b")
    assert set(cancels.ids) == {"a", "b"}


def test_of_too_many_the_oldest_are_forgotten() -> None:
    cancels = CancelMemory(lambda: 0.0)
    for number in range(10_002):
        cancels.add(str(number))
    assert len(cancels.ids) == 10_000
    assert "1" not in cancels.ids
    assert "10001" in cancels.ids
