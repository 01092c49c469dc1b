"""The master key file: created at the first start, read at every later one.

Every process with the role ``api`` or ``provision`` reads the same file; on several machines, each
needs a copy. Without the file, the secrets in the store cannot be opened: back it up.
"""

import contextlib
import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from pathlib import Path

from gateway.auth.signing import MASTER_BYTES


class MasterKeyError(Exception):
    """The file cannot be used. The text is one line and contains nothing of the key."""


def load_or_make(path: Path, random32: bytes) -> bytes:
    """Return the key in ``path``; create the file from ``random32`` if it does not exist.

    Of several processes that start at once, one creates it and all return the same key. Raises
    `MasterKeyError`.
    """
    try:
        if not path.exists():
            _make(path, random32)
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise MasterKeyError(f"{path} can be read by others: chmod 600 it")
            text = file.read(256)
    except OSError as error:
        raise MasterKeyError(f"{path}: {error.strerror or error}") from error
    try:
        key = b64decode(text.strip(), validate=True)
    except (Base64Error, ValueError):
        key = b""
    if len(key) != MASTER_BYTES:
        raise MasterKeyError(f"{path} does not hold {MASTER_BYTES} bytes in base64")
    return key


def _make(path: Path, random32: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(b64encode(random32) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            # Not a rename: that would replace a key that another process has just created.
            os.link(unfinished, path)
    finally:
        unfinished.unlink()
