"""Folders of requests on a real disk."""

from pathlib import Path

import pytest

from worker_agent.compat.folders import artifacts, make_folder, remove_folder


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
