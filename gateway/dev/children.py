"""The processes of `gateway dev`: started in order, watched, stopped in reverse order.

Each writes to a log file of its own, from which we also read when it is ready and, if it ends by
itself, why.
"""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from runtime.lifecycle import die_with_parent

_LOOK_EVERY_S = 0.05
_LAST_LINES = 12
_TAIL_BYTES = 8192


class ChildError(Exception):
    """A child could not start, or ended while it was needed."""


class InterruptError(Exception):
    """We were told to stop while we waited."""


class Pause:
    """Waits a moment, and ends every wait once ``stopping`` is set."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping

    async def moment(self) -> None:
        """Wait for the next look. Raises `InterruptError`."""
        try:
            async with asyncio.timeout(_LOOK_EVERY_S):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise InterruptError


class Child:
    """One process and its log."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        env: Mapping[str, str],
        pause: Pause,
        inherits: Sequence[int],
    ) -> None:
        """Start it; of our files it gets those that it ``inherits``, by their descriptors.

        Raises `ChildError` when there is no such program.
        """
        self.name = name
        self.log = log
        self._pause = pause
        # A new file: what an earlier run's child says while it ends is not taken for this one's.
        log.unlink(missing_ok=True)
        try:
            with log.open("wb") as output:
                # A session of its own: Ctrl-C reaches us alone, and we stop it in its turn.
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
        """None while it runs."""
        return self._process.poll()

    async def line_with(self, text: str, timeout_s: float) -> str:
        """Return the first log line that contains ``text``.

        Raises `ChildError` and `InterruptError`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    ended = self.exit_code is not None
                    for line in self._whole_lines():
                        if text in line:
                            return line
                    if ended:
                        raise ChildError(self.obituary())
                    await self._pause.moment()
        except TimeoutError:
            raise ChildError(
                f"{self.name} was not ready in {timeout_s:.0f} s\n{self.tail()}"
            ) from None

    async def event(self, name: str, timeout_s: float) -> dict[str, Any]:
        """Return the first JSON log line of event ``name``. Raises `ChildError`."""
        line = await self.line_with(f'"event":"{name}"', timeout_s)
        fields: dict[str, Any] = json.loads(line)
        return fields

    def obituary(self) -> str:
        """Say that it ended, and what it said last."""
        return f"{self.name} ended with code {self.exit_code}\n{self.tail()}"

    def tail(self) -> str:
        """Return the last lines of the log."""
        with self.log.open("rb") as log:
            log.seek(max(self.log.stat().st_size - _TAIL_BYTES, 0))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_LAST_LINES:])

    async def stop(self, grace_s: float) -> None:
        """Ask it to end; after ``grace_s`` seconds end it."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def _whole_lines(self) -> list[str]:
        data = self.log.read_bytes()
        return data[: data.rfind(b"\n") + 1].decode(errors="replace").splitlines()


class Children:
    """All of them. An async context manager that leaves none behind."""

    def __init__(self, folder: Path, grace_s: float, pause: Pause) -> None:
        """``grace_s`` is for each child to finish what it does; logs go to ``folder``."""
        self._folder = folder
        self._grace_s = grace_s
        self._pause = pause
        self._started: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in reversed(self._started):
            await child.stop(self._grace_s)

    def start(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], inherits: Sequence[int] = ()
    ) -> Child:
        """Start one more, as `Child` does. Raises `ChildError`."""
        child = Child(name, argv, self._folder / f"{name}.log", env, self._pause, inherits)
        self._started.append(child)
        return child

    def check(self) -> None:
        """Raise `ChildError` when one has ended by itself."""
        for child in self._started:
            if child.exit_code is not None:
                raise ChildError(child.obituary())
