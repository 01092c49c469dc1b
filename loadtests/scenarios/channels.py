"""Idle channels: 16 gateway processes and 200 agents, each connected with each.

The gateway processes have nothing but channels. The agents are objects in few processes, because
a process for each would not fit a machine.
"""

import sys
import time
from collections.abc import Iterable
from typing import Final

from loadtests.children import Child, Children
from loadtests.peers.channels import OPENED
from loadtests.proc import memory_of, on_cpu_s
from loadtests.systems import accepts, free_port

GATEWAYS: Final = 16
AGENTS: Final = 200
_START_S = 60.0
_SETTLE_S = 3.0


def channels(children: Children, idle_s: float) -> dict[str, float]:
    """Return the memory per channel in KiB, and the CPU that all heartbeats use, in % of a core.

    CPU is that of all processes in ``idle_s`` less that of the gateway processes without channels.
    Memory is what as many channels again add to the gateway processes: the first ones may fit into
    memory that these have free. Raises `loadtests.children.StartError`.
    """
    started: list[Child] = []
    try:
        ports = [free_port() for _ in range(GATEWAYS)]
        started += [_start(children, "channels-gateway", ["--port", str(port)]) for port in ports]
        for child, port in zip(started, ports, strict=True):
            child.wait_until(lambda port=port: accepts(port), _START_S)  # type: ignore[misc]
        gateways = [child.pid for child in started]
        time.sleep(_SETTLE_S)
        alone_s = _used_s(gateways, idle_s)
        _open(children, started, ports)
        connected_s = _used_s([child.pid for child in started], idle_s)
        before_bytes = memory_of(gateways).rss
        _open(children, started, ports)
        grown_bytes = memory_of(gateways).rss - before_bytes
    finally:
        children.stop(started)
    return {
        "channels_kib": grown_bytes / (GATEWAYS * AGENTS) / 1024,
        "channels_cpu": max(connected_s - alone_s, 0.0) / idle_s * 100,
    }


def _open(children: Children, started: list[Child], ports: Iterable[int]) -> None:
    """Start a process of `AGENTS` agents, and wait until its channels are open."""
    targets = [word for port in ports for word in ("--to", str(port))]
    agents = _start(children, "channels-agents", ["--agents", str(AGENTS), *targets])
    started.append(agents)
    agents.wait_until(lambda: agents.has_logged(OPENED), _START_S)
    time.sleep(_SETTLE_S)


def _start(children: Children, name: str, options: list[str]) -> Child:
    return children.start(name, [sys.executable, "-m", "loadtests.peers.channels", *options])


def _used_s(pids: Iterable[int], duration_s: float) -> float:
    """Return the CPU seconds that these processes use together within ``duration_s``."""
    pids = list(pids)
    before_s = sum(map(on_cpu_s, pids))
    time.sleep(duration_s)
    return sum(map(on_cpu_s, pids)) - before_s
