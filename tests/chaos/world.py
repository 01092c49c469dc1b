"""The system under test as separate programs, each on a machine of its own where that is permitted.

Two gateways, the first with two processes on one address; three agents, two for one function and
one for another, each with an inference server beside it; one nats-server. Clients reach the
gateways over the network "front"; the rest is on "back".
"""

import asyncio
import json
import os
import re
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from nats.aio.client import Client as NatsClient

from queueing.nats.jetstream import StreamSettings
from tests.chaos.client import Target
from tests.chaos.history import FaultKind, Gauge, Layout
from tests.chaos.parts import Part
from tests.chaos.redis_broker import ALONE, KINDS, MASTER, REPLICA, RESTS_S, SENTINELS, RedisBroker
from tests.support.nats_server import binary
from tests.support.network import Link, Machine, Network, mortal, why_not_permitted
from tests.support.stack import Demo, register
from tests.support.waiting import PATIENCE_S, until

FRONT, BACK = "front", "back"
MAX_CONCURRENCY = 4
LEASE_S = 2.0
MEBIBYTE = 1 << 20
MORE_DESCRIPTORS = 6
"""File descriptors that a part may have more than before the first fault."""
MORE_MEMORY = {"nats": 128 * MEBIBYTE}
"""Memory that a part may have more; the broker's runtime gives little back."""
MORE_MEMORY_OF_OTHERS = 24 * MEBIBYTE
IDLE_S = 2
"""Unused connections are closed after this time, so that what remains is a leak."""
EDGE_PORT, NATS_PORT, MONITOR_PORT = 18080, 14222, 18222
_ATTACH, _ADMIN, _INFERENCE = 18090, 18100, 19000
_SHARED_PROCESSES = 2
_BETWEEN_READS_S = 0.5
_SERIES = re.compile(r"^(\w+)(?:\{.*\})? (\S+)$", re.MULTILINE)


LAYOUT = Layout(
    gateways=("gateway-1", "gateway-2"),
    shared=("gateway-1",),
    agents={"function-1": ("agent-1", "agent-2"), "function-2": ("agent-3",)},
    servers={f"agent-{number}": f"inference-{number}" for number in (1, 2, 3)},
    max_concurrency=MAX_CONCURRENCY,
)
LAYOUTS = {
    "nats": LAYOUT,
    "redis": replace(LAYOUT, broker=ALONE, broker_kinds=KINDS, broker_rest_s=RESTS_S["redis"]),
    "sentinel": replace(
        LAYOUT,
        broker=MASTER,
        broker_kinds=(*KINDS, FaultKind.FAILOVER),
        broker_rest_s=RESTS_S["sentinel"],
        spares=(REPLICA, *SENTINELS),
    ),
}
"""The layout for each kind of queue."""


class World:
    """All parts by name.

    ``queue`` is a key of `LAYOUTS`. ``queue_storage`` is "memory", which the gateways choose, or
    "file". ``nodes`` are the NATS servers.
    """

    nodes: tuple[str, ...] = ("nats",)

    def __init__(self, folder: Path, queue: str, queue_storage: str) -> None:
        self.layout = LAYOUTS[queue]
        self.parts: dict[str, Part] = {}
        self.targets: dict[str, Target] = {}
        self.run_log = folder / "runs.jsonl"
        self.why_no_cuts = why_not_permitted()
        self._folder = folder
        self._queue = queue
        self._queue_storage = queue_storage
        self._redis: RedisBroker | None = None
        self._networks: dict[str, Network] = {}
        self._machines: list[Machine] = []
        self._loopback = os.urandom(2)
        self._addresses: dict[str, dict[str, str]] = {}
        self._baseline: dict[str, tuple[int, int]] = {}

    @property
    def links(self) -> dict[str, tuple[str, ...]]:
        """The names of the links of each target that can be cut."""
        found = {name: tuple(part.links) for name, part in self.parts.items() if part.links}
        if found:
            found |= dict.fromkeys((self.layout.broker, *self.layout.spares), (BACK,))
        return found

    async def start(self) -> None:
        """Start every part and wait until all serve."""
        if not self.why_no_cuts:
            self._networks = {FRONT: Network(), BACK: Network()}
            for network in self._networks.values():
                network.join_here()
        await self._start_broker()
        demos = {name: await self._register() for name in self.layout.agents}
        if self._queue != "nats":
            await self._start_redis()
        elif self._queue_storage == "file":
            for demo in demos.values():
                await self._create_stream(demo.version_id)
        for name in self.layout.gateways:
            self._add_gateway(name, _SHARED_PROCESSES if name in self.layout.shared else 1)
        for function, agents in self.layout.agents.items():
            for agent in agents:
                self._add_agent(agent, demos[function].function_id, demos[function].version_id)
        gateways = await self._entrances()
        # Each registration replaces the key of the one before.
        *_, last = demos.values()
        for function, demo in demos.items():
            self.targets[function] = Target(demo.function_id, last.api_key, gateways)
        rest = [name for name, part in self.parts.items() if not part.programs]
        await asyncio.gather(*(self._start(name) for name in rest))

    async def stop(self) -> None:
        for part in self.parts.values():
            if part.programs:
                part.kill()
        for namespace in (*self._machines, *self._networks.values()):
            namespace.close()

    async def part(self, target: str) -> Part:
        """Return the part that ``target`` is now."""
        found = await self._redis.part(target) if self._redis is not None else None
        return found or self.parts[target]

    async def do(self, kind: FaultKind, number: int, lasts_s: float) -> None:
        """Do to the broker what is none of a process's faults; return when it is over."""
        assert self._redis is not None
        await self._redis.do(kind, number, lasts_s)

    async def settled(self, timeout_s: float) -> bool:
        """Wait until the broker has recovered; return False if that takes longer."""
        return self._redis is None or await self._redis.settled(timeout_s)

    async def restored(self, timeout_s: float) -> bool:
        """Wait until the broker can do without one of its spares again."""
        return self._redis is None or await self._redis.restored(timeout_s)

    def take_baseline(self) -> None:
        """Remember what each part holds now."""
        self._baseline = {
            name: (part.descriptors(), part.resident_bytes()) for name, part in self.parts.items()
        }
        if self._redis is not None:
            # Each can become the master.
            servers = [self._baseline[name] for name in self._redis.servers]
            most = max(servers, key=lambda found: found[0])
            self._baseline |= dict.fromkeys(self._redis.servers, most)

    def gauges(self) -> list[Gauge]:
        """Return what each part holds now, with the most that it may."""
        if self._redis is not None:
            found = self._redis.gauges(len(self.layout.servers), MAX_CONCURRENCY)
        else:
            found = [one for node in self.nodes for one in self._broker_gauges(node)]
        for name in self.layout.gateways:
            for index in range(self.parts[name].processes):
                metrics = self._metrics(name, _ADMIN + index)
                pending = metrics.get("axum_http_requests_pending", inf)
                found.append(Gauge(f"{name}/{index}", "invocations in progress", pending, 0))
        for name in self.layout.servers:
            metrics = self._metrics(name, _ADMIN)
            slots = metrics.get("nvcf_worker_service_worker_thread_count_total", 0.0)
            found += [
                Gauge(name, "running jobs", metrics.get("worker_running_requests", inf), 0),
                Gauge(name, "slots without pulls", MAX_CONCURRENCY - slots, 0),
            ]
        for name, part in self.parts.items():
            descriptors, resident = self._baseline[name]
            memory = resident + MORE_MEMORY.get(name.partition("-")[0], MORE_MEMORY_OF_OTHERS)
            with suppress(OSError):
                found += [
                    Gauge(name, "descriptors", part.descriptors(), descriptors + MORE_DESCRIPTORS),
                    Gauge(name, "MiB", part.resident_bytes() >> 20, memory >> 20),
                ]
            found.append(Gauge(name, "ends after the last fault", float(not part.is_running), 0))
        return found

    @property
    def _nats_url(self) -> str:
        return f"nats://{self._addresses['nats'][BACK]}:{NATS_PORT}"

    async def _start_broker(self) -> None:
        self._add_broker()
        await self._start("nats")

    async def _register(self) -> Demo:
        return await register(self._nats_url)

    async def _entrances(self) -> dict[str, tuple[str, int]]:
        """Return where clients reach each gateway."""
        return {name: (self._addresses[name][FRONT], EDGE_PORT) for name in self.layout.gateways}

    async def _start(self, name: str) -> None:
        part = self.parts[name]
        part.start()
        assert await part.ready(PATIENCE_S), f"{name} does not start:\n{part.program.output}"

    def _machine(self, name: str, *networks: str) -> tuple[list[str], dict[str, Link]]:
        """Make a machine with an address in each network; return its prefix and its links."""
        if self.why_no_cuts:
            high, low = self._loopback
            address = f"127.{high}.{low}.{len(self._addresses) + 1}"
            self._addresses[name] = dict.fromkeys(networks, address)
            return mortal([]), {}
        machine = Machine()
        self._machines.append(machine)
        links = {network: machine.join(self._switch(name, network)) for network in networks}
        self._addresses[name] = {network: link.address for network, link in links.items()}
        return machine.prefix, links

    def _switch(self, _name: str, network: str) -> Network:
        """Return what joins a machine to a network."""
        return self._networks[network]

    def _settings_of(self, _name: str) -> dict[str, str]:
        """Return further settings of a gateway or an agent, without prefix."""
        return self._redis.settings if self._redis is not None else {}

    def _add_broker(self) -> None:
        prefix, links = self._machine("nats", BACK)
        address = self._addresses["nats"][BACK]
        conf = self._folder / "nats.conf"
        conf.write_text(
            f'listen: "{address}:{NATS_PORT}"\nhttp: "{address}:{MONITOR_PORT}"\n'
            f'jetstream {{ store_dir: "{self._folder / "store"}", max_mem: 1G, max_file: 1G }}\n'
        )
        argv = [*prefix, str(binary()), "-c", str(conf)]
        self.parts["nats"] = Part("nats", argv, {}, lambda line: "Server is ready" in line, links)

    async def _start_redis(self) -> None:
        def place(name: str) -> tuple[list[str], dict[str, Link], str]:
            prefix, links = self._machine(name, BACK)
            return prefix, links, self._addresses[name][BACK]

        redis = self._redis = RedisBroker(
            place,
            self._folder,
            has_sentinels=self._queue == "sentinel",
            is_kept=self._queue_storage == "file",
        )
        self.parts |= redis.parts
        for name in redis.parts:
            await self._start(name)
        assert await redis.restored(PATIENCE_S), "the replica does not follow the master"

    def _add_gateway(self, name: str, processes: int) -> None:
        prefix, links = self._machine(name, FRONT, BACK)
        front, back = self._addresses[name][FRONT], self._addresses[name][BACK]
        env = {
            "EDGE__LISTEN": f"{front}:{EDGE_PORT}",
            "ATTACH__LISTEN": f"{back}:{_ATTACH}",
            "ADMIN__LISTEN": f"{back}:{_ADMIN}",
            "NATS__URLS": self._nats_url,
            "ROLES": "invocation",
            "QUEUE__LEASE_S": str(LEASE_S),
            "DRAIN__TIMEOUT_S": "20",
        }
        if self._redis is not None:
            # A gateway that gives calls to free workers itself would leave little to the queue.
            is_direct = name not in self.layout.shared
            env["QUEUE__DIRECT"] = str(is_direct).lower()
        env |= self._settings_of(name)
        self.parts[name] = Part(
            name,
            [*prefix, sys.executable, "-m", "gateway", "serve", "--processes", str(processes)],
            {f"GATEWAY_{key}": value for key, value in env.items()},
            lambda line: '"event":"gateway.ready"' in line,
            links,
            processes,
        )

    def _add_agent(self, name: str, function_id: str, version_id: str) -> None:
        prefix, links = self._machine(name, BACK)
        address = self._addresses[name][BACK]
        env = {
            "NATS__URLS": self._nats_url,
            "FUNCTION__ID": function_id,
            "FUNCTION__VERSION_ID": version_id,
            "INFERENCE__HOST": address,
            "INFERENCE__PORT": str(_INFERENCE),
            "INFERENCE__MAX_CONCURRENCY": str(MAX_CONCURRENCY),
            "INFERENCE__IDLE_S": str(IDLE_S),
            "HEALTH__PATH": "/health",
            "HEALTH__INTERVAL_S": "1",
            "HEALTH__TIMEOUT_S": "2",
            "QUEUE__PROGRESS_S": str(LEASE_S / 4),
            "ATTACH__IDLE_S": str(IDLE_S),
            "DRAIN__TIMEOUT_S": "20",
            "ADMIN__LISTEN": f"{address}:{_ADMIN}",
        }
        env |= self._settings_of(name)
        server = self.layout.servers[name]
        program = [sys.executable, "-m", "tests.chaos.inference", server]
        self.parts[server] = Part(
            server,
            [*prefix, *program, f"{address}:{_INFERENCE}", str(self.run_log)],
            {},
            lambda line: line == "listening\n",
            {},
        )
        self.parts[name] = Part(
            name,
            [*prefix, sys.executable, "-m", "worker_agent"],
            {f"WORKER_{key}": value for key, value in env.items()},
            lambda line: '"event":"worker.ready"' in line,
            links,
        )

    async def _create_stream(self, version_id: str) -> None:
        """Create a queue in files; the gateways use what exists."""
        settings = StreamSettings(storage="file", ack_wait_s=LEASE_S).stream("local", version_id)
        client = NatsClient()
        await client.connect(self._nats_url)
        try:
            subject = f"$JS.API.STREAM.CREATE.{settings['name']}"
            response = await client.request(subject, json.dumps(settings).encode(), PATIENCE_S)
            assert "error" not in json.loads(response.data), response.data
        finally:
            await client.close()

    def _metrics(self, name: str, port: int) -> dict[str, float]:
        """Return the metrics of a process, each summed over its labels; empty if it is away."""
        try:
            text = fetched(f"http://{self._addresses[name][BACK]}:{port}/metrics")
        except OSError:
            return {}
        found: dict[str, float] = {}
        for series, value in _SERIES.findall(text):
            found[series] = found.get(series, 0.0) + float(value)
        return found

    def _broker_gauges(self, name: str) -> list[Gauge]:
        try:
            text = fetched(f"{self.monitor(name)}/jsz?accounts=1&streams=1&consumers=1")
        except OSError:
            return [Gauge(name, "monitors that do not respond", 1, 0)]
        document: dict[str, Any] = json.loads(text)
        streams = [
            stream
            for account in document.get("account_details", [])
            for stream in account.get("stream_detail", [])
            if stream["name"].startswith("rq_")
        ]
        consumers = [one for stream in streams for one in stream.get("consumer_detail") or []]
        return [
            Gauge(name, "queued messages", sum(s["state"]["messages"] for s in streams), 0),
            Gauge(name, "unacknowledged", sum(c["num_ack_pending"] for c in consumers), 0),
            Gauge(name, "undelivered", sum(c["num_pending"] for c in consumers), 0),
        ]

    def monitor(self, name: str) -> str:
        """Return the URL at which a NATS server tells about itself."""
        return f"http://{self._addresses[name][BACK]}:{MONITOR_PORT}"


def fetched(url: str) -> str:
    """Return what a part serves. Raises `OSError`."""
    with urllib.request.urlopen(url, timeout=5) as response:
        text: str = response.read().decode()
    return text


@asynccontextmanager
async def running_world(folder: Path, queue: str, queue_storage: str) -> AsyncIterator[World]:
    """Run all parts while the block runs."""
    world = World(folder, queue, queue_storage)
    try:
        await world.start()
        yield world
    finally:
        await world.stop()


async def settled(world: World, timeout_s: float) -> list[Gauge]:
    """Wait until no part holds more than it may; return what they hold then, or at the end."""
    gauges: list[Gauge] = []

    async def read() -> bool:
        nonlocal gauges
        gauges = await asyncio.to_thread(world.gauges)
        if all(gauge.value <= gauge.allowed for gauge in gauges):
            return True
        await asyncio.sleep(_BETWEEN_READS_S)
        return False

    with suppress(AssertionError):
        await until(read, bool, what="nothing left", timeout_s=timeout_s)
    return gauges
