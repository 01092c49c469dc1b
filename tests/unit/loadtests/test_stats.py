import pytest

from loadtests.stats import Spread, quantile, spread


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
)
def test_nearest_rank_of_one_to_a_hundred(share: float, expected: float) -> None:
    assert quantile([float(n) for n in range(1, 101)], share) == expected


def test_one_value_is_every_quantile() -> None:
    assert quantile([7.0], 0.01) == quantile([7.0], 0.99) == 7.0


def test_no_values_have_no_quantile() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_the_spread_does_not_need_order() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
