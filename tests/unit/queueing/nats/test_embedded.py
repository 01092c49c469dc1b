"""The files that nats-server and gateway know each other by."""

from pathlib import Path

import pytest

from queueing.nats.embedded import embedded_broker, make_logins


def test_files_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "logins"
    logins = make_logins(folder)
    first = {path: path.read_text() for path in logins}
    assert {path.stat().st_mode & 0o777 for path in logins} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path: path.read_text() for path in make_logins(folder)} == first


def test_it_runs_one_thread_at_a_time_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = embedded_broker(tmp_path, "127.0.0.1", 0)
    monkeypatch.delenv("GOMAXPROCS", raising=False)
    assert broker.environment == {"GOMAXPROCS": "1"}
    monkeypatch.setenv("GOMAXPROCS", "4")
    assert broker.environment == {"GOMAXPROCS": "4"}


def test_a_first_start_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    logins = make_logins(tmp_path)
    seed = logins.operator_seed.read_text()
    logins.server_config.unlink()
    assert make_logins(tmp_path).operator_seed.read_text() != seed
    assert logins.server_config.exists()


def test_no_secret_is_in_what_the_server_reads(tmp_path: Path) -> None:
    logins = make_logins(tmp_path)
    assert logins.operator_seed.read_text() not in logins.server_config.read_text()
    assert "SEED" not in logins.server_config.read_text()
