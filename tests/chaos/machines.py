"""Thirteen machines: a front, three gateways, three NATS servers, six workers.

Clients reach the front over the network "front", and it the gateways. The servers are one cluster:
queues and store have three copies.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gateway.errors import StoreUnavailable
from tests.chaos.history import Layout
from tests.chaos.parts import Part
from tests.chaos.world import (
    BACK,
    EDGE_PORT,
    FRONT,
    MAX_CONCURRENCY,
    MONITOR_PORT,
    NATS_PORT,
    World,
    fetched,
)
from tests.support import proxies
from tests.support.nats_server import binary
from tests.support.network import Machine, why_not_permitted
from tests.support.stack import Demo, register
from tests.support.waiting import PATIENCE_S, until

NODES = ("nats-1", "nats-2", "nats-3")
GATEWAYS = ("gateway-1", "gateway-2", "gateway-3")
AGENTS = tuple(f"agent-{number}" for number in range(1, 7))
LAYOUT = Layout(
    gateways=GATEWAYS,
    shared=(),
    agents={"function-1": AGENTS[:3], "function-2": AGENTS[3:]},
    servers={agent: agent.replace("agent", "inference") for agent in AGENTS},
    max_concurrency=MAX_CONCURRENCY,
    broker=NODES[0],
    spares=NODES[1:],
)
_ROUTE_PORT = 16222
_FRONT_PORT = 80
_FILES = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}
"""The programs and their files in ``deploy/``."""
SYSCTLS = (
    "net.ipv4.tcp_keepalive_time=15",
    "net.ipv4.tcp_keepalive_intvl=10",
    "net.ipv4.tcp_keepalive_probes=3",
    "net.ipv4.tcp_retries2=7",
)
"""What docs/proxies.md asks of the kernel beside nginx."""


def why_no_machines(*programs: str) -> str:
    """Return why machines with these programs are not played here, empty if they are."""
    if "TEST_MACHINES" not in os.environ:
        return "run by make test-machines"
    if reason := why_not_permitted():
        return f"no network namespaces: {reason}"
    missing = [name for name in programs if proxies.find(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


class ClusterWorld(World):
    """A world with a cluster of three NATS servers, which has three copies of store and queues."""

    nodes = NODES
    layout: Layout

    def __init__(self, folder: Path, layout: Layout) -> None:
        super().__init__(folder, "nats", "memory")
        self.layout = layout

    async def restored(self, timeout_s: float) -> bool:
        """Wait until each server has all copies again; return False if that takes longer."""
        with suppress(AssertionError):
            await until(self._are_whole, timeout_s=timeout_s, what="all copies of the streams")
            return True
        return False

    async def _are_whole(self) -> bool:
        try:
            for node in NODES:
                await asyncio.to_thread(fetched, f"{self.monitor(node)}/healthz")
        except OSError:
            return False
        return True

    def url(self, node: str) -> str:
        """Return the URL of a server."""
        return f"nats://{self._addresses[node][BACK]}:{NATS_PORT}"

    @property
    def _nats_url(self) -> str:
        return ",".join(map(self.url, NODES))

    async def _start_broker(self) -> None:
        machines = {node: self._machine(node, BACK) for node in NODES}
        for node, (prefix, links) in machines.items():
            conf = self._folder / f"{node}.conf"
            conf.write_text(self._server_config(node))
            argv = [*prefix, str(binary()), "-c", str(conf)]
            self.parts[node] = Part(node, argv, {}, lambda line: "Server is ready" in line, links)
        await asyncio.gather(*map(self._start, NODES))
        assert await self.restored(PATIENCE_S), "the NATS servers are no cluster"

    def _server_config(self, node: str) -> str:
        address = self._addresses[node][BACK]
        routes = ", ".join(
            f'"nats-route://{self._addresses[other][BACK]}:{_ROUTE_PORT}"' for other in NODES
        )
        return (
            f'server_name: {node}\nlisten: "{address}:{NATS_PORT}"\n'
            f'http: "{address}:{MONITOR_PORT}"\n'
            f'jetstream {{ store_dir: "{self._folder / node}", max_mem: 1G, max_file: 1G }}\n'
            f'cluster {{ name: c, listen: "{address}:{_ROUTE_PORT}", routes: [{routes}] }}\n'
        )

    async def _register(self) -> Demo:
        async def registered() -> Demo | None:
            # A leader that was just elected does not know all servers yet.
            with suppress(StoreUnavailable):
                return await register(*map(self.url, NODES), replicas=len(NODES))
            return None

        found = await until(registered, what="three copies of the store")
        assert found is not None
        return found

    def _settings_of(self, name: str) -> dict[str, str]:
        return {"STORE__REPLICAS": str(len(NODES))} if name in self.layout.gateways else {}


class MachinesWorld(ClusterWorld):
    """All parts by name; ``front`` is the program in front of the gateways."""

    def __init__(self, folder: Path, front: str) -> None:
        """``front`` is a key of `_FILES`."""
        super().__init__(folder, LAYOUT)
        self._kind = front
        self.front: Part | None = None

    async def start(self) -> None:
        await super().start()
        host, port = next(iter(self.targets.values())).gateways[GATEWAYS[0]]

        async def is_open() -> bool:
            try:
                await asyncio.to_thread(fetched, f"http://{host}:{port}/health/ready")
            except OSError:
                return False
            return True

        await until(is_open, what="the front to reach a gateway")

    async def stop(self) -> None:
        if self.front is not None and self.front.programs:
            self.front.kill()
        await super().stop()

    async def _entrances(self) -> dict[str, tuple[str, int]]:
        machine = Machine()
        self._machines.append(machine)
        address = machine.join(self._networks[FRONT]).address
        folder = self._folder / "proxy"
        folder.mkdir()
        addresses = [f"{self._addresses[name][FRONT]}:{EDGE_PORT}" for name in self.layout.gateways]
        text = proxies.with_gateways(proxies.deployed(_FILES[self._kind]), addresses)
        command: Callable[[Path, str], list[str]] = proxies.haproxy_command
        if self._kind == "nginx":
            command = proxies.nginx_command
            machine.run("sysctl", "-qw", *SYSCTLS)
        argv = [*machine.prefix, *command(folder, text)]
        self.front = Part("front", argv, {}, bool, {})
        self.front.start()
        return dict.fromkeys(self.layout.gateways, (address, _FRONT_PORT))

    def _settings_of(self, name: str) -> dict[str, str]:
        settings = super()._settings_of(name)
        return settings | {"EDGE__TRUSTED_HOPS": "198.18.0.0/15"} if settings else {}
