"""Functions on a running `gateway dev`: created by CLI, invoked by HTTP, killed by pid."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from queueing.nats.connection import NatsConnection
from queueing.nats.jetstream import JetStream
from queueing.nats.login import ConnectionOptions
from tests.support.programs import descendants, gateway
from tests.support.waiting import PATIENCE_S, until
from wire.subjects import stream_name

SOON_S = PATIENCE_S / 20
"""Deadline for a change to become visible, in seconds: 1 unless ``TEST_PATIENCE`` is set."""
REGION = "local"


@dataclass(frozen=True)
class Instance:
    """The two processes of an instance, and the URL of its inference server."""

    instance_id: str
    inference_pid: int
    agent_pid: int
    url: str

    def kill(self, which: str) -> None:
        """Send SIGKILL to one of the two processes, ``agent`` or ``inference``."""
        os.kill(self.agent_pid if which == "agent" else self.inference_pid, signal.SIGKILL)

    async def is_healthy(self) -> bool:
        """Return whether the inference server responds to its health check with 200."""
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"{self.url}/health")).status_code == 200
        except httpx.TransportError:
            return False


@dataclass
class Live:
    """A running `gateway dev`.

    The inference server of a version does not start while ``folder`` contains a file with the
    version id as its name: see `inference_command`.
    """

    pid: int
    ready: Mapping[str, Any]
    folder: Path

    @property
    def url(self) -> str:
        return str(self.ready["api_url"])

    def client(self, key: str | None = None, **headers: str) -> httpx.AsyncClient:
        """Return an HTTP client for invocations and the API."""
        own = {"authorization": f"Bearer {key or self.ready['api_key']}", **headers}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        return httpx.AsyncClient(base_url=self.url, headers=own, timeout=PATIENCE_S, limits=limits)

    async def cli(self, *arguments: str, code: int = 0) -> str:
        """Run a command with the API's URL and key in its environment; return its output."""
        env = {"GATEWAY_API_URL": self.url, "GATEWAY_API_KEY": str(self.ready["api_key"])}
        program = gateway(*arguments, env=env)
        try:
            assert await asyncio.to_thread(program.wait_end) == code, program.output
        finally:
            program.process.kill()
        return program.output

    async def cli_json(self, *arguments: str) -> Any:
        """Run a command with ``--json``; return the parsed output."""
        return json.loads(await self.cli(*arguments, "--json"))

    def instances(self, version_id: str) -> list[Instance]:
        """Return the instances of a version whose two processes are both running."""
        agents: dict[str, tuple[int, str]] = {}
        inferences: dict[str, int] = {}
        for pid in descendants(self.pid):
            env = _environment(pid)
            if env.get("WORKER_FUNCTION__VERSION_ID") == version_id:
                port = env["WORKER_INFERENCE__PORT"]
                agents[env["WORKER_INSTANCE__ID"]] = pid, f"http://127.0.0.1:{port}"
            elif env.get("FUNCTION_VERSION_ID") == version_id:
                inferences[env["INSTANCE_ID"]] = pid
        return [
            Instance(instance_id, inferences[instance_id], *agent)
            for instance_id, agent in agents.items()
            if instance_id in inferences
        ]

    async def queued(self, version_id: str) -> set[str]:
        """Return the ids of the requests in a version's queue, leased ones included."""
        connection = NatsConnection(ConnectionOptions(servers=(str(self.ready["nats_url"]),)))
        connection.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await connection.wait_connected()
                info = await JetStream(connection).call(
                    f"STREAM.INFO.{stream_name(REGION, version_id)}", {"subjects_filter": ">"}
                )
        finally:
            await connection.close()
        return {subject.rpartition(".")[2] for subject in info["state"]["subjects"]}


@dataclass
class Version:
    """A function version, identified by its ids."""

    live: Live
    function_id: str
    version_id: str
    client: httpx.AsyncClient

    @property
    def names(self) -> tuple[str, str]:
        return self.function_id, self.version_id

    @property
    def path(self) -> str:
        return f"/v2/nvcf/functions/{self.function_id}/versions/{self.version_id}"

    @property
    def deployment(self) -> str:
        return f"/v2/nvcf/deployments/functions/{self.function_id}/versions/{self.version_id}"

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that select this version in an invocation."""
        return {"function-id": self.function_id, "function-version-id": self.version_id}

    async def show(self, **headers: str) -> dict[str, Any]:
        """Return the version's document from the API."""
        answer = await self.client.get(self.path, headers=headers)
        assert answer.status_code == 200, answer.text
        function: dict[str, Any] = answer.json()["function"]
        return function

    async def status(self) -> str:
        return str((await self.show())["status"])

    async def becomes(self, status: str, within_s: float) -> None:
        """Wait until the API reports this status."""
        await until(
            self.status,
            lambda found: found == status,
            what=f"the status {status}",
            timeout_s=within_s,
        )

    async def depth(self) -> int:
        """Return the queue depth that the API reports."""
        answer = await self.client.get(
            f"/v2/nvcf/queues/functions/{self.function_id}/versions/{self.version_id}"
        )
        assert answer.status_code == 200, answer.text
        return int(answer.json()["queues"][0]["queueDepth"])

    def hold_down(self) -> Path:
        """Prevent its inference servers from starting until the returned file is removed."""
        file = self.live.folder / self.version_id
        file.touch()
        return file


def inference_command(folder: Path) -> str:
    """Return the demo's server command; a file in ``folder`` prevents it from starting."""
    start = "exec {python} -P -m gateway.examples.inference --port {port}"
    return f"sh -c 'test ! -e {folder}/$FUNCTION_VERSION_ID && {start}'"


@asynccontextmanager
async def registered(live: Live, count: int = 1) -> AsyncIterator[list[Version]]:
    """Register a function with ``count`` versions by the CLI; delete them after the block."""
    what = ["--name", "live", "--image", "my-server", "--inference-url", "/echo"]
    what += ["--health-path", "/health"]
    async with live.client() as client:
        made = [await live.cli_json("functions", "create", *what)]
        function_id = made[0]["id"]
        try:
            while len(made) < count:
                made.append(await live.cli_json("functions", "version", function_id, *what))
            assert [document["status"] for document in made] == ["INACTIVE"] * count
            yield [Version(live, function_id, document["versionId"], client) for document in made]
        finally:
            for document in made:
                version = Version(live, function_id, document["versionId"], client)
                (live.folder / version.version_id).unlink(missing_ok=True)
                await client.delete(version.path)


@asynccontextmanager
async def deployed(
    live: Live, *options: str, count: int = 1, concurrency: int = 1
) -> AsyncIterator[list[Version]]:
    """Register a function and deploy its versions by the CLI; wait until they are ACTIVE."""
    async with registered(live, count) as versions:
        spec = ("--gpu", "CPU", "--concurrency", str(concurrency), *options)
        await asyncio.gather(
            *(
                live.cli("deployments", "create", *version.names, *spec, "--watch", "--json")
                for version in versions
            )
        )
        yield versions


def _environment(pid: int) -> dict[str, str]:
    """Return the environment of a process, empty when it has ended."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    pairs = (entry.decode(errors="replace").partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}
