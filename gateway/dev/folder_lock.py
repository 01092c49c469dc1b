"""Locks that keep a data folder to one `gateway dev` and its brokers: two corrupt the store.

Each holds a kernel lock (flock(2)) on a file in the folder. The kernel releases a lock when its
holder ends, however that happens, so a kill leaves nothing to clean up. The files themselves are
never deleted: a process that had opened a file before could lock it while another locks its
successor.

`gateway dev` holds ``dev.lock`` and does not pass it on: a second `gateway dev` is refused at once.
That lock alone is not enough. If `gateway dev` is killed, the kernel terminates its nats-server
(`runtime.lifecycle.die_with_parent`), which still writes until it has ended, and so does the server
of a queue on Redis. Both therefore inherit ``nats-server.lock`` and hold it for as long as they
run: the next start waits.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import IO

from gateway.dev.children import POLL_S
from runtime.files import try_lock

_DEV = "dev.lock"
_SERVER = "nats-server.lock"


class FolderInUseError(Exception):
    """Another process uses the folder; the message says which, in one line."""


def lock_folder(folder: Path) -> IO[bytes]:
    """Lock the folder until the returned file is closed. Raises `FolderInUseError`, `OSError`."""
    lock = try_lock(folder / _DEV)
    if lock is None:
        raise FolderInUseError(
            f"the data folder {folder} is in use by another `gateway dev`; "
            "choose another with --data-dir"
        )
    return lock


async def lock_server(folder: Path, timeout_s: float, say: Callable[[str], None]) -> IO[bytes]:
    """Return the lock that the brokers must inherit, once no other one uses the folder.

    ``say`` prints a message if there is one to wait for. Raises `FolderInUseError` if that one
    still runs after ``timeout_s`` seconds, and `OSError`.
    """
    lock = try_lock(folder / _SERVER)
    if lock is not None:
        return lock
    say(f"waiting for the nats-server of an earlier run on {folder} to end")
    try:
        async with asyncio.timeout(timeout_s):
            while lock is None:
                await asyncio.sleep(POLL_S)
                lock = try_lock(folder / _SERVER)
    except TimeoutError:
        raise FolderInUseError(
            f"the data folder {folder} is in use by the nats-server of an earlier run, "
            f"which has not ended in {timeout_s:.0f} s"
        ) from None
    return lock
