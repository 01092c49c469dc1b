"""Files that are written whole, of secrets or not, and locks on files."""

import fcntl
import os
from pathlib import Path
from typing import IO


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; readers see the old text or the new one.

    It is on the disk when this returns. Raises OSError, which names the file.
    """
    _write(path, text.encode(), 0o600)


def write_public(path: Path, content: bytes) -> None:
    """Write a file that everybody may read, else as `write_private`."""
    _write(path, content, 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    partial = path.with_name(f"{path.name}.part")
    partial.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        # A full disk is reported without a name.
        error.filename = error.filename or str(path)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def try_lock(path: Path) -> IO[bytes] | None:
    """Lock a file (flock), made if need be, and return it; `None` if another process has the lock.

    Closing the file releases the lock. Raises OSError.
    """
    # Readable by its owner only: a process that can open a file can lock it.
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
