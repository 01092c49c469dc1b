"""The demo inference server as a separate process on a free port.

It is ready when its log says so.
"""

import asyncio
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.support.server_process import ServerProcess
from tests.support.waiting import PATIENCE_S

_ROOT = Path(__file__).parents[2]
_RUNNING = re.compile(r"Uvicorn running on http://[^ ]*:(\d+)")


class InferenceServer(ServerProcess):
    """One ``python -m gateway.examples.inference``; it keeps its port over `restart`."""

    name = "the inference server"

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start_blocking(self) -> None:
        """Start the process and return when it accepts connections."""
        ready = threading.Event()
        self.log = []
        process = self._launch(
            [sys.executable, "-m", "gateway.examples.inference", "--port", str(self.port)],
            lambda process: self._read(process, ready),
            _ROOT,
        )
        if not ready.wait(PATIENCE_S) or process.poll() is not None:
            self.end_blocking(signal.SIGKILL)
            raise AssertionError("the inference server did not start:\n" + "".join(self.log))

    async def ended(self) -> int:
        """Wait until the process has ended by itself; return its exit code."""
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.to_thread(self._running().wait, PATIENCE_S)

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
    """Run a server while the block runs."""
    server = InferenceServer(port)
    server.start_blocking()
    try:
        yield server
    finally:
        server.end_blocking(signal.SIGKILL)


@asynccontextmanager
async def running_inference_server(port: int = 0) -> AsyncIterator[InferenceServer]:
    """Run a server while the block runs, without blocking the event loop."""
    server = InferenceServer(port)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
