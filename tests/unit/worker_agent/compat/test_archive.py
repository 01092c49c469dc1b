"""A large response on its way to the disk."""

import asyncio
import os
import zipfile
from pathlib import Path

import pytest

from worker_agent.compat.archive import HIGH_WATER_BYTES, Archive
from worker_agent.compat.folders import FileThreads


async def test_a_body_faster_than_the_disk_is_paused(tmp_path: Path) -> None:
    threads, signs, resumed = FileThreads(), list[str](), asyncio.Event()

    def resume() -> None:
        signs.append("resume")
        resumed.set()

    archive = Archive(threads, tmp_path, "r.response", lambda: signs.append("pause"), resume)
    archive.add(bytes(HIGH_WATER_BYTES))
    archive.add(b"more")
    assert signs == ["pause"]
    await resumed.wait()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").write_text("x")
    with zipfile.ZipFile(await archive.finish(tmp_path, [tmp_path / "sub" / "x"])) as file:
        assert file.namelist() == ["r.response", "sub/x"]
        assert file.read("r.response") == bytes(HIGH_WATER_BYTES) + b"more"
    await archive.close()
    threads.close()


async def test_files_with_any_name_and_time_are_in_it(tmp_path: Path) -> None:
    names = [b"epoch", b"far", b"\xff\xfe", b"a\\b\n"]
    paths = [tmp_path / os.fsdecode(name) for name in names]
    for path, at in zip(paths, (0, 5_000_000_000, 0, 0), strict=True):
        path.write_bytes(b"x")
        os.utime(path, (at, at))
    threads = FileThreads()
    archive = Archive(threads, tmp_path, "r.response", lambda: None, lambda: None)
    archive.add(b"body")
    with zipfile.ZipFile(await archive.finish(tmp_path, paths)) as file:
        assert file.namelist() == ["r.response", "epoch", "far", "\ufffd\ufffd", "a\\b\n"]
        assert file.testzip() is None
    await archive.close()
    threads.close()


async def test_nothing_outside_the_folder_gets_into_it(tmp_path: Path) -> None:
    """Also if the function makes links of what was found."""
    (tmp_path / "secret").write_text("s")
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "sub" / "link").symlink_to(tmp_path)
    threads = FileThreads()
    for path in (folder / "link", folder / "sub" / "link" / "secret"):
        archive = Archive(threads, tmp_path, "r.response", lambda: None, lambda: None)
        archive.add(b"body")
        with pytest.raises(OSError, match="link"):
            await archive.finish(folder, [path])
        await archive.close()
    assert sorted(os.listdir(tmp_path)) == ["folder", "secret"]
    threads.close()


async def test_a_disk_that_fails_does_not_stop_the_inference_server(tmp_path: Path) -> None:
    threads, resumed = FileThreads(), asyncio.Event()
    archive = Archive(threads, tmp_path / "none", "r", lambda: None, resumed.set)
    archive.add(bytes(HIGH_WATER_BYTES + 1))
    await resumed.wait()
    archive.add(b"more")
    with pytest.raises(FileNotFoundError):
        await archive.finish(tmp_path, [])
    await archive.close()
    threads.close()
