"""A real server as a process of its own: started, stalled, stopped, killed, started again.

The process is independent of any event loop; a thread reads its log.
"""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path


class ServerProcess:
    """What the servers have in common; how one starts and is ready is its own `start_blocking`."""

    name = "the server"
    patience_s = 10.0

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
        """End the process with ``signal_number`` and wait for it. No error if it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        if signal_number != signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
        process.send_signal(signal_number)
        try:
            process.wait(self.patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert self._reader is not None
        self._reader.join()

    async def start(self) -> None:
        await asyncio.to_thread(self.start_blocking)

    async def stop(self) -> None:
        """Shut down in order (SIGTERM)."""
        await asyncio.to_thread(self.end_blocking)

    async def kill(self) -> None:
        """End at once (SIGKILL), as a lost machine or a process out of memory does."""
        await asyncio.to_thread(self.end_blocking, signal.SIGKILL)

    async def restart(self) -> None:
        """Start again on the same port; kills what still runs."""
        await self.kill()
        await self.start()

    def pause(self) -> None:
        """Stall the process (SIGSTOP): connections stay open and nothing is answered."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        # The signal takes effect a little later than it is sent.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def _launch(
        self,
        argv: Sequence[str | Path],
        read: Callable[["subprocess.Popen[str]"], None],
        cwd: Path | None = None,
    ) -> "subprocess.Popen[str]":
        """Run ``argv``; ``read`` reads its standard error to the end, in a thread."""
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
