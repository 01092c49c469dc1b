"""When the agent connects again to a control plane."""

import pytest

from worker_agent.nvcf.membership import next_connect_s


@pytest.mark.parametrize(
    ("life_s", "chance", "expected"),
    [(10_800, 0.0, 1200), (10_800, 1.0, 1800), (1000, 0.5, 900), (0.5, 0.5, 1.0), (-5, 0.5, 1.0)],
)
def test_it_connects_again_in_20_to_30_minutes_or_before_its_token_ends(
    life_s: float, chance: float, expected: float
) -> None:
    assert next_connect_s(life_s, chance) == expected
