"""A large response on its way to the disk."""

import asyncio
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

    archive = Archive(
        threads, tmp_path / "a.zip", "r.response", lambda: signs.append("pause"), resume
    )
    archive.add(bytes(HIGH_WATER_BYTES))
    archive.add(b"more")
    assert signs == ["pause"]
    await resumed.wait()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").write_text("x")
    await archive.finish(tmp_path, [tmp_path / "sub" / "x"])
    with zipfile.ZipFile(archive.path) as file:
        assert file.namelist() == ["r.response", "sub/x"]
        assert file.read("r.response") == bytes(HIGH_WATER_BYTES) + b"more"
    threads.close()


async def test_a_disk_that_fails_does_not_stop_the_inference_server(tmp_path: Path) -> None:
    threads, resumed = FileThreads(), asyncio.Event()
    archive = Archive(threads, tmp_path / "none" / "a.zip", "r", lambda: None, resumed.set)
    archive.add(bytes(HIGH_WATER_BYTES + 1))
    await resumed.wait()
    archive.add(b"more")
    with pytest.raises(FileNotFoundError):
        await archive.finish(tmp_path, [])
    threads.close()
