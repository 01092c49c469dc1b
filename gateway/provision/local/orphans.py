"""What a reconciler that was killed left running, found again and ended.

Every process is started as the leader of a session of its own, and written down by process id and
start time before anybody relies on it. The reconciler holds a lock in the folder of its records for
as long as it lives; a folder whose lock can be had belongs to one that is dead, and whatever still
runs of it is killed: the process itself if its start time is the one on record (else the id has
been given to another since), and all that shares its session. A session's id is not given to a
process while anything is left of the session.

Which instances were ended, or found dead, is left in ``gone`` for whoever leads next: it need not
wait for the end of their workers' leases. Any reconciler of the machine may clear up, at its start;
only the leader writes down what follows.

Linux only, by ``/proc``. A process that left its session (daemon(3)) is not found.
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

_PASSES = 5
"""A process that forks while we look may leave a child that the look has missed."""
_LOCK = "lock"
_RECORD = "processes.json"
_GONE = "gone"
"""Beside the reconcilers' folders: an empty file for each instance, by its id."""
_SESSION = 3
_START_TIME = 19
"""Fields of ``/proc/pid/stat`` counted after the command, which may contain anything."""

_log = logging.getLogger("gateway.provision")


class Started(NamedTuple):
    """A process on record; ``start_time`` is in clock ticks since the machine's start."""

    pid: int
    start_time: int


class Folder:
    """The folder of one living reconciler."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, root: Path, owner: str) -> "Folder":
        """Make ``root/owner`` and lock it, after everything dead under ``root`` was cleared."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        clear(root, owner)
        path = root / owner
        path.mkdir(mode=0o700)
        lock = (path / _LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(path, lock)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def clear(root: Path, owner: str) -> None:
    """Kill everything that belongs to dead reconcilers; ``owner`` is us."""
    for other in root.iterdir():
        if other.is_dir() and other.name not in {owner, _GONE}:
            _clear_if_dead(other, root / _GONE)


def take_gone(root: Path) -> set[str]:
    """Return the ids of instances that were cleared since this was asked last."""
    try:
        instance_ids = set(os.listdir(root / _GONE))
    except FileNotFoundError:
        return set()
    for instance_id in instance_ids:
        (root / _GONE / instance_id).unlink(missing_ok=True)
    return instance_ids


def write_down(folder: Path, pids: Iterable[int]) -> None:
    """Put the processes of one instance on record."""
    started = [Started(pid, entry[1]) for pid in pids if (entry := _stat(pid)) is not None]
    partial = folder / f"{_RECORD}.new"
    partial.write_text(json.dumps(started))
    partial.replace(folder / _RECORD)


def kill_session(pid: int) -> None:
    """Kill everything that is left of the session of a process that we started and reaped."""
    _kill_sessions({pid})


def _clear_if_dead(folder: Path, gone: Path) -> None:
    try:
        with (folder / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            killed = _kill_sessions(
                {pid for record in folder.glob(f"*/{_RECORD}") for pid in _sessions_on(record)}
            )
            if killed:
                _log.warning("provision.orphans_killed", extra={"fields": {"processes": killed}})
            for instance in [one for one in folder.iterdir() if one.is_dir()]:
                gone.mkdir(mode=0o700, exist_ok=True)
                (gone / instance.name).touch()
            shutil.rmtree(folder, ignore_errors=True)
    except (BlockingIOError, FileNotFoundError):
        # Alive, or being made or removed at this moment.
        return


def _sessions_on(record: Path) -> list[int]:
    """Return the sessions of one instance, less those whose id was given away since."""
    try:
        recorded = [Started(*entry) for entry in json.loads(record.read_text())]
    except (OSError, ValueError, TypeError):
        _log.warning("provision.bad_record", extra={"fields": {"file": str(record)}})
        return []
    return [
        pid
        for pid, start_time in recorded
        if (entry := _stat(pid)) is None or entry[1] == start_time
    ]


def _kill_sessions(sessions: set[int]) -> list[int]:
    """Kill all that is left of sessions; return what was there at first."""
    found: list[int] = []
    for turn in range(_PASSES):
        members = _members(sessions) if sessions else []
        if not members:
            break
        if turn == 0:
            found = members
        for member in members:
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
    return found


def _members(sessions: set[int]) -> list[int]:
    """Return the processes of sessions."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if (entry := _stat(pid)) is not None and entry[0] in sessions]


def _stat(pid: int) -> tuple[int, int] | None:
    """Return session and start time of a process; `None` when there is none, or only its corpse."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] == "Z":
        return None
    return int(fields[_SESSION]), int(fields[_START_TIME])
