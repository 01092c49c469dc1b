"""Kill parts while clients repeat calls with keys: ``python -m tests.chaos.keyed``.

Two gateways, the first with two processes, two agents with an inference server each, and one server
that has store and queues: nats-server, or Valkey with an append-only file. Every fault is a
SIGKILL. See docs/chaos.md. Exit status 1: a check was violated.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import httpx

from runtime.ids import new_uuid
from runtime.tasks import spawn
from tests.chaos.keyed_history import KEYED_CHECKS, KeyedFault, KeyedHistory, key_of
from tests.chaos.keyed_load import KeyedClients, PlannedAttempt, calm_attempts, keyed_attempts
from tests.chaos.parts import Part
from tests.support.free_ports import free_port, free_ports
from tests.support.nats_server import NatsServer, running_nats_server
from tests.support.network import mortal
from tests.support.redis_server import RedisServer, running_redis_server
from tests.support.stack import Demo, register
from tests.support.waiting import PATIENCE_S, until

GATEWAYS = ("gateway-1", "gateway-2")
AGENTS = ("agent-1", "agent-2")
SERVERS = ("inference-1", "inference-2")
STORE = "store"
SHARED = "gateway-1"
"""It has two processes, one of which may be killed alone."""
LEASE_S = 1.0
GAP_S = 1.2
"""Mean time between two faults."""
DEAD_S = 0.8
"""A killed part is started again after at most this time."""
STORE_EVERY = 5
"""Every so many faults hit the server of store and queues."""
FINAL_AT_ONCE = 8
"""Keys that are sent at the same time in the end."""


class KeyedWorld:
    """All parts, with store and queues at ``server``."""

    def __init__(self, folder: Path, server: NatsServer | RedisServer, demo: Demo) -> None:
        self.run_log = folder / "runs.jsonl"
        self.run_log.touch()
        self.parts: dict[str, Part] = {}
        self.server = server
        self.urls: dict[str, str] = {}
        self.headers = {
            "authorization": f"Bearer {demo.api_key}",
            "function-id": demo.function_id,
        }
        self._broker = (
            {"NATS__URLS": server.url}
            if isinstance(server, NatsServer)
            else {"REDIS__URLS": server.url, "QUEUE__BACKEND": "redis"}
        )
        for name in GATEWAYS:
            self._add_gateway(name, folder)
        for agent, inference in zip(AGENTS, SERVERS, strict=True):
            self._add_agent(agent, inference, demo, folder)

    def _add_gateway(self, name: str, folder: Path) -> None:
        processes = 2 if name == SHARED else 1
        edge, attach = free_ports(2)
        self.urls[name] = f"http://127.0.0.1:{edge}"
        env = {
            **self._broker,
            "EDGE__LISTEN": f"127.0.0.1:{edge}",
            # A worker may find the next process at the address of one that was killed, or not.
            "ATTACH__LISTEN": f"127.0.0.1:{0 if name == SHARED else attach}",
            "ADMIN__LISTEN": "127.0.0.1:0",
            "ROLES": "invocation",
            "QUEUE__LEASE_S": str(LEASE_S),
            "OBJECTS__FOLDER": str(folder / "objects"),
        }
        if "REDIS__URLS" in env:
            env["STORE__BACKEND"] = "redis"
        self.parts[name] = Part(
            name,
            [*mortal([]), sys.executable, "-m", "gateway", "serve", "--processes", str(processes)],
            {f"GATEWAY_{key}": value for key, value in env.items()},
            lambda line: '"event":"gateway.ready"' in line,
            {},
            processes,
        )

    def _add_agent(self, name: str, inference: str, demo: Demo, folder: Path) -> None:
        port = free_port()
        env = {
            **self._broker,
            "FUNCTION__ID": demo.function_id,
            "FUNCTION__VERSION_ID": demo.version_id,
            "INFERENCE__PORT": str(port),
            "INFERENCE__MAX_CONCURRENCY": "4",
            "INFERENCE__ASSET_DIR": str(folder / "assets"),
            "INFERENCE__LARGE_OUTPUT_DIR": str(folder / "responses"),
            "HEALTH__PATH": "/health",
            "HEALTH__INTERVAL_S": "1",
            "QUEUE__PROGRESS_S": str(LEASE_S / 4),
            "ADMIN__LISTEN": "127.0.0.1:0",
        }
        program = [*mortal([]), sys.executable, "-m", "tests.chaos.inference", inference]
        self.parts[inference] = Part(
            inference,
            [*program, f"127.0.0.1:{port}", str(self.run_log)],
            {},
            lambda line: line == "listening\n",
            {},
        )
        self.parts[name] = Part(
            name,
            [*mortal([]), sys.executable, "-m", "worker_agent"],
            {f"WORKER_{key}": value for key, value in env.items()},
            lambda line: '"event":"worker.ready"' in line,
            {},
        )

    async def start(self) -> None:
        """Start every part and wait until all serve."""
        for part in self.parts.values():
            part.start()
        for part in self.parts.values():
            assert await part.ready(PATIENCE_S), f"{part.name}:\n{part.program.output}"

    def stop(self) -> None:
        for part in self.parts.values():
            if part.programs:
                part.kill()

    async def kill(self, target: str, dead_s: float, *, is_one_process: bool) -> None:
        """Kill a part, and start it again."""
        if target == STORE:
            await self.server.kill()
            await asyncio.sleep(dead_s)
            await self.server.start()
            return
        part = self.parts[target]
        if is_one_process:
            part.kill_one_process(int(dead_s * 1000))
        else:
            await asyncio.to_thread(part.kill)
            await asyncio.sleep(dead_s)
            part.start()
        assert await part.ready(PATIENCE_S), f"{part.name}:\n{part.program.output}"

    def runs(self) -> list[int]:
        """Return the numbers of the requests that were begun."""
        entries = map(json.loads, self.run_log.read_text().splitlines())
        return [entry["number"] for entry in entries if entry["event"] == "start"]


@asynccontextmanager
async def running_keyed_world(store: str) -> AsyncIterator[KeyedWorld]:
    """Run all parts while the block runs; ``store`` is "nats" or "valkey"."""
    running = running_nats_server() if store == "nats" else running_redis_server(store, aof=True)
    with tempfile.TemporaryDirectory(prefix="keyed-") as folder:
        async with running as server:
            world = KeyedWorld(Path(folder), server, await register(server.url))
            try:
                await world.start()
                yield world
            finally:
                world.stop()


async def kill_parts(
    world: KeyedWorld, seed: int, duration_s: float, faults: list[KeyedFault]
) -> None:
    """Kill one part after the other."""
    random = Random(f"keyed faults {seed}")
    started_at, at_s = time.monotonic(), 0.0
    targets = (*GATEWAYS, *AGENTS, *SERVERS)
    count = 0
    while (at_s := at_s + random.uniform(0.4, 2 * GAP_S - 0.4)) < duration_s:
        count += 1
        target = random.choice(targets) if count % STORE_EVERY else STORE
        dead_s, is_one = random.uniform(0.1, DEAD_S), random.random() < 0.5
        await asyncio.sleep(started_at + at_s - time.monotonic())
        began_at = time.monotonic()
        await world.kill(target, dead_s, is_one_process=is_one and target == SHARED)
        faults.append(KeyedFault(target, began_at, time.monotonic()))


async def run_keyed(world: KeyedWorld, seed: int, duration_s: float) -> KeyedHistory:
    """Run load and faults; in the end send each key twice; return what happened."""
    clients = KeyedClients(world.urls, world.headers, f"key-{seed}")
    planned = list(keyed_attempts(seed, GATEWAYS, duration_s))
    faults: list[KeyedFault] = []
    killing = spawn(kill_parts(world, seed, duration_s, faults), "faults")
    started_at = time.monotonic()
    tasks = []
    for attempt in sorted(planned, key=lambda one: one.after_s):
        await asyncio.sleep(started_at + attempt.after_s - time.monotonic())
        tasks.append(spawn(clients.attempt(attempt), "attempt"))
    await asyncio.gather(*tasks, killing)
    await gateways_have_their_store(world)
    calm = list(calm_attempts(planned[-1].call.key + 1, GATEWAYS))
    await asyncio.gather(*map(clients.attempt, calm))
    planned += calm
    ran = {key_of(number): number for number in world.runs()}
    turns = asyncio.Semaphore(FINAL_AT_ONCE)
    last: dict[int, PlannedAttempt] = {}
    for attempt in planned:
        if ran.get(attempt.call.key, attempt.call.number) == attempt.call.number:
            last.setdefault(attempt.call.key, attempt)
    await asyncio.gather(*(_send_finally(clients, one, turns) for one in last.values()))
    await clients.close()
    return KeyedHistory(clients.attempts, world.runs(), faults, GATEWAYS, (STORE,))


async def gateways_have_their_store(world: KeyedWorld) -> None:
    """Wait until each gateway reads the store again, which was killed perhaps at the very end."""
    # Each request on a connection of its own, so that it meets every process.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(
        headers=world.headers, timeout=PATIENCE_S, limits=limits
    ) as client:
        for url in world.urls.values():

            async def read(url: str = url) -> set[int]:
                target = f"{url}/v2/requests/{new_uuid()}"
                return {(await client.get(target)).status_code for _ in range(16)}

            await until(read, lambda found: found == {404}, what="a gateway with its store")


async def _send_finally(
    clients: KeyedClients, planned: PlannedAttempt, turns: asyncio.Semaphore
) -> None:
    async with turns:
        for gateway in GATEWAYS:
            await clients.attempt(PlannedAttempt(0.0, planned.call, gateway), is_final=True)


def figures(history: KeyedHistory) -> str:
    """Return how many attempts ended in which way, and how many faults hit what."""
    outcomes = Counter(
        f"{'final ' if a.is_final else ''}{a.outcome}{' replayed' if a.is_replayed else ''}"
        for a in history.attempts
    )
    outcomes.update(f"{'final ' if a.is_final else ''}polled" for a in history.attempts if a.polls)
    hit = Counter(fault.target for fault in history.faults)
    lines = [f"{len(history.of_key())} keys, {len(history.runs)} runs"]
    lines += [f"{count:6} {what}" for what, count in sorted(outcomes.items())]
    lines += [f"{count:6} x {target} killed" for target, count in sorted(hit.items())]
    return "\n".join(lines)


async def run_and_check(store: str, seed: int, duration_s: float) -> list[str]:
    """Run once, print the figures, and return the violations."""
    async with running_keyed_world(store) as world:
        history = await run_keyed(world, seed, duration_s)
    found = [f"{check.__name__}: {text}" for check in KEYED_CHECKS for text in check(history)]
    write(f"seed {seed}, {duration_s:g} s, store {store}\n{figures(history)}")
    return found


def write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.keyed")
    parser.add_argument("--minutes", type=float, default=0.15)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--store", choices=("nats", "valkey"), default="nats")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    violations = asyncio.run(run_and_check(given.store, given.seed, 60 * given.minutes))
    write("\n".join(violations) or "no violation")
    sys.exit(bool(violations))
