"""The folder of one instance, and the lock that says which gateway process has the instance.

``running/ID`` below the folder of all instances, mode 0700, contains ``instance.json`` (the
`InstanceRecord`), the identities of its processes (`gateway.provision.local.processes`),
``inference.log``, ``worker.log`` and ``secrets.json``. It is there from before the first process
starts until after the last has ended, whichever gateway process dies meanwhile.

Who holds the lock of an instance (flock(2)) has it: nobody else watches, signals or deletes it. The
kernel releases the lock when its holder dies.
"""

import fcntl
import json
import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gateway.domain.documents import RecordError
from gateway.domain.model import Instance, decode, encode
from gateway.provision.local.processes import kill_recorded

SCHEMA = 1
"""Of the record. A gateway adopts no instance with another one: it ends it."""
RUNNING = "running"
PROCESSES = ("inference", "worker")
_LOCK = "lock"
_RECORD = "instance.json"
_STOPPING = "stopping"
_UNFINISHED = ".new"
_DELETED = ".deleted"


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """What is needed to adopt an instance.

    ``commands`` are the arguments of its processes by name, of `PROCESSES`. ``address`` is where
    its inference server listens, ``gateway`` the version of the gateway that started it, ``owner``
    the id of its process.
    """

    instance: Instance
    commands: dict[str, tuple[str, ...]]
    address: tuple[str, int]
    gateway: str
    owner: str

    def document(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "schema": SCHEMA,
            "gateway": self.gateway,
            "owner": self.owner,
            "address": self.address,
            "commands": self.commands,
            "instance": json.loads(encode(self.instance)),
        }

    @classmethod
    def read(cls, data: bytes) -> "InstanceRecord":
        """Return the record in a document. Raises ValueError for one that cannot be read."""
        try:
            document: dict[str, Any] = json.loads(data)
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema {document['schema']} is not {SCHEMA}")
            instance = _instance_in(document["instance"])
            host, port = document["address"]
            commands = {str(name): tuple(argv) for name, argv in document["commands"].items()}
            if not set(commands) <= set(PROCESSES):
                raise ValueError("it names other processes")
            return cls(
                instance,
                commands,
                (str(host), int(port)),
                str(document["gateway"]),
                str(document["owner"]),
            )
        except (KeyError, TypeError, AttributeError, RecordError) as error:
            raise ValueError(f"it cannot be read: {error!r}") from error


def _instance_in(document: object) -> Instance:
    record = decode(json.dumps(document).encode())
    if not isinstance(record, Instance):
        raise RecordError("it is not of an instance")
    return record


class InstanceFolder:
    """The folder of an instance that this process has: it holds the lock until `release`."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, running: Path, record: InstanceRecord) -> "InstanceFolder":
        """Create and lock the folder of an instance that is about to start. Raises `OSError`."""
        path = running / record.instance.instance_id
        unfinished = path.with_name(path.name + _UNFINISHED)
        unfinished.mkdir(mode=0o700)
        folder = cls(unfinished, _locked(unfinished / _LOCK))
        try:
            folder.write(record)
            unfinished.rename(path)
        except OSError:
            folder.remove()
            raise
        folder.path = path
        return folder

    @classmethod
    def take(cls, path: Path) -> "InstanceFolder | None":
        """Lock the folder of an instance that no process has; `None` if one has it."""
        try:
            lock = _locked(path / _LOCK)
        except OSError:
            return None
        folder = cls(path, lock)
        if not folder._is_in_place():
            folder.release()
            return None
        return folder

    def write(self, record: InstanceRecord) -> None:
        """Write the record, in place of the last one. Raises `OSError`."""
        partial = self.path / f"{_RECORD}{_UNFINISHED}"
        partial.write_text(json.dumps(record.document()))
        partial.replace(self.path / _RECORD)

    def read(self) -> InstanceRecord:
        """Return the record. Raises `OSError` and ValueError."""
        return InstanceRecord.read((self.path / _RECORD).read_bytes())

    def identity(self, name: str) -> Path:
        """Return the file with the identity of the process ``name``."""
        return self.path / f"{name}.pid"

    def log(self, name: str) -> Path:
        """Return the log of the process ``name``."""
        return self.path / f"{name}.log"

    @property
    def secrets(self) -> Path:
        """The file with the secrets: a JSON object of strings that only its owner can read."""
        return self.path / "secrets.json"

    def read_secrets(self) -> dict[str, str]:
        """Return the secrets by name; none if they cannot be read."""
        try:
            found = json.loads(self.secrets.read_bytes())
            return {str(name): str(value) for name, value in found.items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def write_secrets(self, secrets: dict[str, str]) -> None:
        """Replace the secrets. Raises `OSError`."""
        self.secrets.unlink(missing_ok=True)
        with os.fdopen(
            os.open(self.secrets, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
        ) as out:
            json.dump(secrets, out)

    def forget_run(self) -> None:
        """Delete what is known of processes that have all ended. Raises `OSError`."""
        for name in PROCESSES:
            self.identity(name).unlink(missing_ok=True)
        (self.path / _STOPPING).unlink(missing_ok=True)

    def mark_stopping(self, ends_at: float) -> None:
        """Record that the worker was told to stop, and may take until ``ends_at``, Unix seconds."""
        with suppress(OSError):
            (self.path / _STOPPING).write_text(f"{ends_at}")

    def stops_at(self) -> float | None:
        """Return what `mark_stopping` has recorded last; `None` if the worker was not told."""
        try:
            return float((self.path / _STOPPING).read_text())
        except (OSError, ValueError):
            return None

    def kill_all(self) -> set[int]:
        """Kill the recorded processes and their sessions; return those that were found."""
        killed = [kill_recorded(self.identity(name), self.path.name) for name in PROCESSES]
        return set().union(*killed)

    def remove(self) -> None:
        """Delete the folder and release the lock."""
        # Renamed first: what a crash leaves of it is no instance.
        deleted = self.path.with_name(self.path.name + _DELETED)
        with suppress(OSError):
            self.path.rename(deleted)
            shutil.rmtree(deleted, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Leave the instance to another process."""
        self._lock.close()

    def _is_in_place(self) -> bool:
        """Whether the locked file is still that of the folder, which may have been deleted."""
        try:
            return os.path.samestat((self.path / _LOCK).stat(), os.fstat(self._lock.fileno()))
        except OSError:
            return False


def open_running(root: Path) -> Path:
    """Create ``root`` and return its folder of instances, which only its owner can enter.

    Raises `OSError`.
    """
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    running = root / RUNNING
    running.mkdir(mode=0o700, exist_ok=True)
    found = running.stat(follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{running} is not a folder of the user of this process")
    running.chmod(0o700)
    return running


def take_all(running: Path, known: frozenset[str] = frozenset()) -> list[InstanceFolder]:
    """Lock and return the folders of all instances that no process has, except ``known`` ids.

    Delete what a process has left that died while it created or deleted a folder.
    """
    try:
        names = os.listdir(running)
    except FileNotFoundError:
        return []
    taken = []
    for name in names:
        folder = None if name in known else InstanceFolder.take(running / name)
        if folder is None:
            continue
        if name.endswith((_UNFINISHED, _DELETED)):
            shutil.rmtree(folder.path, ignore_errors=True)
            folder.release()
        else:
            taken.append(folder)
    return taken


def _locked(file: Path) -> IO[str]:
    """Open and lock a file. Raises `OSError`, `BlockingIOError` if another process has it."""
    lock = file.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock
