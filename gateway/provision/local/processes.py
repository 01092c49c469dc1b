"""The processes of instances, which may be children of a gateway process that has ended.

A process leads its own session and process group, so that all of it can be killed. Before it
executes its command it writes its `ProcessIdentity` into a file, so that a gateway process that
dies at that moment leaves no process that nobody knows. An id alone names nothing, because the
kernel reuses it. A process is the recorded one if boot, pid namespace, id and start time are the
recorded ones; from then on a pidfd (pidfd_open(2)) names it for good.

The end of every process is learned from its pidfd. Its exit code is known to its parent only, so
that of an adopted process is not.

Linux only. A process that has left its session (daemon(3)) is not found.
"""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gateway.provision.local.command import Command
from runtime.lifecycle import die_with_parent

_PASSES = 5
"""A process that forks during a scan may leave a child that the scan has missed."""
_GROUP, _SESSION, _START_TIME = 2, 3, 19
"""Fields of ``/proc/pid/stat`` counted after the command, which may contain anything."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = "/proc/self/ns/pid"


class ProcessIdentity(NamedTuple):
    """A process, unmistakably.

    ``start_time`` is in clock ticks since the boot ``boot`` of the machine; ``namespace`` is the
    pid namespace in which ``pid`` is its id.
    """

    pid: int
    start_time: int
    boot: str
    namespace: str


class ProcessState(NamedTuple):
    """What ``/proc/pid/stat`` says of a process that runs."""

    group: int
    session: int
    start_time: int


def machine_of(folder: Path) -> str:
    """Return what is the same for two processes if, and only if, one can adopt from the other.

    That is the boot of the machine, the pid namespace and ``folder``. Raises `OSError`.
    """
    found = folder.stat()
    return f"{_boot()} {os.readlink(_NAMESPACE)} {found.st_dev}:{found.st_ino}"


def read_identity(file: Path) -> ProcessIdentity | None:
    """Return the identity in ``file``; `None` if there is none, or none that can be read."""
    try:
        pid, start_time, boot, namespace = json.loads(file.read_text())
        return ProcessIdentity(int(pid), int(start_time), str(boot), str(namespace))
    except (OSError, ValueError, TypeError):
        return None


class InstanceProcess:
    """A process of an instance, watched by its pidfd. Belongs to the running loop.

    ``ended`` is set when it has ended; then ``code`` is its exit code, minus the number of the
    signal that ended it, or `None` if it is not known.
    """

    def __init__(self, pid: int, fd: int | None) -> None:
        """``fd`` is its pidfd, `None` if it has ended. ``pid`` is 0 if there was no process."""
        self.pid = pid
        self._was_seen = fd is not None
        self.code: int | None = None
        self.ended = asyncio.Event()
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        if fd is None:
            self.ended.set()
        else:
            self._loop.add_reader(fd, self._handle_end)

    @classmethod
    def start(
        cls, command: Command, log: Path, identity: Path, *, ends_with_us: bool
    ) -> "InstanceProcess":
        """Start ``command``, which appends its output to ``log``. Raises `OSError`.

        ``ends_with_us``: the kernel ends it when this process ends.
        """
        boot, namespace = _boot(), os.readlink(_NAMESPACE)
        with (
            log.open("ab") as output,
            os.fdopen(os.open(identity, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out,
        ):

            def prepare() -> None:
                """Run in the new process, before it executes the command."""
                if ends_with_us:
                    die_with_parent()
                pid = os.getpid()
                found = state_of(pid)
                started = 0 if found is None else found.start_time
                os.write(out.fileno(), json.dumps((pid, started, boot, namespace)).encode())

            process = subprocess.Popen(  # noqa: S603
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=command.environment,
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509
            )
        # Here its end is learned from the pidfd: the object must not wait for it, nor complain.
        process.returncode = 0
        return cls(process.pid, os.pidfd_open(process.pid))

    @classmethod
    def find(cls, identity: Path) -> "InstanceProcess":
        """Return the process that is recorded in ``identity``; it has ended if it is not found."""
        return cls(*_open_recorded(identity))

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self._fd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def kill(self, instance_id: str) -> None:
        """Kill it and everything that it has left in its session."""
        self.send_signal(signal.SIGKILL)
        _kill_session(self.pid, None if self._was_seen else instance_id)

    def release(self) -> None:
        """Leave it to another gateway process.

        A child is watched on, because it stays one until its exit code is taken.
        """
        if self._fd is not None and not _is_child(self._fd):
            self._close()

    def _handle_end(self) -> None:
        if self._fd is None:
            return
        with suppress(ChildProcessError):
            found = os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOHANG)
            if found is not None:
                is_exit = found.si_code == os.CLD_EXITED
                self.code = found.si_status if is_exit else -found.si_status
        self._close()
        self.ended.set()

    def _close(self) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None


def kill_recorded(identity: Path, instance_id: str) -> set[int]:
    """Kill the session of the process that is recorded in ``identity``; return whom it found."""
    pid, fd = _open_recorded(identity)
    try:
        return _kill_session(pid, None if fd is not None else instance_id)
    finally:
        if fd is not None:
            os.close(fd)


def _open_recorded(identity: Path) -> tuple[int, int | None]:
    """Return pid and pidfd of a recorded process.

    The pidfd is `None` if it has ended. The pid is 0 if none is recorded or its id has been reused.
    """
    recorded = read_identity(identity)
    if recorded is None or not _is_here(recorded):
        return 0, None
    try:
        fd = os.pidfd_open(recorded.pid)
    except OSError:
        return recorded.pid, None
    # Read after the pidfd: what has the id and this start time now had the id then as well.
    state = state_of(recorded.pid)
    if state is not None and _is_leader(recorded, state):
        return recorded.pid, fd
    os.close(fd)
    return (recorded.pid if state is None else 0), None


def _kill_session(pid: int, instance_id: str | None) -> set[int]:
    """Kill all processes of a session; return those that the first scan found.

    With ``instance_id`` only those that have it in their environment: the process that led the
    session ended unseen, so that its id may be a later session's.
    """
    found: set[int] = set()
    for _ in range(_PASSES if pid else 0):
        members = members_of({pid})
        if instance_id is not None:
            members = {member for member in members if _has_in_environment(member, instance_id)}
        if not members:
            break
        found = found or members
        for member in members:
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
    return found


def members_of(sessions: Collection[int]) -> set[int]:
    """Return the ids of all processes in ``sessions``."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return {
        pid for pid in pids if (state := state_of(pid)) is not None and state.session in sessions
    }


def state_of(pid: int) -> ProcessState | None:
    """Return the state of a process; `None` if it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] == "Z":
        return None
    return ProcessState(int(fields[_GROUP]), int(fields[_SESSION]), int(fields[_START_TIME]))


def _is_here(recorded: ProcessIdentity) -> bool:
    """Whether ids of the recorded boot and pid namespace mean anything here."""
    return recorded.boot == _boot() and recorded.namespace == os.readlink(_NAMESPACE)


def _is_leader(recorded: ProcessIdentity, state: ProcessState) -> bool:
    """Whether ``state`` is that of the recorded process, which leads a session and a group."""
    leads = state.session == state.group == recorded.pid
    return leads and state.start_time == recorded.start_time


def _is_child(fd: int) -> bool:
    try:
        os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _has_in_environment(pid: int, instance_id: str) -> bool:
    try:
        return instance_id.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _boot() -> str:
    return _BOOT.read_text().strip()
