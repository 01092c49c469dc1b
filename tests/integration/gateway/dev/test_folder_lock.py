"""Locks of a data folder."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.dev.children import Children
from gateway.dev.folder_lock import FolderInUseError, lock_folder, lock_server
from runtime.tasks import spawn
from tests.support.waiting import PATIENCE_S

_HOLDER = """
import sys
from pathlib import Path
from gateway.dev.folder_lock import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""
_CHILD = [sys.executable, "-c", "import signal; print('runs', flush=True); signal.pause()"]


def ignore(_text: str) -> None:
    """Ignore a message."""


def test_a_folder_is_locked_by_one_process_at_a_time(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        with pytest.raises(FolderInUseError, match=str(tmp_path)) as refused:
            lock_folder(tmp_path)
        assert "\n" not in str(refused.value)
    lock_folder(tmp_path).close()


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(FolderInUseError):
            lock_folder(tmp_path)
        holder.kill()
    assert holder.returncode == -signal.SIGKILL
    lock_folder(tmp_path).close()


async def test_a_child_keeps_the_lock_that_it_inherits_and_no_other(tmp_path: Path) -> None:
    messages: list[str] = []
    async with Children(tmp_path, PATIENCE_S) as children:
        with lock_folder(tmp_path), await lock_server(tmp_path, 0.0, ignore) as lock:
            server = children.start("server", _CHILD, {}, [lock.fileno()])
            other = children.start("other", _CHILD, {})
            for child in (server, other):
                await child.line_with("runs", PATIENCE_S)
        # As after a kill: the locks of this process are closed, and both children keep running.
        with lock_folder(tmp_path):
            with pytest.raises(FolderInUseError, match=str(tmp_path)):
                await lock_server(tmp_path, 0.1, messages.append)
            assert messages
            waiting = spawn(lock_server(tmp_path, PATIENCE_S, ignore), "test.waiting")
            await server.stop(PATIENCE_S)
            (await waiting).close()
            assert other.exit_code is None


async def test_waiting_for_a_lock_can_be_interrupted(tmp_path: Path) -> None:
    waits = asyncio.Event()
    with await lock_server(tmp_path, 0.0, ignore):
        waiting = spawn(
            lock_server(tmp_path, PATIENCE_S, lambda _text: waits.set()), "test.waiting"
        )
        await waits.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    (await lock_server(tmp_path, 0.0, ignore)).close()
