"""Lines that outsiders can cause are bounded, and those left out are counted."""

from runtime.line_budget import LineBudget


def test_each_key_has_so_many_lines_per_second_and_the_rest_is_counted_once() -> None:
    budget = LineBudget(2)
    assert budget.begin(1) == []
    assert [budget.takes("a") for _ in range(5)] == [True, True, False, False, False]
    assert budget.takes("b")
    assert budget.begin(1) == []
    assert budget.begin(2) == [("a", 3)]
    assert budget.begin(3) == []
    assert budget.takes("a")
