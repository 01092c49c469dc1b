"""The token that is kept for an agent that starts again."""

from pathlib import Path

from worker_agent.nvcf.token_file import FILE_NAME, read_token, write_token


def test_a_kept_token_counts_while_it_is_valid(tmp_path: Path) -> None:
    assert read_token(tmp_path, 0.0) == ""
    write_token(tmp_path / "new", "t", 1000.5)
    assert read_token(tmp_path / "new", 1000.0) == "t"
    assert read_token(tmp_path / "new", 1001.0) == ""
    for text in ("", "{}", '{"access_token": 1, "expiry": "2999-01-01T00:00:00Z"}', '{"a'):
        (tmp_path / FILE_NAME).write_text(text)
        assert read_token(tmp_path, 0.0) == "", text
