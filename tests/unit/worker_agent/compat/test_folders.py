"""Folders of requests on a real disk."""

from pathlib import Path

import pytest

from runtime.ids import new_uuid
from worker_agent.compat.folders import RequestFolders, artifacts, make_folder, remove_folder


def test_a_folder_is_made_with_its_parents_and_again_empty(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_folder(folder)
    (folder / "left").write_text("by an agent that died")
    make_folder(folder)
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o777
    remove_folder(tmp_path / "a")
    remove_folder(tmp_path / "a")
    assert not folder.exists()


def test_what_agents_that_died_have_left_is_removed_but_nothing_of_those_that_live(
    tmp_path: Path,
) -> None:
    ids = [new_uuid() for _ in range(3)]
    left, kept = tmp_path / ids[0] / "big", tmp_path / "kept"
    left.parent.mkdir()
    left.write_text("")
    kept.mkdir()
    first, second, third = [RequestFolders(tmp_path) for _ in range(3)]
    first.make(ids[1])
    assert not left.parent.exists()
    second.make(ids[2])
    assert (tmp_path / ids[1]).exists()
    first.close()
    second.close()
    third.make(ids[0])
    assert {path.name for path in tmp_path.iterdir()} == {ids[0], "kept", ".lock"}
    third.close()


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="a"):
        make_folder(tmp_path / "a" / "b")


def test_files_at_any_depth_are_found_but_no_progress_and_no_links(tmp_path: Path) -> None:
    for name in ("b.bin", "progress", "deep/er/a.bin", "deep/progress"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert artifacts(tmp_path) == [tmp_path / "b.bin", tmp_path / "deep/er/a.bin"]
    assert artifacts(tmp_path / "missing") == []
