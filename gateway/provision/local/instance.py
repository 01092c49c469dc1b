"""One instance on this machine: an inference server and its worker agent, as two processes.

They live and die together: when one ends by itself the other is killed, and the instance is DOWN.
To stop, the worker is told first, so that it takes no more work and finishes what it has, then the
inference server; what does not end in time is killed. Each is the leader of a session of its own,
of which nothing survives it, and the kernel tells both to end when we do.
"""

import asyncio
import errno
import json
import os
import signal
import subprocess
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gateway.domain.deployment import MAX_ERROR_BYTES
from gateway.provision.backend import Holding, Life, Order
from gateway.provision.local.command import Command, CommandError
from gateway.provision.local.orphans import kill_session, write_down
from runtime.lifecycle import die_with_parent
from runtime.tasks import spawn

END_S = 5.0
"""For an inference server to end once its worker has."""
TAIL_LINES = 25
MAX_LOG_BYTES = 16 << 20
"""Beyond it a log is begun anew when its process is started again."""
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
"""Why execve(2) fails when the command is at fault, not the machine's state."""

Commands = Callable[[Order, Path], tuple[Command, Command]]
"""Makes the inference server's and the worker's command. Raises `CommandError`, `OSError`."""


class Resident:
    """One instance. ``changed`` is called whenever its `holding` has changed."""

    def __init__(
        self,
        order: Order,
        folder: Path,
        commands: Commands,
        clock: Callable[[], float],
        changed: Callable[["Resident"], None],
    ) -> None:
        """``folder`` is its own, for logs, secrets and records; ``clock`` gives Unix seconds."""
        self.order = order
        self._folder = folder
        self._commands = commands
        self._clock = clock
        self._changed = changed
        self._told = asyncio.Event()
        self._grace_s: float | None = None
        self._failure = ""
        self._log_starts: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self.holding = Holding(order.instance.instance_id, Life.DOWN, clock())

    @property
    def is_gone(self) -> bool:
        """Whether it was stopped and has ended."""
        return self._grace_s is not None and (self._task is None or self._task.done())

    def start(self, order: Order) -> None:
        """Start it, unless it runs or stops."""
        if self.holding.life is not Life.DOWN or self._grace_s is not None:
            return
        self.order = order
        self._failure = ""
        self._told.clear()
        self._become(Life.UP)
        self._task = spawn(self._live(), "provision.instance")

    def stop(self, grace_s: float) -> None:
        """Have it finish and end; a second call may shorten the time."""
        self._grace_s = grace_s if self._grace_s is None else min(grace_s, self._grace_s)
        if self.holding.life is Life.UP:
            self._become(Life.STOPPING)
        self._told.set()
        if self.is_gone:
            self._changed(self)

    def fail(self, reason: str) -> None:
        """End it at once; it becomes DOWN."""
        if self.holding.life is Life.UP:
            self._failure = reason
            self._told.set()

    async def ended(self) -> None:
        """Wait until nothing of it runs."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def tail(self, *names: str) -> str:
        """Return the last lines that its processes wrote since their start, secrets masked."""
        lines: list[str] = []
        for name in names or ("inference", "worker"):
            lines += self._last_lines(name)
        text = "\n".join(lines)
        for secret in self.order.secrets.values():
            if len(secret) >= _MIN_SECRET_CHARS:
                text = text.replace(secret, "***")
        return text

    async def _live(self) -> None:
        processes: list[Process] = []
        reason, is_final = "", False
        try:
            reason = await self._run(processes)
        except CommandError as error:
            reason, is_final = _fitted(str(error), ""), True
        except OSError as error:
            reason = _fitted(f"cannot be started: {error.strerror}: {error.filename}", "")
            is_final = error.errno in _FINAL
        finally:
            for process in processes:
                _kill(process)
        for process in processes:
            await process.wait()
        if self._grace_s is not None:
            loop = asyncio.get_running_loop()
            # After this task is done: only then it is gone.
            loop.call_soon(self._changed, self)
            return
        self._become(Life.DOWN, reason, is_final=is_final)

    async def _run(self, processes: list[Process]) -> str:
        """Run it until it ends or shall end; return why it ended."""
        for_inference, for_worker = self._commands(self.order, self._folder)
        self._write_secrets()
        inference = await self._spawn("inference", for_inference, processes)
        worker = await self._spawn("worker", for_worker, processes)
        told = spawn(self._told.wait(), "provision.told")
        ends = {
            spawn(inference.wait(), "provision.wait"): "inference",
            spawn(worker.wait(), "provision.wait"): "worker",
        }
        try:
            await asyncio.wait([told, *ends], return_when=asyncio.FIRST_COMPLETED)
            if self._grace_s is not None:
                await self._end(inference, worker)
                return ""
            if self._failure:
                return _fitted(self._failure, self.tail("inference"))
            name = next(name for task, name in ends.items() if task.done())
        finally:
            for task in (told, *ends):
                task.cancel()
        code = (inference if name == "inference" else worker).returncode
        what = "the inference server" if name == "inference" else "the worker agent"
        tails = ("inference",) if name == "inference" else ("worker", "inference")
        return _fitted(f"{what} ended {_how(code)}", self.tail(*tails))

    async def _end(self, inference: Process, worker: Process) -> None:
        """Tell both to end, the worker first; return when they have, or their time is over."""
        for process, limit_s in ((worker, None), (inference, END_S)):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await self._within(process, limit_s)

    async def _within(self, process: Process, limit_s: float | None) -> None:
        """Wait for the end of a process, by default for the time of grace, which may shrink."""
        wait = spawn(process.wait(), "provision.wait")
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while not wait.done():
                grace_s = (self._grace_s or 0.0) if limit_s is None else limit_s
                left_s = began + grace_s - loop.time()
                if left_s <= 0:
                    return
                self._told.clear()
                told = spawn(self._told.wait(), "provision.told")
                await asyncio.wait(
                    [wait, told], timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                )
                told.cancel()
        finally:
            wait.cancel()

    async def _spawn(self, name: str, command: Command, processes: list[Process]) -> Process:
        log = self._folder / f"{name}.log"
        with suppress(FileNotFoundError):
            if log.stat().st_size > MAX_LOG_BYTES:
                log.unlink()
        with log.open("ab") as output:
            self._log_starts[name] = output.tell()
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=command.environment,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        processes.append(process)
        write_down(self._folder, [one.pid for one in processes])
        return process

    def _write_secrets(self) -> None:
        """Write ``secrets.json``, a JSON object of texts, for its owner's eyes only."""
        file = self._folder / "secrets.json"
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(dict(self.order.secrets), out)

    def _last_lines(self, name: str) -> list[str]:
        try:
            with (self._folder / f"{name}.log").open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(size - MAX_ERROR_BYTES, self._log_starts.get(name, 0)))
                text = log.read(MAX_ERROR_BYTES).decode(errors="replace")
        except OSError:
            return []
        return text.splitlines()[-TAIL_LINES:]

    def _become(self, life: Life, reason: str = "", *, is_final: bool = False) -> None:
        self.holding = Holding(
            self.order.instance.instance_id, life, self._clock(), reason, is_final
        )
        self._changed(self)


def _kill(process: Process) -> None:
    """Kill a process, and whatever it started and left in its session."""
    with suppress(ProcessLookupError):
        process.kill()
    kill_session(process.pid)


def _how(code: int | None) -> str:
    if code is None:
        return "without a code"
    if code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with code {code}"


def _fitted(reason: str, tail: str) -> str:
    """Return reason and log in at most `MAX_ERROR_BYTES`; the log's end is what counts."""
    reason = reason.encode(errors="replace")[:MAX_ERROR_BYTES].decode(errors="ignore")
    room = MAX_ERROR_BYTES - len(reason.encode()) - 1
    kept = tail.encode()[-room:].decode(errors="ignore") if room > 0 else ""
    return f"{reason}\n{kept}".strip()
