"""A real server as a separate process that a test starts, pauses, stops, kills and restarts.

The process is independent of any event loop; a thread reads its log.
"""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.waiting import PATIENCE_S


class ServerProcess:
    """Base class of servers; a subclass implements `start_blocking`."""

    name = "the server"

    def __init__(self) -> None:
        self.log: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    def start_blocking(self) -> None:
        """Start the process and return when it accepts connections."""
        raise NotImplementedError

    def end_blocking(self, signal_number: int = signal.SIGTERM) -> None:
        """Send ``signal_number`` and wait for the end; the process may have ended before."""
        process, self._process = self._process, None
        if process is None:
            return
        if signal_number != signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
        process.send_signal(signal_number)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert self._reader is not None
        self._reader.join()

    async def start(self) -> None:
        await asyncio.to_thread(self.start_blocking)

    async def stop(self) -> None:
        """Shut down gracefully (SIGTERM)."""
        await asyncio.to_thread(self.end_blocking)

    async def kill(self) -> None:
        """End the process at once (SIGKILL)."""
        await asyncio.to_thread(self.end_blocking, signal.SIGKILL)

    async def restart(self) -> None:
        """Kill the process if it runs, and start it again on the same port."""
        await self.kill()
        await self.start()

    def pause(self) -> None:
        """Stop the process (SIGSTOP): its connections stay open and it responds to nothing."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        # The signal takes effect a little after it is sent.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def _launch(
        self,
        argv: Sequence[str | Path],
        read: Callable[["subprocess.Popen[str]"], None],
        cwd: Path | None = None,
    ) -> "subprocess.Popen[str]":
        """Run ``argv``; a thread calls ``read``, which reads standard error to its end."""
        process = self._process = subprocess.Popen(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=read, args=(process,), daemon=True)
        self._reader.start()
        return process

    def _running(self) -> "subprocess.Popen[str]":
        assert self._process is not None, f"{self.name} is not running"
        return self._process
