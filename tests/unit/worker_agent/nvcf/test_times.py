"""When the agent connects again to a control plane, and renews statements."""

from pathlib import Path

import pytest

from worker_agent.nvcf.membership import next_connect_s
from worker_agent.nvcf.statements import renewal_pause_s
from worker_agent.nvcf.token_file import FILE_NAME, read_token, write_token


@pytest.mark.parametrize(
    ("life_s", "chance", "expected"),
    [(10_800, 0.0, 1200), (10_800, 1.0, 1800), (1000, 0.5, 900), (0.5, 0.5, 1.0), (-5, 0.5, 1.0)],
)
def test_it_connects_again_in_20_to_30_minutes_or_before_its_token_ends(
    life_s: float, chance: float, expected: float
) -> None:
    assert next_connect_s(life_s, chance) == expected


def test_a_statement_is_renewed_after_four_fifths_of_its_life() -> None:
    assert renewal_pause_s(10_800, 30) == 8670
    assert renewal_pause_s(100, 59) == 80
    assert renewal_pause_s(-1, 10) == 1.0


def test_a_kept_token_counts_while_it_is_valid(tmp_path: Path) -> None:
    assert read_token(tmp_path, 0.0) == ""
    write_token(tmp_path / "new", "t", 1000.5)
    assert read_token(tmp_path / "new", 1000.0) == "t"
    assert read_token(tmp_path / "new", 1001.0) == ""
    for text in ("", "{}", '{"access_token": 1, "expiry": "2999-01-01T00:00:00Z"}', '{"a'):
        (tmp_path / FILE_NAME).write_text(text)
        assert read_token(tmp_path, 0.0) == "", text
