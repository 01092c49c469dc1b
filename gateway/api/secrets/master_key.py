"""The master key file: created at the first start, read at every later one.

Every process with the role ``api`` or ``provision`` reads the same file; on several machines, each
needs a copy, or the key itself by a setting. Without the key, the secrets in the store cannot be
opened: back it up.
"""

import contextlib
import os
import stat
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from pathlib import Path

from gateway.auth.signing import MASTER_BYTES


class MasterKeyError(Exception):
    """A secret of the settings cannot be used. The text is one line with nothing of the secret."""


def load_or_make(path: Path, random32: bytes) -> bytes:
    """Return the key in ``path``; create the file from ``random32`` if it does not exist.

    Of several processes that start at once, one creates it and all return the same key. Raises
    `MasterKeyError`.
    """
    try:
        if not path.exists():
            _make(path, random32)
    except OSError as error:
        raise MasterKeyError(f"{path}: {error.strerror or error}") from error
    return key_of(read_private(path), str(path))


def read_private(path: Path) -> bytes:
    """Return the first 256 bytes of a file that nobody else can read. Raises `MasterKeyError`.

    The group of a file of root's may read it: that is how Kubernetes gives a secret to a pod that
    does not run as root.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            is_own = status.st_uid != 0 or os.geteuid() == 0
            if stat.S_IMODE(status.st_mode) & (0o077 if is_own else 0o037):
                raise MasterKeyError(f"{path} can be read by others: chmod 600 it")
            return file.read(256)
    except OSError as error:
        raise MasterKeyError(f"{path}: {error.strerror or error}") from error


def key_of(text: bytes, source: str) -> bytes:
    """Return the key that ``source`` holds in base64. Raises `MasterKeyError`, which names it."""
    try:
        key = b64decode(text.strip(), validate=True)
    except (Base64Error, ValueError):
        key = b""
    if len(key) != MASTER_BYTES:
        raise MasterKeyError(f"{source} does not hold {MASTER_BYTES} bytes in base64")
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
