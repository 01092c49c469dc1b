"""The bars: limits that the gateway's figures of a run must hold. Pure."""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from loadtests.figures import (
    AIOHTTP,
    BEFORE,
    FIGURES,
    GATEWAY,
    GATEWAY_10,
    ON_NATS,
    ON_REDIS,
    Results,
)


class BarOutcome(Enum):
    PASS = "PASS"
    FAIL = "FAIL"
    NOT_MEASURED = "not measured"


class Bar(NamedTuple):
    """A limit on one figure. ``measure`` returns ``None`` if the run did not give the figure.

    ``needs`` are the (system, row) pairs that the bar depends on; if one of them failed, the bar is
    missed.
    """

    title: str
    unit: str
    limit: float
    at_least: bool
    needs: tuple[tuple[str, str], ...]
    measure: Callable[[Results], float | None]


class Verdict(NamedTuple):
    bar: Bar
    measured: float | None
    outcome: BarOutcome


def _of_gateway(key: str) -> Callable[[Results], float | None]:
    def measure(results: Results) -> float | None:
        spread = results.spread(GATEWAY, key)
        return None if spread is None else spread.median

    return measure


def _worst_of_gateway(key: str) -> Callable[[Results], float | None]:
    def measure(results: Results) -> float | None:
        spread = results.spread(GATEWAY, key)
        return None if spread is None else spread.low

    return measure


def _ratio_to_aiohttp(key: str) -> Callable[[Results], float | None]:
    return lambda results: results.ratio(key, GATEWAY, AIOHTTP)


def _both(row: str) -> tuple[tuple[str, str], ...]:
    return ((GATEWAY, row), (AIOHTTP, row))


def _gateway(row: str) -> tuple[tuple[str, str], ...]:
    return ((GATEWAY, row),)


BARS = (
    Bar(
        "throughput at 64 connections, times aiohttp's",
        "x",
        2.4,
        at_least=True,
        needs=_both("throughput"),
        measure=_ratio_to_aiohttp("throughput"),
    ),
    Bar(
        "p50 at 1 connection, times aiohttp's",
        "x",
        0.8,
        at_least=False,
        needs=_both("latency"),
        measure=_ratio_to_aiohttp("latency_p50"),
    ),
    Bar(
        "gateway CPU per small invocation",
        "µs",
        100.0,
        at_least=False,
        needs=_gateway("throughput"),
        measure=_of_gateway("cpu_front"),
    ),
    Bar(
        "agent CPU per small invocation",
        "µs",
        100.0,
        at_least=False,
        needs=_gateway("throughput"),
        measure=_of_gateway("cpu_agent"),
    ),
    Bar(
        "throughput over HTTP/2, times that over HTTP/1.1",
        "x",
        0.75,
        at_least=True,
        needs=_gateway("http2"),
        measure=_of_gateway("http2_ratio"),
    ),
    Bar(
        "gateway CPU over HTTP/2, times that over HTTP/1.1",
        "x",
        1.6,
        at_least=False,
        needs=_gateway("http2"),
        measure=_of_gateway("http2_cpu_ratio"),
    ),
    Bar(
        "CPU of a unary gRPC call, times that over HTTP/1.1",
        "x",
        2.0,
        at_least=False,
        needs=_gateway("grpc"),
        measure=_of_gateway("grpc_cpu_ratio"),
    ),
    Bar(
        "gateway memory, 10,000 waiting calls on 100 connections",
        "MB",
        150.0,
        at_least=False,
        needs=_gateway("streams"),
        measure=_of_gateway("streams_mb"),
    ),
    Bar(
        "25 events/s on each of 100 streams of a connection, worst round",
        "%",
        98.0,
        at_least=True,
        needs=_gateway("streams"),
        measure=_worst_of_gateway("streams_share"),
    ),
    Bar(
        "gateway and agent memory per idle WebSocket",
        "KiB",
        40.0,
        at_least=False,
        needs=_gateway("websockets"),
        measure=_of_gateway("websocket_kib"),
    ),
    Bar(
        "gateway memory per waiting invocation",
        "KiB",
        12.0,
        at_least=False,
        needs=_gateway("held"),
        measure=_of_gateway("held_kib"),
    ),
    Bar(
        "gateway CPU per server-sent event",
        "µs",
        25.0,
        at_least=False,
        needs=_gateway("sse"),
        measure=_of_gateway("sse_cpu_front"),
    ),
    Bar(
        "2,500 events/s on each of 4 streams, worst round",
        "%",
        99.0,
        at_least=True,
        needs=_gateway("sse"),
        measure=_worst_of_gateway("sse_share"),
    ),
    Bar(
        "memory of an idle gateway process for invocations alone",
        "MB",
        40.0,
        at_least=False,
        needs=_gateway("idle"),
        measure=_of_gateway("idle_alone_rss"),
    ),
    Bar(
        "memory of an idle channel in the gateway",
        "KiB",
        8.0,
        at_least=False,
        needs=_gateway("channels"),
        measure=_of_gateway("channels_kib"),
    ),
    Bar(
        "CPU of the heartbeats of 3,200 channels",
        "%",
        1.0,
        at_least=False,
        needs=_gateway("channels"),
        measure=_of_gateway("channels_cpu"),
    ),
    Bar(
        "gateway ready with very many functions",
        "s",
        10.0,
        at_least=False,
        needs=_gateway("many"),
        measure=_of_gateway("many_ready"),
    ),
    Bar(
        "gateway process's memory with very many functions",
        "MB",
        300.0,
        at_least=False,
        needs=_gateway("many"),
        measure=_of_gateway("many_memory"),
    ),
    Bar(
        "first page of very many functions, p99",
        "ms",
        100.0,
        at_least=False,
        needs=_gateway("many"),
        measure=_of_gateway("many_list_p99"),
    ),
    Bar(
        "gateway CPU per small invocation, times that with 10 functions",
        "x",
        1.1,
        at_least=False,
        needs=((GATEWAY, "throughput"), (GATEWAY_10, "throughput")),
        measure=lambda results: results.ratio("cpu_front", GATEWAY, GATEWAY_10),
    ),
)


def _against(title: str, key: str, limit: float, *, at_least: bool = False) -> Bar:
    row = next(figure.row for figure in FIGURES if figure.key == key)
    return Bar(
        title,
        "x",
        limit,
        at_least,
        needs=((GATEWAY, row), (BEFORE, row)),
        measure=lambda results: results.ratio(key, GATEWAY, BEFORE),
    )


AGAINST = (
    _against("CPU of gateway, agent and broker, slots free", "cpu_all", 0.30),
    _against("CPU of the gateway, slots free", "cpu_front", 0.35),
    _against("throughput at 64 connections", "throughput", 3.0, at_least=True),
    _against("p50 at 1 connection", "latency_p50", 0.40),
    _against("p99 at 1 connection", "latency_p99", 0.40),
    _against("CPU of gateway, agent and broker, slots busy", "queued_cpu_all", 0.90),
    _against("p50 at 64 connections, slots busy", "queued_p50", 0.90),
    _against("CPU of the broker, slots busy", "queued_cpu_broker", 0.65),
    _against("delay of an event, p50", "sse_p50", 0.55),
    _against("delay of an event, p99", "sse_p99", 0.55),
    _against("CPU of gateway and agent per event", "sse_cpu_all", 0.70),
    _against("memory per waiting invocation", "held_kib", 1.0),
    _against("memory of all idle gateway processes", "idle_rss", 0.50),
    _against("close after a client left, p50", "leave_p50", 0.25),
)
"""Ratios to the last build in which every invocation went through the queue (``--against``)."""


def _of_redis(title: str, key: str, limit: float) -> Bar:
    row = next(figure.row for figure in FIGURES if figure.key == key)
    return Bar(
        f"{title}, times that on NATS",
        "x",
        limit,
        at_least=False,
        needs=((ON_REDIS, row), (ON_NATS, row)),
        measure=lambda results: results.ratio(key, ON_REDIS, ON_NATS),
    )


REDIS = (
    _of_redis("CPU of the broker on Redis", "cpu_broker", 0.50),
    _of_redis("CPU of gateway and agent on Redis", "cpu_programs", 0.95),
    _of_redis("p50 at 1 connection on Redis", "latency_p50", 0.85),
)
"""Ratios of the queue on Redis to that on NATS (``--queue``)."""


def judge(results: Results) -> list[Verdict]:
    """Return what became of each bar; comparisons count only if what they compare was measured."""
    systems = results.systems()
    bars = [*BARS, *(AGAINST if BEFORE in systems else ()), *(REDIS if ON_REDIS in systems else ())]
    return [_judge(bar, results) for bar in bars]


def _judge(bar: Bar, results: Results) -> Verdict:
    if any(results.failed(system, row) for system, row in bar.needs):
        return Verdict(bar, None, BarOutcome.FAIL)
    measured = bar.measure(results)
    if measured is None:
        return Verdict(bar, None, BarOutcome.NOT_MEASURED)
    held = measured >= bar.limit if bar.at_least else measured <= bar.limit
    return Verdict(bar, measured, BarOutcome.PASS if held else BarOutcome.FAIL)
