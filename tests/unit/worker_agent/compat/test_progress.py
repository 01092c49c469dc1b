"""What is found in progress files."""

import json
import os
from pathlib import Path

from tests.support.waiting import until
from worker_agent.compat.folders import FileThreads
from worker_agent.compat.progress import ProgressWatch, look_at
from worker_agent.compat.rewriting import ProgressNews

NONE = (0, 0, 0)


def write(folder: Path, request_id: str, document: object) -> Path:
    file = folder / request_id / "progress"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(document))
    return file


def test_a_file_is_read_when_it_has_changed(tmp_path: Path) -> None:
    assert look_at(tmp_path, [("r1", NONE)]) == []
    write(tmp_path, "r1", {"id": "r1", "progress": 1})
    (look,) = look_at(tmp_path, [("r1", NONE)])
    assert look.news == ProgressNews("r1", 1, b"null")
    assert look_at(tmp_path, [("r1", look.signature)]) == []


def test_what_cannot_be_read_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "r1" / "progress").mkdir(parents=True)
    write(tmp_path, "other", {"id": "r2", "progress": 1})
    (tmp_path / "r2").mkdir()
    (tmp_path / "r2" / "progress").symlink_to(tmp_path / "other" / "progress")
    (tmp_path / "r4").mkdir()
    # A pipe that nobody writes to: to open it must not block.
    os.mkfifo(tmp_path / "r4" / "progress")
    looks = look_at(tmp_path, [("r1", NONE), ("r2", NONE), ("r4", NONE)])
    assert [(look.request_id, look.news) for look in looks] == [
        ("r1", None),
        ("r2", None),
        ("r4", None),
    ]
    assert all(look.error for look in looks)
    assert look_at(tmp_path, [(look.request_id, look.signature) for look in looks]) == []
    file = write(tmp_path, "r3", {})
    file.write_text("{")
    (look,) = look_at(tmp_path, [("r3", NONE)])
    assert "JSON" in look.error


def test_a_partial_response_that_is_nested_too_deeply_is_told(tmp_path: Path) -> None:
    """It is read, and cannot be written."""
    deep = "[" * 500 + "]" * 500
    file = write(tmp_path, "r1", {})
    file.write_text(f'{{"id": "r1", "progress": 1, "partialResponse": {{"deep": {deep}}}}}')
    (look,) = look_at(tmp_path, [("r1", NONE)])
    assert "partialResponse" in look.error


async def test_the_watch_runs_only_while_a_request_does(tmp_path: Path) -> None:
    threads = FileThreads()
    watch = ProgressWatch(tmp_path, threads)
    found: list[ProgressNews] = []
    assert not watch.is_running
    watch.add("r1", found.append)
    watch.add("r2", found.append)
    # What it is about decides, not where it is.
    file = write(tmp_path, "r2", {"id": "r1", "progress": 1})
    await until(lambda: len(found) == 1)
    # An older one is no news.
    file.write_text(json.dumps({"id": "r1", "progress": 2}))
    os.utime(file, (1, 1))
    write(tmp_path, "r1", {"id": "r2", "progress": 3})
    await until(lambda: len(found) == 2)
    assert found == [ProgressNews("r1", 1, b"null"), ProgressNews("r2", 3, b"null")]
    watch.remove("r1")
    watch.remove("r2")
    await until(lambda: not watch.is_running)
    watch.close()
    watch.close()
    threads.close()
