"""The measured figures, and their results in all rounds. Pure.

A row is one scenario, which yields several figures. A row that fails for a system in any round has
no figures for that system: a measurement with errors is not valid.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from loadtests.stats import Spread, spread

DIRECT = "direct"
NGINX = "nginx"
AIOHTTP = "aiohttp"
GATEWAY = "gateway"
GATEWAY_10 = "gateway-10"
"""The gateway with 10 functions in its store, compared with one that has very many."""
BEFORE = "before"
"""The gateway of an older revision, with ``--against``."""
ON_NATS = "on-nats"
"""The gateway with every call through the queue, on NATS, with ``--queue``."""
ON_REDIS = "on-redis"
"""The same with the queue on Redis."""
BACKENDS = (ON_NATS, ON_REDIS)
SYSTEMS = (DIRECT, NGINX, AIOHTTP, GATEWAY_10, BEFORE, GATEWAY, *BACKENDS)

ROWS = {
    "latency": "Small invocation, 1 connection",
    "throughput": "Small invocation, 64 connections",
    "http2": "Small invocation, HTTP/2, 8 connections of 8 streams",
    "grpc": "Unary gRPC call, 8 connections of 8 streams",
    "queued": "Invocation of 2 ms, 64 connections, 4 slots",
    "sse": "Server-sent events, 4 streams of 2,500 events/s",
    "leave": "A client that leaves",
    "transfer": "100 MB bodies",
    "idle": "An idle gateway",
    "held": "Waiting invocations held open",
    "streams": "HTTP/2, 100 streams on each connection",
    "websockets": "Idle WebSockets",
    "channels": "Idle channels, 16 gateway processes and 200 agents",
    "many": "Very many functions in the store",
}
ONLY_SYSTEMS = {
    "http2": (GATEWAY,),
    "grpc": (GATEWAY,),
    "queued": (BEFORE, GATEWAY, *BACKENDS),
    "idle": (BEFORE, GATEWAY),
    "held": (NGINX, AIOHTTP, BEFORE, GATEWAY),
    "streams": (GATEWAY,),
    "websockets": (GATEWAY,),
    "channels": (GATEWAY,),
    "many": (GATEWAY_10, GATEWAY),
}
"""The systems of a row that is not measured for all."""
_OF_BACKENDS = frozenset({"latency", "throughput", "queued"})
"""The rows of `BACKENDS`: what the queue has to do with."""


def is_measured(row: str, system: str) -> bool:
    """Return whether the row says something about this system."""
    if system in BACKENDS and row not in _OF_BACKENDS:
        return False
    return system in ONLY_SYSTEMS.get(row, SYSTEMS)


class Figure(NamedTuple):
    """One line of the table.

    With ``added`` the figure is derived, not measured: the value of the figure ``added`` minus that
    of `DIRECT` in the same round.
    """

    key: str
    row: str
    title: str
    unit: str
    decimals: int = 0
    added: str = ""


FIGURES = (
    Figure("latency_p50", "latency", "p50", "µs"),
    Figure("latency_p99", "latency", "p99", "µs"),
    Figure("latency_added_p50", "latency", "p50 added to direct", "µs", added="latency_p50"),
    Figure("latency_added_p99", "latency", "p99 added to direct", "µs", added="latency_p99"),
    Figure("throughput", "throughput", "throughput", "req/s"),
    Figure("cpu_front", "throughput", "CPU, gateway or proxy", "µs/req", 1),
    Figure("cpu_agent", "throughput", "CPU, worker agent", "µs/req", 1),
    Figure("cpu_broker", "throughput", "CPU, broker", "µs/req", 1),
    Figure("cpu_programs", "throughput", "CPU, gateway, worker agent", "µs/req", 1),
    Figure("cpu_all", "throughput", "CPU, gateway, worker agent, broker", "µs/req", 1),
    Figure("cpu_inference", "throughput", "CPU, inference server", "µs/req", 1),
    Figure("http2_throughput", "http2", "throughput", "req/s"),
    Figure("http2_ratio", "http2", "throughput, times that of HTTP/1.1", "x", 2),
    Figure("http2_cpu_front", "http2", "CPU, gateway", "µs/req", 1),
    Figure("http2_cpu_ratio", "http2", "CPU, gateway, times that of HTTP/1.1", "x", 2),
    Figure("grpc_throughput", "grpc", "throughput", "calls/s"),
    Figure("grpc_cpu_all", "grpc", "CPU, gateway, worker agent, broker", "µs/call", 1),
    Figure("grpc_cpu_ratio", "grpc", "the same, times that over HTTP/1.1", "x", 2),
    Figure("queued_throughput", "queued", "throughput", "req/s"),
    Figure("queued_p50", "queued", "p50", "ms", 2),
    Figure("queued_p99", "queued", "p99", "ms", 2),
    Figure("queued_cpu_front", "queued", "CPU, gateway", "µs/req", 1),
    Figure("queued_cpu_agent", "queued", "CPU, worker agent", "µs/req", 1),
    Figure("queued_cpu_broker", "queued", "CPU, broker", "µs/req", 1),
    Figure("queued_cpu_programs", "queued", "CPU, gateway, worker agent", "µs/req", 1),
    Figure("queued_cpu_all", "queued", "CPU, gateway, worker agent, broker", "µs/req", 1),
    Figure("sse_rate", "sse", "events/s, slowest stream", "/s"),
    Figure("sse_share", "sse", "share of the asked rate, slowest stream", "%", 1),
    Figure("sse_p50", "sse", "delay p50", "µs"),
    Figure("sse_p99", "sse", "delay p99", "µs"),
    Figure("sse_added_p50", "sse", "delay p50 added to direct", "µs", added="sse_p50"),
    Figure("sse_added_p99", "sse", "delay p99 added to direct", "µs", added="sse_p99"),
    Figure("sse_merged", "sse", "events per read at the client", "", 2),
    Figure("sse_cpu_front", "sse", "CPU, gateway or proxy", "µs/event", 1),
    Figure("sse_cpu_agent", "sse", "CPU, worker agent", "µs/event", 1),
    Figure("sse_cpu_all", "sse", "CPU, gateway and worker agent", "µs/event", 1),
    Figure("leave_p50", "leave", "inference server's connection closed, p50", "ms", 2),
    Figure("leave_p99", "leave", "inference server's connection closed, p99", "ms", 2),
    Figure("down", "transfer", "down", "MB/s"),
    Figure("up", "transfer", "up", "MB/s"),
    Figure("idle_rss", "idle", "resident memory, all gateway processes", "MB", 1),
    Figure("idle_pss", "idle", "the same, shared pages divided (PSS)", "MB", 1),
    Figure("idle_alone_rss", "idle", "resident memory, a process for invocations alone", "MB", 1),
    Figure("idle_alone_pss", "idle", "the same, shared pages divided (PSS)", "MB", 1),
    Figure("held_kib", "held", "memory of gateway or proxy", "KiB/req", 1),
    Figure("streams_mb", "streams", "memory, 10,000 waiting calls", "MB", 1),
    Figure("streams_share", "streams", "share of the asked rate, 100 event streams", "%", 1),
    Figure("websocket_kib", "websockets", "memory of gateway and worker agent", "KiB/socket", 1),
    Figure("channels_kib", "channels", "memory in the gateway processes", "KiB/channel", 1),
    Figure("channels_cpu", "channels", "CPU of all heartbeats, both ends", "% of a core", 2),
    Figure("many_ready", "many", "ready after a restart", "s", 2),
    Figure("many_memory", "many", "memory, largest gateway process", "MB"),
    Figure("many_memory_all", "many", "memory, all gateway processes", "MB"),
    Figure("many_list_p50", "many", "first page of a list, p50", "ms", 1),
    Figure("many_list_p99", "many", "first page of a list, p99", "ms", 1),
)
_BY_KEY = {figure.key: figure for figure in FIGURES}


class Failure(NamedTuple):
    round_number: int
    system: str
    row: str
    reason: str


class Results:
    """The figures of one run, by round, system and key."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self._rounds: dict[int, dict[tuple[str, str], float]] = {}

    def add(self, round_number: int, system: str, figures: Mapping[str, float]) -> None:
        measured = self._rounds.setdefault(round_number, {})
        for key, value in figures.items():
            if key not in _BY_KEY or _BY_KEY[key].added:
                raise KeyError(f"{key!r} is no measured figure")
            measured[system, key] = value

    def fail(self, round_number: int, system: str, row: str, reason: str) -> None:
        self.failures.append(Failure(round_number, system, row, reason))

    def failed(self, system: str, row: str) -> bool:
        return any(each.system == system and each.row == row for each in self.failures)

    def values(self, system: str, key: str) -> list[float]:
        """Return the values of a figure by round; empty if its row failed."""
        figure = _BY_KEY[key]
        if self.failed(system, figure.row):
            return []
        if figure.added:
            if system == DIRECT:
                return []
            return self._combine((system, figure.added), (DIRECT, figure.added), float.__sub__)
        return [each[system, key] for each in self._ordered() if (system, key) in each]

    def spread(self, system: str, key: str) -> Spread | None:
        values = self.values(system, key)
        return spread(values) if values else None

    def ratios(self, key: str, system: str, to: str) -> Spread | None:
        """Return the spread of the rounds' ratios between two systems."""
        row = _BY_KEY[key].row
        if self.failed(system, row) or self.failed(to, row):
            return None
        ratios = self._combine((system, key), (to, key), float.__truediv__)
        return spread(ratios) if ratios else None

    def ratio(self, key: str, system: str, to: str) -> float | None:
        """Return the median of the rounds' ratios between two systems."""
        ratios = self.ratios(key, system, to)
        return None if ratios is None else ratios.median

    def systems(self) -> Sequence[str]:
        """Return the systems that were measured or failed, in the order of the table."""
        tried = {system for each in self._rounds.values() for system, _ in each}
        tried.update(failure.system for failure in self.failures)
        return [system for system in SYSTEMS if system in tried]

    def _ordered(self) -> list[dict[tuple[str, str], float]]:
        return [self._rounds[number] for number in sorted(self._rounds)]

    def _combine(
        self,
        left: tuple[str, str],
        right: tuple[str, str],
        operation: Callable[[float, float], float],
    ) -> list[float]:
        return [
            operation(float(each[left]), float(each[right]))
            for each in self._ordered()
            if left in each and right in each
        ]
