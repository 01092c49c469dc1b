"""The local backend: what a crash leaves, and what a broken disk looks like."""

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.objects.interface import DATA_BYTES, ObjectNotFound
from tests.support.objects import chunks, files_below, local_objects, read_object
from tests.support.waiting import PATIENCE_S, until

WRITER = """
import asyncio, sys
from pathlib import Path
from tests.support.objects import local_objects

async def endless():
    while True:
        yield b"x" * 300_000
        await asyncio.sleep(0.01)

async def main():
    store = local_objects(Path(sys.argv[1]))
    await store.open()
    await store.put("assets/a/1", endless(), size=None, content_type="text/plain")

asyncio.run(main())
"""


async def test_what_a_killed_process_was_writing_is_deleted_by_the_next(tmp_path: Path) -> None:
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, str(tmp_path))
    await until(lambda: [name for name in files_below(tmp_path) if "lock" not in name])
    beside = local_objects(tmp_path)
    await beside.open()
    await beside.put_bytes("assets/a/2", b"", content_type="text/plain")
    assert [name for name in files_below(tmp_path) if "lock" not in name]
    writer.send_signal(signal.SIGKILL)
    await writer.wait()
    after = local_objects(tmp_path)
    await after.open()
    assert [name for name in files_below(tmp_path) if "lock" not in name] == ["assets/a/2+/2+"]
    await beside.put_bytes("assets/a/2", b"", content_type="text/plain")
    await beside.close()
    await after.close()
    await until(lambda: files_below(tmp_path) == ["assets/a/2+/2+"])


async def test_a_disk_that_fails_is_a_store_that_is_not_available(tmp_path: Path) -> None:
    store = local_objects(tmp_path)
    await store.open()
    (tmp_path / "assets").write_text("no folder")
    with pytest.raises(StoreUnavailable):
        await store.put("assets/a/1", chunks(b"x"), size=1, content_type="text/plain")
    with pytest.raises(StoreUnavailable):
        await store.put_bytes("assets/a/1", b"x", content_type="text/plain")
    await store.close()
    below = local_objects(tmp_path / "assets")
    await below.open()
    with pytest.raises(StoreUnavailable):
        await below.put_bytes("a", b"x", content_type="text/plain")
    await below.close()


async def test_a_deleted_object_is_gone_from_the_file_that_it_shared(tmp_path: Path) -> None:
    store = local_objects(tmp_path)
    await store.open()
    await store.put_batch([("r/1a", b"secret"), ("r/2b", b"kept")], content_type="text/plain")
    path = tmp_path / "r/2b+/2b+"
    os.utime(path, (1.0, 1.0))
    await store.delete("r/1a")
    assert b"secret" not in path.read_bytes()
    info = await store.stat("r/2b")
    assert info is not None
    assert info.modified_at == 1.0
    assert await read_object(store, "r/2b") == b"kept"
    await store.close()


async def test_a_body_that_is_deleted_while_it_is_read_is_not_read_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = local_objects(tmp_path)
    await store.open()
    # The first read of the file does not reach the second body.
    bodies = [("r/1a", b"a" * DATA_BYTES), ("r/2b", b"b" * DATA_BYTES), ("r/3c", b"c")]
    await store.put_batch(bodies, content_type="text/plain")
    assert (tmp_path / "r/1a+/1a+").stat().st_nlink == 3
    assert await read_object(store, "r/2b") == b"b" * DATA_BYTES
    beside = local_objects(tmp_path)
    await beside.open()
    loop = asyncio.get_running_loop()
    read, reads = os.pread, 0

    def deleting(file: int, length: int, at: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 2:
            asyncio.run_coroutine_threadsafe(beside.delete("r/2b"), loop).result(PATIENCE_S)
        return read(file, length, at)

    monkeypatch.setattr(os, "pread", deleting)
    with pytest.raises(ObjectNotFound):
        await store.get("r/2b")
    monkeypatch.setattr(os, "pread", read)
    assert await read_object(store, "r/3c") == b"c"
    await beside.close()
    await store.close()


async def test_a_body_that_is_long_has_a_file_of_its_own(tmp_path: Path) -> None:
    store = local_objects(tmp_path)
    await store.open()
    bodies = {"r/1a": b"a" * (DATA_BYTES + 1), "r/2b": b"b", "r/3c": b"c"}
    await store.put_batch(list(bodies.items()), content_type="text/plain")
    assert (tmp_path / "r/1a+/1a+").stat().st_nlink == 1
    for key, body in bodies.items():
        assert await read_object(store, key) == body
    await store.close()


async def test_a_file_system_without_hard_links_gets_a_file_for_each_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*names: str) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    store = local_objects(tmp_path)
    await store.open()
    await store.put_batch([("r/1a", b"one"), ("r/2b", b"two")], content_type="text/plain")
    assert await read_object(store, "r/1a") == b"one"
    assert await read_object(store, "r/2b") == b"two"
    assert sum("lock" not in name for name in files_below(tmp_path)) == 2
    await store.close()
