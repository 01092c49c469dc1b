"""NATS servers as `gateway nats init` sets them up, and a gateway that uses them."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
from typer.testing import CliRunner

from gateway.cli.nats import app as commands
from gateway.provision.local.orphans import kill_orphans
from gateway.provision.local.processes import read_identity
from gateway.settings import read_settings
from gateway.store.names import BUCKETS, IN_MEMORY
from queueing.nats.login import ConnectionOptions, Login
from queueing.nats.setup.check import NatsCheck
from queueing.nats.setup.findings import Finding, StoreBuckets
from queueing.nats.setup.folder import SERVER_CONFIG, Installation
from tests.support.free_ports import free_ports
from tests.support.nats_server import NatsServer, binary
from tests.support.programs import Program, gateway
from tests.support.waiting import PATIENCE_S, until, until_blocking

FUNCTION = "demo"


class ConfiguredNats(NatsServer):
    """A server that runs with a configuration file of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.file = folder / SERVER_CONFIG

    def start_blocking(self) -> None:
        self.log = []
        self._launch([binary(), "-c", self.file], self._read)
        self._wait_for("Server is ready", PATIENCE_S)

    def reload(self) -> None:
        self._running().send_signal(signal.SIGHUP)


class SetUpNats:
    """An installation and its servers."""

    def __init__(self, folder: Path) -> None:
        self.installation = Installation(folder)
        self.servers = [ConfiguredNats(server) for server in self.installation.servers]

    @property
    def settings(self) -> Path:
        return self.installation.settings

    @property
    def gateway_options(self) -> ConnectionOptions:
        """Those of a gateway."""
        return self._options("gateway.creds")

    @property
    def system_options(self) -> ConnectionOptions:
        """Those of a gateway at the system account."""
        return self._options("system.creds")

    def _options(self, login: str) -> ConnectionOptions:
        ca_file = self.installation.ca_file
        return ConnectionOptions(
            servers=self.installation.urls,
            login=Login(credentials_file=self.installation.gateway / login),
            tls=ssl.create_default_context(cafile=ca_file) if ca_file else None,
        )

    async def start(self) -> None:
        # Servers of a cluster are ready when most of them are.
        await asyncio.gather(*(server.start() for server in self.servers))

    async def kill(self) -> None:
        await asyncio.gather(*(server.kill() for server in self.servers))

    async def restart_each(self) -> None:
        """Restart one server after another, each when the one before is back."""
        for server in self.servers:
            await server.stop()
            await server.start()
            await self.whole()

    async def whole(self) -> None:
        """Wait until nothing is missing in the cluster.

        While the operator's keys are rotated, servers do not know the new ones yet.
        """

        async def missing() -> list[Finding]:
            found = await self.check()
            return [one for one in found if "trust" not in one.problem]

        await until(missing, lambda found: not found, what="a whole cluster")

    async def check(self, **settings: str) -> list[Finding]:
        """Return the findings of a check; ``settings`` are environment variables of a gateway."""
        found = read_settings(self.settings, {f"GATEWAY_{k}": v for k, v in settings.items()})
        store = found.store
        buckets = StoreBuckets(store.bucket_prefix, store.replicas, BUCKETS, IN_MEMORY)
        return (await NatsCheck(found.nats, found.queue, buckets).run()).findings

    def rotate(self, *arguments: str) -> None:
        nats_command("rotate", self.folder, *arguments)

    def push(self) -> None:
        # As a process: a connection with TLS is still closing when its event loop ends.
        code, output = run_command("nats", "push", self.folder)
        assert code == 0, output

    @property
    def folder(self) -> str:
        return str(self.installation.folder)


def nats_command(*arguments: str) -> None:
    """Run a command of `gateway nats` in this process, which takes a tenth of the time."""
    result = CliRunner().invoke(commands, arguments)
    assert result.exit_code == 0, result.output


def run_command(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a `gateway` command; return its exit code and standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@asynccontextmanager
async def set_up_nats(
    folder: Path, *options: str, nodes: int = 1, starts: bool = True
) -> AsyncIterator[SetUpNats]:
    """Make an installation on free ports and run its servers while the block runs."""
    hosts = [f"127.0.0.1:{port}" for port in _ports(nodes)]
    told = [word for host in hosts for word in ("--host", host)]
    nats_command("init", str(folder), "--nodes", str(nodes), *told, *options)
    nats = SetUpNats(folder)
    try:
        if starts:
            await nats.start()
        yield nats
    finally:
        await nats.kill()


def _ports(count: int) -> list[int]:
    """Return free ports of which those 2000 higher, for the other servers, are free too."""
    found: list[int] = []
    while len(found) < count:
        (port,) = free_ports(1)
        with suppress(OSError), socket.create_server(("127.0.0.1", port + 2000)):
            found.append(port)
    return found


class Platform:
    """A gateway with all roles and the auth callout, whose one function runs on this machine."""

    def __init__(self, nats: SetUpNats, folder: Path) -> None:
        self._folder = folder
        self._config = folder / "gateway.toml"
        self._instances = folder / "instances"
        # The same after a restart: the function's worker goes on meanwhile, and calls it.
        (self._port,) = free_ports(1)
        self.use(nats)
        self._program: Program | None = None
        self._token = ""
        self.url = ""

    def use(self, nats: SetUpNats, at_stop: str = "keep") -> None:
        """Take the settings that ``nats`` came with, from the next start on."""
        own = _SETTINGS.format(folder=self._folder, port=self._port, at_stop=at_stop)
        theirs = nats.settings.read_text().replace("[nats]\n", "[nats]\ncallout = true\n")
        self._config.write_text(own + theirs + _CLUSTER)

    def start(self) -> None:
        program = self._program = gateway("serve", "--config", str(self._config))
        self.url = f"http://{program.wait_event('gateway.ready')['listen'][0]}"
        if not self._token:
            secret = program.output.split("Bootstrap secret: ")[1].split()[0]
            answer = httpx.post(
                f"{self.url}/v1/admin/keys", headers={"authorization": f"Bearer {secret}"}
            )
            self._token = answer.json()["value"]

    def deploy(self) -> None:
        """Register the function and deploy it; return when it is ACTIVE."""
        self.command(
            *("functions", "create", "--name", FUNCTION, "--image", FUNCTION),
            *("--inference-url", "/echo", "--health-path", "/health"),
        )
        self.command("deployments", "create", FUNCTION, "--gpu", "CPU", "--watch")

    def restart(self) -> None:
        """Restart the gateway, which its instances outlive; return when it serves the function."""
        self.stop()
        self.start()
        self.until_answered()

    def stop(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            assert program.stop(timeout_s=2 * PATIENCE_S) == 0, program.output

    def close(self) -> None:
        """Stop the gateway, and end what has outlived it."""
        self.stop()
        kill_orphans(self._instances)

    def agents(self) -> set[int]:
        """Return the process ids of the function's workers."""
        files = self._instances.glob("running/*/worker.pid")
        return {found.pid for file in files if (found := read_identity(file)) is not None}

    def until_answered(self) -> None:
        until_blocking(lambda: self.call() == 200, what="a response of the function")

    def call(self, window_s: int = 5) -> int:
        """Call the function through the queue; return the status."""
        answer = httpx.post(
            f"{self.url}/f/{FUNCTION}/echo",
            content=b"hello",
            headers={"authorization": f"Bearer {self._token}", "nvcf-poll-seconds": str(window_s)},
            timeout=PATIENCE_S + window_s,
        )
        return answer.status_code

    def command(self, *arguments: str) -> None:
        """Run a command of the gateway with an admin token."""
        env = {"GATEWAY_API_URL": self.url, "GATEWAY_API_KEY": self._token}
        code, output = run_command(*arguments, env=env)
        assert code == 0, output


_SETTINGS = """\
[edge]
listen = ["127.0.0.1:{port}"]
[attach]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[drain]
grace_s = 0
[control]
secrets_key_file = "{folder}/master.key"
[objects]
folder = "{folder}/objects"
[provision]
folder = "{folder}/instances"
stop_grace_s = 2
at_stop = "{at_stop}"
# Through the queue: that is what is tested.
[queue]
direct = false
"""
_CLUSTER = """
[[clusters]]
name = "local"
[[clusters.gpus]]
name = "CPU"
instance_types = [{ name = "cpu", description = "cpu", is_default = true }]
[clusters.images]
"*" = "process://{python} -m gateway.examples.inference --port {port}"
"""
