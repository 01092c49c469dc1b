import os
from base64 import b64encode
from pathlib import Path

import pytest

from gateway.api.secrets.master_key import MasterKeyError, load_or_make


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "master.key"
    made = load_or_make(path, bytes(range(32)))
    assert made == bytes(range(32))
    assert load_or_make(path, os.urandom(32)) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    load_or_make(path, bytes(32))
    path.chmod(0o640)
    with pytest.raises(MasterKeyError, match="chmod 600"):
        load_or_make(path, bytes(32))


@pytest.mark.parametrize("text", [b"", b"hunter2", b64encode(bytes(31)), b64encode(bytes(300))])
def test_a_file_that_holds_no_key_is_refused_without_showing_it(
    tmp_path: Path, text: bytes
) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(MasterKeyError) as failure:
        load_or_make(path, bytes(32))
    assert "hunter2" not in str(failure.value)


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MasterKeyError) as failure:
        load_or_make(tmp_path / "file" / "master.key", bytes(32))
    assert "\n" not in str(failure.value)
