"""Small invocations: the latency of one at a time, the rate and the CPU of 64 at a time."""

import gc
from pathlib import Path
from typing import Final

from loadtests import generators
from loadtests.client import Connection, repeat, request_bytes
from loadtests.errors import MeasurementError
from loadtests.proc import Role, cpu_between
from loadtests.stats import quantile
from loadtests.systems import Target

PATH: Final = "/small"
BODY: Final = (
    b'{"model":"bench","prompt":"' + b"Say that it is a benchmark. " * 7 + b'","max_tokens":16}'
)
CONNECTIONS: Final = 64
_WARM_UP_S = 0.5
_CPU_KEYS = {
    Role.FRONT: "cpu_front",
    Role.AGENT: "cpu_agent",
    Role.NATS: "cpu_nats",
    Role.INFERENCE: "cpu_inference",
}


def warm_up(target: Target, duration_s: float = _WARM_UP_S) -> None:
    with Connection(target) as connection:
        repeat(connection, request_bytes(target, "POST", PATH, BODY), duration_s)


def latency(target: Target, duration_s: float) -> dict[str, float]:
    """Time round trips on one warm connection."""
    request = request_bytes(target, "POST", PATH, BODY)
    with Connection(target) as connection:
        repeat(connection, request, _WARM_UP_S)
        gc.collect()
        gc.disable()
        try:
            times_ns = repeat(connection, request, duration_s)
        finally:
            gc.enable()
    return {
        "latency_p50": quantile(times_ns, 0.50) / 1e3,
        "latency_p99": quantile(times_ns, 0.99) / 1e3,
    }


def throughput(target: Target, generator: str, duration_s: int, folder: Path) -> dict[str, float]:
    """Drive 64 connections; the CPU of the same run by process.

    The clocks of the processes are read around the generator's run, its connects included: without
    load they stand still.
    """
    post = generators.Post(PATH, "application/json", BODY)
    _checked(generators.measure(generator, target, post, CONNECTIONS, 1, folder))
    before = target.processes()
    summary = generators.measure(generator, target, post, CONNECTIONS, duration_s, folder)
    used = cpu_between(before, target.processes())
    _checked(summary)
    figures = {"throughput": summary.requests_per_s}
    for role, key in _CPU_KEYS.items():
        if role in used:
            figures[key] = used[role] / summary.requests * 1e6
    return figures


def _checked(summary: generators.Summary) -> None:
    if summary.failures:
        raise MeasurementError(f"of {summary.requests} requests: {summary.failures}")
