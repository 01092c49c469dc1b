"""The token that is kept for an agent that starts again."""

from pathlib import Path

import pytest

from worker_agent.nvcf.token_file import FILE_NAME, read_token, write_token


def test_a_kept_token_counts_while_it_is_valid(tmp_path: Path) -> None:
    assert read_token(tmp_path, 0.0) == ""
    write_token(tmp_path / "new", "t", 1000.5)
    assert read_token(tmp_path / "new", 1000.0) == "t"
    assert read_token(tmp_path / "new", 1001.0) == ""
    for text in ("", "{}", '{"access_token": 1, "expiry": "2999-01-01T00:00:00Z"}', '{"a'):
        (tmp_path / FILE_NAME).write_text(text)
        assert read_token(tmp_path, 0.0) == "", text


@pytest.mark.parametrize("expires_at", [253_402_300_800.0, 2.0**63])
def test_a_token_that_ends_after_all_dates_is_kept_to_the_last_one(
    tmp_path: Path, expires_at: float
) -> None:
    """A control plane may say so of one that does not end: seconds of 64 bits."""
    write_token(tmp_path, "t", expires_at)
    assert read_token(tmp_path, 253_402_300_700.0) == "t"
