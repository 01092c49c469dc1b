"""One instance on this machine: an inference server and its worker agent, as two processes.

An instance of a server that runs already is its worker agent alone.

If one of them ends by itself, the other is ended too and the instance is DOWN. A worker whose
inference server is gone hands its requests back first: if it were killed at once, nobody would run
them, and no client would learn of it, until their leases expire. To stop an instance,
the worker gets SIGTERM first, so that it takes no more requests and finishes those it has; then the
inference server gets it. A process that does not end in time is killed. Each process leads its own
session, which is killed with it, and both are killed by the kernel if the gateway process dies.
"""

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from gateway.domain.deployment import MAX_ERROR_BYTES
from gateway.provision.backend import InstanceStatus, LaunchSpec, RunState
from gateway.provision.launch import LaunchError
from gateway.provision.local.command import Command
from gateway.provision.local.orphans import kill_session, record_processes
from runtime.lifecycle import die_with_parent
from runtime.tasks import spawn

HAND_BACK_S = 1.0
"""Time for a worker whose inference server is gone to hand its requests back, and once more
after it was told to abandon them; then it is killed."""
END_S = 5.0
"""Time for an inference server to end after its worker has ended."""
TAIL_LINES = 25
MAX_LOG_BYTES = 16 << 20
"""A log that is longer is deleted when its process is restarted."""
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

Commands = Callable[[LaunchSpec, Path], tuple[Command | None, Command]]
"""Returns the commands of inference server and worker. Raises `LaunchError`, `OSError`.

The first is `None` if the inference server runs already.
"""


class LocalInstance:
    """One instance. ``on_change`` is called whenever `status` has changed."""

    def __init__(
        self,
        launch: LaunchSpec,
        folder: Path,
        commands: Commands,
        clock: Callable[[], float],
        on_change: Callable[["LocalInstance"], None],
    ) -> None:
        """``folder`` is for logs, secrets and records; ``clock`` returns Unix seconds."""
        self.launch = launch
        self._folder = folder
        self._commands = commands
        self._clock = clock
        self._on_change = on_change
        self._request = asyncio.Event()
        """Set when `stop` or `fail` was called."""
        self._grace_s: float | None = None
        self._failure = ""
        self._log_starts: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self.status = InstanceStatus(launch.instance.instance_id, RunState.DOWN, clock())

    @property
    def has_stopped(self) -> bool:
        """Whether it was stopped and nothing of it runs any more."""
        return self._grace_s is not None and (self._task is None or self._task.done())

    def start(self, launch: LaunchSpec) -> None:
        """Start it, unless it runs or is being stopped."""
        if self.status.state is not RunState.DOWN or self._grace_s is not None:
            return
        self.launch = launch
        self._failure = ""
        self._request.clear()
        self._set_state(RunState.UP)
        self._task = spawn(self._supervise(), "provision.instance")

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
        for secret in self.launch.secrets.values():
            if len(secret) >= _MIN_SECRET_CHARS:
                text = text.replace(secret, "***")
        return text

    async def _supervise(self) -> None:
        """Run the processes once, then set the status; leaves no process behind."""
        processes: list[Process] = []
        reason, is_final = "", False
        try:
            reason = await self._run(processes)
        except LaunchError as error:
            reason, is_final = _join_reason(str(error), ""), True
        except OSError as error:
            reason = _join_reason(f"cannot be started: {error.strerror}: {error.filename}", "")
            is_final = error.errno in _FINAL
        finally:
            for process in processes:
                _kill(process)
        for process in processes:
            await process.wait()
        if self._grace_s is not None:
            # `has_stopped` becomes true only when this task is done.
            asyncio.get_running_loop().call_soon(self._on_change, self)
            return
        self._set_state(RunState.DOWN, reason, is_final=is_final)

    async def _run(self, processes: list[Process]) -> str:
        """Run both processes until one ends or a request comes; return why it ended."""
        inference_command, agent_command = self._commands(self.launch, self._folder)
        self._write_secrets()
        started: dict[str, Process] = {}
        if inference_command is not None:
            started["inference"] = await self._spawn("inference", inference_command, processes)
        started["worker"] = await self._spawn("worker", agent_command, processes)
        request = spawn(self._request.wait(), "provision.request")
        exits = {spawn(process.wait(), "provision.wait"): name for name, process in started.items()}
        try:
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
        ending = f"{what} ended {_describe_exit(started[name].returncode)}"
        return _join_reason(ending, self.log_tail(*logs))

    async def _terminate(self, started: Mapping[str, Process]) -> None:
        """Send SIGTERM to the worker, then to the inference server; wait for each to end."""
        for name, limit_s in (("worker", None), ("inference", END_S)):
            if (process := started.get(name)) is not None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                await self._wait_exit(process, limit_s)

    async def _hand_back(self, started: Mapping[str, Process]) -> None:
        """End the inference server, then let the worker end the leases that it has."""
        if (inference := started.get("inference")) is not None:
            # What is left of its session may hold its connections open.
            _kill(inference)
        worker = started["worker"]
        for _ in range(2):
            with suppress(ProcessLookupError):
                worker.send_signal(signal.SIGTERM)
            await self._wait_exit(worker, HAND_BACK_S)
            if worker.returncode is not None:
                return

    async def _wait_exit(self, process: Process, limit_s: float | None) -> None:
        """Wait up to ``limit_s`` seconds for a process to end.

        `None` means the grace period, which another call of `stop` may shorten meanwhile.
        """
        wait = spawn(process.wait(), "provision.wait")
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while not wait.done():
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

    async def _spawn(self, name: str, command: Command, processes: list[Process]) -> Process:
        """Start a process, add it to ``processes`` and record it. Raises `OSError`."""
        log = self._folder / f"{name}.log"
        with suppress(FileNotFoundError):
            if log.stat().st_size > MAX_LOG_BYTES:
                log.unlink()
        with log.open("ab") as output:
            self._log_starts[name] = output.tell()
            try:
                process = await asyncio.create_subprocess_exec(
                    *command.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=command.environment,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            except OSError as error:
                # The event loop does not say which file it was.
                named = _name_missing(error, command)
                raise OSError(error.errno, error.strerror, named) from error
        processes.append(process)
        record_processes(self._folder, [started.pid for started in processes])
        return process

    def _write_secrets(self) -> None:
        """Write ``secrets.json``, a JSON object of strings that only its owner can read."""
        file = self._folder / "secrets.json"
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(dict(self.launch.secrets), out)

    def _last_lines(self, name: str) -> list[str]:
        try:
            with (self._folder / f"{name}.log").open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(size - MAX_ERROR_BYTES, self._log_starts.get(name, 0)))
                text = log.read(MAX_ERROR_BYTES).decode(errors="replace")
        except OSError:
            return []
        return text.splitlines()[-TAIL_LINES:]

    def _set_state(self, state: RunState, reason: str = "", *, is_final: bool = False) -> None:
        self.status = InstanceStatus(
            self.launch.instance.instance_id, state, self._clock(), reason, is_final
        )
        self._on_change(self)


def _name_missing(error: OSError, command: Command) -> str:
    """Return the program that could not be executed, or that the interpreter of it is missing."""
    program = command.argv[0]
    found = shutil.which(program, path=command.environment.get("PATH"))
    if error.errno == errno.ENOENT and found is not None:
        return f"the interpreter that the first line of {found} names"
    return program


def _kill(process: Process) -> None:
    """Kill a process and everything that it has left in its session."""
    with suppress(ProcessLookupError):
        process.kill()
    kill_session(process.pid)


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "without a code"
    if code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with code {code}"


def _join_reason(reason: str, tail: str) -> str:
    """Return reason and log tail in at most `MAX_ERROR_BYTES`; the log is cut at its beginning."""
    reason = reason.encode(errors="replace")[:MAX_ERROR_BYTES].decode(errors="ignore")
    room = MAX_ERROR_BYTES - len(reason.encode()) - 1
    kept = tail.encode()[-room:].decode(errors="ignore") if room > 0 else ""
    return f"{reason}\n{kept}".strip()
