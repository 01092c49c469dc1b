"""The demo inference server as a process of its own, on a free port.

It is ready when it says so itself; nothing here waits for time to pass.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

PATIENCE_S = 20.0 * float(os.environ.get("TEST_PATIENCE", "1"))
"""For a start: on a busy machine the imports alone take seconds."""
_ROOT = Path(__file__).parents[2]
_RUNNING = re.compile(r"Uvicorn running on http://[^ ]*:(\d+)")


class InferenceServer:
    """One ``python -m examples.inference``; keeps its port over `restart`."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.log: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._started().pid

    def start_blocking(self) -> None:
        """Start the process and return when it accepts connections."""
        ready = threading.Event()
        self.log = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "examples.inference", "--port", str(self.port)],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        arguments = (self._process, ready)
        self._reader = threading.Thread(target=self._read, args=arguments, daemon=True)
        self._reader.start()
        if not ready.wait(PATIENCE_S) or self._process.poll() is not None:
            self.end_blocking(signal.SIGKILL)
            raise AssertionError("the inference server did not start:\n" + "".join(self.log))

    def end_blocking(self, signal_number: int = signal.SIGTERM) -> None:
        """End the process with ``signal_number`` and wait for it. No error if it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
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
        """Shut down in order (SIGTERM)."""
        await asyncio.to_thread(self.end_blocking)

    async def kill(self) -> None:
        """End at once (SIGKILL), as an inference server out of memory does."""
        await asyncio.to_thread(self.end_blocking, signal.SIGKILL)

    async def restart(self) -> None:
        """Start again on the same port; kills what still runs."""
        await self.kill()
        await self.start()

    async def ended(self) -> int:
        """Wait until the process has ended by itself; return its exit code."""
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.to_thread(self._started().wait, PATIENCE_S)

    def pause(self) -> None:
        """Stall the process (SIGSTOP): connections stay open and nothing is answered."""
        self._started().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._started().send_signal(signal.SIGCONT)

    def _started(self) -> "subprocess.Popen[str]":
        assert self._process is not None, "the inference server is not running"
        return self._process

    def _read(self, process: "subprocess.Popen[str]", ready: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self.log.append(line)
                if found := _RUNNING.search(line):
                    self.port = int(found[1])
                    ready.set()
        ready.set()


@contextmanager
def serving(port: int = 0) -> Iterator[InferenceServer]:
    """Run a server for the length of the block."""
    server = InferenceServer(port)
    server.start_blocking()
    try:
        yield server
    finally:
        server.end_blocking(signal.SIGKILL)


@asynccontextmanager
async def running_inference_server(port: int = 0) -> AsyncIterator[InferenceServer]:
    """Run a server for the length of the block, without blocking the loop."""
    server = InferenceServer(port)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
