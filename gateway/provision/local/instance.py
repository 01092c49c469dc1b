"""One instance on this machine: an inference server and its worker agent, as two processes.

An instance of a server that runs already is its worker agent alone.

If one of them ends by itself, the other is ended too and the instance is DOWN. A worker whose
inference server is gone hands its requests back first: if it were killed at once, nobody would run
them, and no client would learn of it, until their leases expire. To stop an instance,
the worker gets SIGTERM first, so that it takes no more requests and finishes those it has; then the
inference server gets it. A process that does not end in time is killed. Each process leads its own
session, which is killed with it.

An instance may outlive the gateway process that started it: `release` leaves it, and so does the
death of that process. The next one to have its folder watches the same processes from there on
(`adopt`): as they are now, DOWN if one of them has ended meanwhile, STOPPING if the worker was told
to stop.
"""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.domain.deployment import MAX_ERROR_BYTES
from gateway.domain.model import Instance
from gateway.provision.backend import InstanceStatus, LaunchSpec, RunState
from gateway.provision.launch import LaunchError
from gateway.provision.local.command import Command
from gateway.provision.local.folder import InstanceFolder, InstanceRecord
from gateway.provision.local.processes import InstanceProcess
from runtime.tasks import spawn

HAND_BACK_S = 1.0
"""Time for a worker whose inference server is gone to hand its requests back, and once more
after it was told to abandon them; then it is killed."""
END_S = 5.0
"""Time for an inference server to end after its worker has ended."""
TAIL_LINES = 25
MAX_LOG_BYTES = 16 << 20
"""A log that is longer is emptied when its process is started again or adopted."""
_MIN_SECRET_CHARS = 4
_FINAL = frozenset(
    {
        errno.E2BIG,
        errno.EACCES,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOEXEC,
        errno.ENOTDIR,
        errno.EPERM,
    }
)
"""Errors of execve(2) that the command causes, not the state of the machine."""


@dataclass(frozen=True, slots=True)
class Run:
    """The commands of one run by process, and what is recorded of it."""

    commands: Mapping[str, Command]
    record: InstanceRecord


Plans = Callable[[LaunchSpec, Path], Run]
"""Returns how to run an instance in a folder. Raises `LaunchError`, `OSError`."""


class LocalInstance:
    """One instance. ``on_change`` is called whenever `status` has changed.

    `start` or `adopt` it first.
    """

    def __init__(
        self,
        record: Instance,
        running: Path,
        clock: Callable[[], float],
        on_change: Callable[["LocalInstance"], None],
        *,
        outlives: bool,
    ) -> None:
        """``running`` is the folder of all instances; ``clock`` returns Unix seconds.

        ``outlives``: its processes go on when this process ends.
        """
        self.record = record
        self._running = running
        self._outlives = outlives
        self._clock = clock
        self._on_change = on_change
        self._folder: InstanceFolder | None = None
        self._request = asyncio.Event()
        """Set when `stop` or `fail` was called."""
        self._grace_s: float | None = None
        self._is_terminated = False
        """Whether the worker got SIGTERM from the process that had the instance before."""
        self._failure = ""
        self._secrets: Mapping[str, str] = {}
        self._hidden: list[str] = []
        self._log_starts: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self.status = InstanceStatus(record.instance_id, RunState.DOWN, clock())

    @property
    def has_stopped(self) -> bool:
        """Whether it was stopped and nothing of it runs any more."""
        return self._grace_s is not None and (self._task is None or self._task.done())

    def start(self, launch: LaunchSpec, plan: Plans) -> None:
        """Start it, unless it runs or is being stopped."""
        if self.status.state is not RunState.DOWN or self._grace_s is not None:
            return
        self.record, self._secrets = launch.instance, launch.secrets
        self._hidden = launch.hidden()
        self._failure = ""
        self._request.clear()
        self._set_state(RunState.UP)
        self._task = spawn(self._supervise(lambda: self._start(launch, plan)), "provision.instance")

    def adopt(self, folder: InstanceFolder, names: Iterable[str]) -> None:
        """Watch the processes ``names`` that another gateway process has started in ``folder``."""
        self._folder = folder
        self._secrets = folder.read_secrets()
        self._hidden = list(self._secrets.values())
        ends_at = folder.stops_at()
        if ends_at is not None:
            self._is_terminated = True
            self._grace_s = max(ends_at - self._clock(), 0.0)
        for name in names:
            _bound_log(folder.log(name))

        def find() -> dict[str, InstanceProcess]:
            return {name: InstanceProcess.find(folder.identity(name)) for name in names}

        # Before the change is told: without a task, one that is being stopped has ended.
        self._task = spawn(self._supervise(find), "provision.instance")
        self._set_state(RunState.UP if ends_at is None else RunState.STOPPING)

    def release(self) -> None:
        """Leave it, as it is, to the next process that adopts it."""
        if self._task is not None:
            self._task.cancel()
        if self._folder is not None:
            self._folder.release()
            self._folder = None

    def remove(self) -> None:
        """Delete its folder; nothing of it runs."""
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def stop(self, grace_s: float) -> None:
        """Let it finish its requests, then end it; a second call may shorten the grace period."""
        self._grace_s = grace_s if self._grace_s is None else min(grace_s, self._grace_s)
        if self.status.state is RunState.UP:
            self._set_state(RunState.STOPPING)
        self._request.set()
        if self.has_stopped:
            self._on_change(self)

    def fail(self, reason: str) -> None:
        """End it at once; it becomes DOWN."""
        if self.status.state is RunState.UP:
            self._failure = reason
            self._request.set()

    async def wait_ended(self) -> None:
        """Wait until none of its processes runs."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def log_tail(self, *names: str) -> str:
        """Return the last lines that its processes wrote since their start, secrets masked."""
        lines: list[str] = []
        for name in names or ("inference", "worker"):
            lines += self._last_lines(name)
        text = "\n".join(lines)
        for secret in self._hidden:
            if len(secret) >= _MIN_SECRET_CHARS:
                text = text.replace(secret, "***")
        return text

    async def _supervise(self, processes_of: Callable[[], dict[str, InstanceProcess]]) -> None:
        """Watch the processes to their end, then set the status; leaves no process behind."""
        processes: dict[str, InstanceProcess] = {}
        reason, is_final = "", False
        try:
            processes = processes_of()
            reason = await self._watch(processes)
        except LaunchError as error:
            reason, is_final = _join_reason(str(error), ""), True
        except OSError as error:
            # A full disk is told when a file is written, without its name.
            where = "" if error.filename is None else f": {error.filename}"
            reason = _join_reason(f"cannot be started: {error.strerror}{where}", "")
            is_final = error.errno in _FINAL
            if self._folder is not None:
                self._folder.kill_all()
        except asyncio.CancelledError:
            if self._outlives:
                for process in processes.values():
                    process.release()
                processes = {}
            raise
        finally:
            for process in processes.values():
                process.kill(self.record.instance_id)
        for process in processes.values():
            await process.ended.wait()
        if self._grace_s is not None:
            # `has_stopped` becomes true only when this task is done.
            asyncio.get_running_loop().call_soon(self._on_change, self)
            return
        self._set_state(RunState.DOWN, reason, is_final=is_final)

    def _start(self, launch: LaunchSpec, plan: Plans) -> dict[str, InstanceProcess]:
        """Start the processes; without a pause, so that `release` finds all of them or none.

        Raises `LaunchError` and `OSError`.
        """
        run = plan(launch, self._running / self.record.instance_id)
        if self._folder is None:
            self._folder = InstanceFolder.create(self._running, run.record)
        folder = self._folder
        folder.forget_run()
        folder.write(run.record)
        folder.write_secrets(dict(self._secrets))
        started: dict[str, InstanceProcess] = {}
        for name, command in run.commands.items():
            log = folder.log(name)
            _bound_log(log)
            self._log_starts[name] = log.stat().st_size if log.exists() else 0
            try:
                started[name] = InstanceProcess.start(
                    command, log, folder.identity(name), ends_with_us=not self._outlives
                )
            except OSError as error:
                # The operating system does not say which file it was.
                raise OSError(error.errno, error.strerror, _name_missing(error, command)) from error
            except subprocess.SubprocessError as error:
                raise OSError(errno.EIO, str(error), command.argv[0]) from error
        return started

    async def _watch(self, started: Mapping[str, InstanceProcess]) -> str:
        """Wait until a process ends or a request comes, and act on it; return why it ended."""
        request = spawn(self._request.wait(), "provision.request")
        exits = {
            spawn(process.ended.wait(), "provision.wait"): name for name, process in started.items()
        }
        try:
            if self._grace_s is None:
                await asyncio.wait([request, *exits], return_when=asyncio.FIRST_COMPLETED)
            if self._grace_s is not None:
                await self._terminate(started)
                return ""
            failure = self._failure
            name = "" if failure else next(name for task, name in exits.items() if task.done())
            if name != "worker":
                await self._hand_back(started)
            if failure:
                return _join_reason(failure, self.log_tail("inference"))
        finally:
            for task in (request, *exits):
                task.cancel()
        what = "the inference server" if name == "inference" else "the worker agent"
        logs = ("inference",) if name == "inference" else ("worker", "inference")
        ending = f"{what} ended {_describe_exit(started[name].code)}"
        return _join_reason(ending, self.log_tail(*logs))

    async def _terminate(self, started: Mapping[str, InstanceProcess]) -> None:
        """Send SIGTERM to the worker, then to the inference server; wait for each to end."""
        if (worker := started.get("worker")) is not None:
            if not self._is_terminated:
                # A second signal would make it abandon its requests, so the next process is told.
                worker.send_signal(signal.SIGTERM)
                if self._folder is not None:
                    self._folder.mark_stopping(self._clock() + (self._grace_s or 0.0))
            await self._wait_exit(worker, None)
        if (inference := started.get("inference")) is not None:
            inference.send_signal(signal.SIGTERM)
            await self._wait_exit(inference, END_S)

    async def _hand_back(self, started: Mapping[str, InstanceProcess]) -> None:
        """End the inference server, then let the worker end the leases that it has."""
        if (inference := started.get("inference")) is not None:
            # What is left of its session may hold its connections open.
            inference.kill(self.record.instance_id)
        if (worker := started.get("worker")) is None:
            return
        for _ in range(2):
            worker.send_signal(signal.SIGTERM)
            await self._wait_exit(worker, HAND_BACK_S)
            if worker.ended.is_set():
                return

    async def _wait_exit(self, process: InstanceProcess, limit_s: float | None) -> None:
        """Wait up to ``limit_s`` seconds for a process to end.

        `None` means the grace period, which another call of `stop` may shorten meanwhile.
        """
        wait = spawn(process.ended.wait(), "provision.wait")
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while not process.ended.is_set():
                grace_s = (self._grace_s or 0.0) if limit_s is None else limit_s
                left_s = began + grace_s - loop.time()
                if left_s <= 0:
                    return
                self._request.clear()
                request = spawn(self._request.wait(), "provision.request")
                await asyncio.wait(
                    [wait, request], timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                )
                request.cancel()
        finally:
            wait.cancel()

    def _last_lines(self, name: str) -> list[str]:
        if self._folder is None:
            return []
        try:
            with self._folder.log(name).open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(size - MAX_ERROR_BYTES, self._log_starts.get(name, 0)))
                text = log.read(MAX_ERROR_BYTES).decode(errors="replace")
        except OSError:
            return []
        return text.splitlines()[-TAIL_LINES:]

    def _set_state(self, state: RunState, reason: str = "", *, is_final: bool = False) -> None:
        self.status = InstanceStatus(
            self.record.instance_id, state, self._clock(), reason, is_final
        )
        self._on_change(self)


def _name_missing(error: OSError, command: Command) -> str:
    """Return the program that could not be executed, or that the interpreter of it is missing."""
    program = command.argv[0]
    found = shutil.which(program, path=command.environment.get("PATH"))
    if error.errno == errno.ENOENT and found is not None:
        return f"the interpreter that the first line of {found} names"
    return program


def _bound_log(log: Path) -> None:
    """Empty a log that is too long. Its process may go on: it appends to the file."""
    with suppress(OSError):
        if log.stat().st_size > MAX_LOG_BYTES:
            os.truncate(log, 0)


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "with a code that is not known: it was started by another gateway process"
    if code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with code {code}"


def _join_reason(reason: str, tail: str) -> str:
    """Return reason and log tail in at most `MAX_ERROR_BYTES`; the log is cut at its beginning."""
    reason = reason.encode(errors="replace")[:MAX_ERROR_BYTES].decode(errors="ignore")
    room = MAX_ERROR_BYTES - len(reason.encode()) - 1
    kept = tail.encode()[-room:].decode(errors="ignore") if room > 0 else ""
    return f"{reason}\n{kept}".strip()
