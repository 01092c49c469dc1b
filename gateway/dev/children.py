"""The child processes of `gateway dev`: started in order, monitored, stopped in reverse order.

Each writes to its own log file, which also shows when it is ready and why it ended.
"""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from gateway.dev.keeper import Kept
from gateway.dev.log_ends import end_of, exit_report, indented
from runtime.lifecycle import die_with_parent

POLL_S = 0.05
"""Pause between two looks at what reports no changes."""


class ChildError(Exception):
    """A child process could not start, or ended while it was needed."""


class Child:
    """One child process and its log."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        env: Mapping[str, str],
        inherits: Sequence[int],
    ) -> None:
        """Start the process; ``inherits`` are the file descriptors that it inherits.

        Raises `ChildError` if it cannot be started.
        """
        self.name = name
        self.log = log
        # A new file: a child of an earlier run may still write to the old one.
        log.unlink(missing_ok=True)
        try:
            with log.open("wb") as output:
                # Its own session: Ctrl-C reaches only `gateway dev`, which stops it in order.
                self._process = subprocess.Popen(  # noqa: S603
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **env},
                    pass_fds=inherits,
                    start_new_session=True,
                    preexec_fn=die_with_parent,  # noqa: PLW1509
                )
        except OSError as error:
            raise ChildError(f"{name} cannot be started: {argv[0]}: {error.strerror}") from error

    @property
    def exit_code(self) -> int | None:
        """Exit code; `None` while it runs."""
        return self._process.poll()

    async def line_with(self, text: str, timeout_s: float) -> str:
        """Return the first log line that contains ``text``, waiting up to ``timeout_s`` seconds.

        Raises `ChildError` if it ends or is too late.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    ended = self.exit_code is not None
                    for line in self._complete_lines():
                        if text in line:
                            return line
                    if ended:
                        raise ChildError(self.exit_report())
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise ChildError(
                f"{self.name} was not ready in {timeout_s:.0f} s\n{self.tail()}"
            ) from None

    async def event(self, name: str, timeout_s: float) -> dict[str, Any]:
        """Return the fields of the first log line of event ``name``. Raises as `line_with` does."""
        line = await self.line_with(f'"event":"{name}"', timeout_s)
        fields: dict[str, Any] = json.loads(line)
        return fields

    def exit_report(self) -> str:
        """Return its exit code and the last lines of its log, for a message."""
        return exit_report(self.name, self.exit_code, self.log)

    def tail(self) -> str:
        """Return the last lines of the log, indented."""
        return indented(end_of(self.log))

    @property
    def kept(self) -> Kept:
        """What the keeper needs to know of it."""
        return Kept(self.name, self._process.pid, str(self.log))

    async def stop(self, grace_s: float) -> None:
        """Send SIGTERM, and SIGKILL after ``grace_s`` seconds; wait until it has ended."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def _complete_lines(self) -> list[str]:
        data = self.log.read_bytes()
        return data[: data.rfind(b"\n") + 1].decode(errors="replace").splitlines()


class Children:
    """All child processes; an async context manager that stops them at its end."""

    def __init__(self, folder: Path, grace_s: float) -> None:
        """``grace_s`` is how many seconds each child may take to end; logs go to ``folder``."""
        self._folder = folder
        self._grace_s = grace_s
        self._started: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in reversed(self._started):
            await child.stop(self._grace_s)

    def start(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], inherits: Sequence[int] = ()
    ) -> Child:
        """Start a child process as `Child` does. Raises `ChildError`."""
        child = Child(name, argv, self._folder / f"{name}.log", env, inherits)
        self._started.append(child)
        return child

    def kept(self) -> tuple[Kept, ...]:
        """Return what the keeper needs to know of them, in the order of their starts."""
        return tuple(child.kept for child in self._started)

    def check(self) -> None:
        """Raise `ChildError` if a child has ended."""
        for child in self._started:
            if child.exit_code is not None:
                raise ChildError(child.exit_report())
