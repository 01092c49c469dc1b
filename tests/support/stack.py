"""The system as separate programs, for tests that kill some of them."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx

from gateway.auth.keys import RANDOM_BYTES, digest_of, new_key
from gateway.dev.functions import ACCOUNT
from gateway.domain.model import ApiKey, Function, FunctionVersion, VersionState
from gateway.domain.principal import INVOKE
from runtime.ids import new_uuid
from runtime.tasks import spawn
from tests.support.followed_store import opened
from tests.support.inference_server import InferenceServer
from tests.support.nats_server import NatsServer
from tests.support.programs import Program, gateway, worker_agent
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE_S, until
from wire.ids import FunctionId, VersionId

LEASE_S = 1
"""Lease duration in seconds; short, because some tests wait until a lease expires."""

Result = TypeVar("Result")


class Demo(NamedTuple):
    """A function, and a key for it."""

    function_id: str
    version_id: str
    api_key: str


class Stack:
    """A broker, an inference server, and the gateways and agents that a test starts.

    The broker is nats-server or, for ``kind`` "valkey", a valkey-server that holds the store too.
    """

    def __init__(self, folder: Path, kind: str = "nats") -> None:
        self.nats = NatsServer(folder)
        self._valkey = RedisServer(kind, folder=folder) if kind != "nats" else None
        self.inference = InferenceServer()
        self.demo = Demo("", "", "")
        self._programs: list[Program] = []

    async def start(self) -> None:
        broker = self._valkey or self.nats
        await broker.start()
        await self.inference.start()
        self.demo = await register(broker.url)

    async def stop(self) -> None:
        for program in self._programs:
            program.process.kill()
            program.wait_end()
        await self.inference.kill()
        await (self._valkey or self.nats).kill()

    def keep(self, program: Program) -> None:
        """Take over a program that runs: `stop` ends it."""
        self._programs.append(program)

    def gateway(self, *arguments: str, **settings: str) -> "Gateway":
        """Start a gateway and wait until it is ready; ``settings`` as in `starting_gateway`."""
        program = self.starting_gateway(*arguments, **settings)
        return Gateway(program, program.wait_event("gateway.ready"), self.demo)

    def starting_gateway(self, *arguments: str, **settings: str) -> Program:
        """Start a gateway; ``settings`` are environment variables without their prefix."""
        env = {
            "EDGE__LISTEN": "127.0.0.1:0",
            "ATTACH__LISTEN": "127.0.0.1:0",
            "ADMIN__LISTEN": "127.0.0.1:0",
            **self._broker(),
            "ROLES": "invocation",
            "QUEUE__LEASE_S": str(LEASE_S),
            "DRAIN__GRACE_S": "0",
            **({"STORE__BACKEND": "redis"} if self._valkey else {}),
            **settings,
        }
        program = gateway(
            "serve", *arguments, env={f"GATEWAY_{name}": value for name, value in env.items()}
        )
        self._programs.append(program)
        return program

    def agent(self, **settings: str) -> Program:
        """Start a worker agent and wait until it is ready."""
        program = self.starting_agent(**settings)
        program.wait_event("worker.ready")
        return program

    def starting_agent(self, **settings: str) -> Program:
        """Start a worker agent; ``settings`` are environment variables without their prefix."""
        env = {
            **self._broker(),
            "FUNCTION__ID": self.demo.function_id,
            "FUNCTION__VERSION_ID": self.demo.version_id,
            "INFERENCE__PORT": str(self.inference.port),
            "INFERENCE__MAX_CONCURRENCY": "4",
            "HEALTH__PATH": "/health",
            "QUEUE__PROGRESS_S": str(LEASE_S / 4),
            "ADMIN__LISTEN": "127.0.0.1:0",
            **settings,
        }
        program = worker_agent({f"WORKER_{name}": value for name, value in env.items()})
        self._programs.append(program)
        return program

    def _broker(self) -> dict[str, str]:
        if self._valkey is None:
            return {"NATS__URLS": self.nats.url}
        return {"REDIS__URLS": self._valkey.url, "QUEUE__BACKEND": "redis"}

    def direct(self) -> httpx.AsyncClient:
        """Return an HTTP client for the inference server."""
        return httpx.AsyncClient(base_url=self.inference.url, timeout=PATIENCE_S)


class Gateway:
    """One running gateway."""

    def __init__(self, program: Program, ready: dict[str, Any], demo: Demo) -> None:
        self.program = program
        self.url = f"http://{ready['listen'][0]}"
        self.admin_url = f"http://{ready['admin']}"
        self.headers = {
            "authorization": f"Bearer {demo.api_key}",
            "function-id": demo.function_id,
        }

    def client(self, **headers: str) -> httpx.AsyncClient:
        own = {**self.headers, **headers}
        return httpx.AsyncClient(base_url=self.url, headers=own, timeout=PATIENCE_S)


def start(call: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
    """Let a call run while the test goes on."""
    return spawn(call, "call")


async def metrics(url: str) -> dict[str, float]:
    """Return the metrics of a program, without those that have labels."""
    async with httpx.AsyncClient() as client:
        lines = (await client.get(f"{url}/metrics")).text.splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


async def dispatched(gateway: Gateway, way: str) -> float:
    return (await metrics(gateway.admin_url))[f'gateway_dispatched_total{{dispatch="{way}"}}']


async def until_waiting(gateway: Gateway, count: int) -> None:
    """Wait until so many calls of ``gateway`` wait in the queue."""

    async def depth() -> float:
        found = await metrics(gateway.admin_url)
        return sum(n for name, n in found.items() if name.startswith("gateway_queue_depth{"))

    await until(depth, lambda found: found == count, what=f"{count} waiting calls")


async def runs_of(agent: Program) -> float:
    """Return how many requests an agent has begun to run."""
    port = agent.wait_event("worker.ready")["admin_port"]
    found = await metrics(f"http://127.0.0.1:{port}")
    begun = "nvcf_worker_service_request_total"
    return sum(value for name, value in found.items() if name.startswith(begun))


async def running_at_inference(stack: Stack, count: int) -> None:
    """Wait until ``count`` requests are at the inference server."""
    async with stack.direct() as direct:
        found = await direct.get(f"/running?until={count}")
        assert found.json()["running"] == count


@asynccontextmanager
async def running_stack(kind: str = "nats") -> AsyncIterator[Stack]:
    """Run broker and inference server while the block runs; a function is registered."""
    with tempfile.TemporaryDirectory(prefix="stack-") as folder:
        stack = Stack(Path(folder), kind)
        try:
            await stack.start()
            yield stack
        finally:
            await stack.stop()


async def register(
    url: str, max_body_bytes: int = 0, *, passes_interim: bool = False, account: str = ACCOUNT
) -> Demo:
    """Write an ACTIVE function and a key for it directly into the store."""
    function_id = FunctionId(new_uuid())
    version_id = VersionId(new_uuid())
    api_key = new_key(os.urandom(RANDOM_BYTES))
    async with opened(url) as store:
        await store.prepare()
        await store.put(Function(function_id, account))
        await store.put(
            FunctionVersion(
                function_id,
                version_id,
                account,
                "demo",
                VersionState.ACTIVE,
                max_body_bytes=max_body_bytes,
                passes_interim=passes_interim,
            )
        )
        digest = digest_of(api_key.encode())
        await store.put(ApiKey("demo", digest, account, "demo", frozenset({INVOKE})))
    return Demo(function_id, version_id, api_key)
