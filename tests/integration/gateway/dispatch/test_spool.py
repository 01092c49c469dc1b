"""Files for request bodies, on a real disk: what was written is read, nothing is left."""

import asyncio
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.dispatch.spool import SpoolFiles
from tests.support.waiting import PATIENCE_S, until

SIZE = 300_000


class WaitingUser:
    """A user of a file that lets a test wait for the end of each operation."""

    def __init__(self) -> None:
        self.results: asyncio.Queue[bool | bytes] = asyncio.Queue()

    def spool_written(self, *, is_written: bool) -> None:
        self.results.put_nowait(is_written)

    def spool_read(self, data: bytes) -> None:
        self.results.put_nowait(data)

    async def result(self) -> bool | bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.results.get()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[SpoolFiles]:
    spool = SpoolFiles(tmp_path)
    yield spool
    spool.close()


def open_files() -> set[str]:
    """Return what the descriptors of this process refer to."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            continue
    return found


async def test_what_was_written_is_read_and_the_file_has_no_name(
    files: SpoolFiles, tmp_path: Path
) -> None:
    user = WaitingUser()
    file = files.open(user)
    for number in range(3):
        file.write(bytearray([number]) * SIZE)
        assert await user.result() is True
    assert os.listdir(tmp_path) == []
    assert any(str(tmp_path) in name for name in open_files())
    file.read(SIZE - 1, 2)
    assert await user.result() == b"\0\1"
    file.read(0, 3 * SIZE)
    assert await user.result() == b"\0" * SIZE + b"\1" * SIZE + b"\2" * SIZE
    file.close()
    await until(lambda: not any(str(tmp_path) in name for name in open_files()))


async def test_a_folder_that_is_not_there_is_told_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    user = WaitingUser()
    files = SpoolFiles(tmp_path / "nothing")
    files.open(user).write(b"x")
    assert await user.result() is False
    assert [record.message for record in caplog.records] == ["upload.spool_failed"]
    files.close()


async def test_a_write_that_finds_no_room_for_all_of_it_is_told(files: SpoolFiles) -> None:
    user = WaitingUser()
    file = files.open(user)
    file.write(b"x" * SIZE)
    assert await user.result() is True
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel takes a part of the write and refuses the rest, as on a disk that becomes full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE + 100, before[1]))
    try:
        file.write(b"y" * SIZE)
        assert await user.result() is False
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file.read(0, SIZE)
    assert await user.result() == b"x" * SIZE
    file.close()


async def test_what_was_cut_off_is_not_read(files: SpoolFiles) -> None:
    user = WaitingUser()
    file = files.open(user)
    file.write(b"x")
    assert await user.result() is True
    file.read(0, 2)
    assert await user.result() == b""
    file.close()


async def test_a_file_that_is_closed_in_an_operation_tells_nothing_and_goes(
    files: SpoolFiles, tmp_path: Path
) -> None:
    closed, other = WaitingUser(), WaitingUser()
    file = files.open(closed)
    file.write(b"x" * SIZE)
    file.close()
    last = files.open(other)
    last.write(b"x")
    await other.result()
    last.close()
    await until(lambda: not any(str(tmp_path) in name for name in open_files()))
    assert closed.results.empty()
