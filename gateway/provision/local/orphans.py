"""Kills processes that a gateway process has left running: it was killed before it could stop them.

Every process is started as the leader of its own session, and its id and start time are recorded
before it is relied upon. A gateway process holds a lock in the folder of its records for as long as
it lives. A folder whose lock is free therefore belongs to a dead gateway process, and what still
runs of it is killed: the recorded process, if its start time is the recorded one (otherwise the id
has been reused), and every process of its session. The kernel does not reuse the id of a session
while a process of that session is left.

The ids of instances that were ended, or found dead, are left in ``gone`` for the next leader, which
then need not wait for the leases of their workers to expire. Every gateway process kills orphans of
its machine when it starts; only the leader changes stored records.

Linux only (``/proc``). A process that has left its session (daemon(3)) is not found.
"""

import fcntl
import json
import logging
import os
import shutil
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from runtime.events import emit

_PASSES = 5
"""A process that forks during a scan may leave a child that the scan has missed."""
_LOCK = "lock"
_RECORD = "processes.json"
_ENDED = "gone"
"""Folder beside those of the gateway processes: one empty file per instance, named by its id."""
_SESSION = 3
_START_TIME = 19
"""Fields of ``/proc/pid/stat`` counted after the command, which may contain anything."""

_log = logging.getLogger("gateway.provision")


class RecordedProcess(NamedTuple):
    """A recorded process; ``start_time`` is in clock ticks since the boot of the machine."""

    pid: int
    start_time: int


class OwnedFolder:
    """The locked folder of this gateway process."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, root: Path, owner: str) -> "OwnedFolder":
        """Create and lock ``root/owner``, after the orphans below ``root`` were killed."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        kill_orphans(root, owner)
        path = root / owner
        path.mkdir(mode=0o700)
        lock = (path / _LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(path, lock)

    def close(self) -> None:
        """Delete the folder and release its lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def kill_orphans(root: Path, owner: str) -> None:
    """Kill all processes of dead gateway processes; ``owner`` is the name of our own folder."""
    for other in root.iterdir():
        if other.is_dir() and other.name not in {owner, _ENDED}:
            _kill_if_dead(other, root / _ENDED)


def take_ended_ids(root: Path) -> set[str]:
    """Return the ids of instances that were found ended since the last call."""
    try:
        instance_ids = set(os.listdir(root / _ENDED))
    except FileNotFoundError:
        return set()
    for instance_id in instance_ids:
        (root / _ENDED / instance_id).unlink(missing_ok=True)
    return instance_ids


def record_processes(folder: Path, pids: Iterable[int]) -> None:
    """Write the record of one instance's processes, replacing the last one."""
    recorded = [RecordedProcess(pid, entry[1]) for pid in pids if (entry := _stat(pid)) is not None]
    partial = folder / f"{_RECORD}.new"
    partial.write_text(json.dumps(recorded))
    partial.replace(folder / _RECORD)


def kill_session(pid: int) -> None:
    """Kill what is left of the session of a child process that has been waited for."""
    _kill_sessions({pid})


def _kill_if_dead(folder: Path, ended: Path) -> None:
    try:
        with (folder / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            records = folder.glob(f"*/{_RECORD}")
            killed = _kill_sessions({pid for path in records for pid in _read_sessions(path)})
            if killed:
                emit(_log, "provision.orphans_killed", logging.WARNING, processes=killed)
            for instance in [path for path in folder.iterdir() if path.is_dir()]:
                ended.mkdir(mode=0o700, exist_ok=True)
                (ended / instance.name).touch()
            shutil.rmtree(folder, ignore_errors=True)
    except (BlockingIOError, FileNotFoundError):
        # Its owner lives, or the folder is being created or deleted at this moment.
        return


def _read_sessions(record: Path) -> list[int]:
    """Return the sessions of one instance, without those whose id has been reused."""
    try:
        recorded = [RecordedProcess(*entry) for entry in json.loads(record.read_text())]
    except (OSError, ValueError, TypeError):
        emit(_log, "provision.bad_record", logging.WARNING, file=str(record))
        return []
    return [
        pid
        for pid, start_time in recorded
        if (entry := _stat(pid)) is None or entry[1] == start_time
    ]


def _kill_sessions(sessions: set[int]) -> list[int]:
    """Kill all processes of ``sessions``; return those that the first scan found."""
    found: list[int] = []
    for scan in range(_PASSES):
        members = _members(sessions) if sessions else []
        if not members:
            break
        if scan == 0:
            found = members
        for member in members:
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
    return found


def _members(sessions: set[int]) -> list[int]:
    """Return the ids of all processes in ``sessions``."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if (entry := _stat(pid)) is not None and entry[0] in sessions]


def _stat(pid: int) -> tuple[int, int] | None:
    """Return session and start time of a process; `None` if it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] == "Z":
        return None
    return int(fields[_SESSION]), int(fields[_START_TIME])
