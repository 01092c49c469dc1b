"""Who has a data folder: one `gateway dev`, and one nats-server, because two corrupt the store.

Each holds a lock of the kernel's (flock(2)) on a file in the folder. A lock ends with its holder,
however that ends, so nothing is left to clear away after a kill; the files themselves stay, because
whoever had opened one before it was removed could lock it beside the owner of the next.

``dev.lock`` is `gateway dev`'s own and inherited by nobody: who finds it taken is refused at once.
It alone would not do. When `gateway dev` is killed, the kernel tells its nats-server to end
(`runtime.lifecycle.die_with_parent`), and that still writes while it does. ``nats-server.lock`` is
therefore inherited by the nats-server, on purpose, and lives as long as it: the next start waits.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from gateway.dev.children import Pause

_DEV = "dev.lock"
_SERVER = "nats-server.lock"


class FolderInUseError(Exception):
    """Somebody else has the folder; the text says who, in one line."""


def lock_folder(folder: Path) -> IO[bytes]:
    """Return what holds the folder until it is closed. Raises `FolderInUseError`, OSError."""
    lock = _locked(folder / _DEV)
    if lock is None:
        raise FolderInUseError(
            f"the data folder {folder} is in use by another `gateway dev`; "
            "choose another with --data-dir"
        )
    return lock


async def lock_server(
    folder: Path, within_s: float, pause: Pause, say: Callable[[str], None]
) -> IO[bytes]:
    """Return what the nats-server is to inherit, once no other one writes to the folder.

    ``say`` is told when there is one to wait for. Raises `FolderInUseError` when it still runs
    after ``within_s`` seconds, `gateway.dev.children.InterruptError`, OSError.
    """
    lock = _locked(folder / _SERVER)
    if lock is not None:
        return lock
    say(f"waiting for the nats-server of an earlier run on {folder} to end")
    try:
        async with asyncio.timeout(within_s):
            while lock is None:
                await pause.moment()
                lock = _locked(folder / _SERVER)
    except TimeoutError:
        raise FolderInUseError(
            f"the data folder {folder} is in use by the nats-server of an earlier run, "
            f"which has not ended in {within_s:.0f} s"
        ) from None
    return lock


def _locked(path: Path) -> IO[bytes] | None:
    """Return the file, made if need be, with its lock; `None` when somebody else holds that."""
    # For its owner only: whoever can open a file can lock it.
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        file.close()
        raise
    return file
