"""Small invocations: latency on one connection, throughput and CPU on 64 connections."""

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from loadtests import generators
from loadtests.client import ClientConnection, repeat, request_bytes
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
_PROGRAMS = (Role.FRONT, Role.AGENT)
_ALL = (*_PROGRAMS, Role.BROKER)


def warm_up(target: Target, duration_s: float = _WARM_UP_S) -> None:
    with ClientConnection(target) as connection:
        repeat(connection, request_bytes(target, "POST", PATH, BODY), duration_s)


def latency(target: Target, duration_s: float) -> dict[str, float]:
    """Return quantiles of the round trips on one warm connection, in µs."""
    request = request_bytes(target, "POST", PATH, BODY)
    with ClientConnection(target) as connection:
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
    """Return the throughput on 64 connections, and the CPU per request by process in the same run.

    CPU times are read before and after the generator's run, which includes its connects; processes
    use no CPU without load.
    """
    post = generators.PostRequest(PATH, "application/json", BODY)
    _check(generators.measure(generator, target, post, CONNECTIONS, 1, folder))
    before = target.processes()
    summary = generators.measure(generator, target, post, CONNECTIONS, duration_s, folder)
    used = cpu_between(before, target.processes())
    _check(summary)
    return {"throughput": summary.requests_per_s, **cpu_figures(used, summary.requests)}


def cpu_figures(used: Mapping[Role, float], requests: int) -> dict[str, float]:
    """Return the CPU time of each role per request; of gateway and agent, and with the broker."""
    each_us = {role: cpu_s / requests * 1e6 for role, cpu_s in used.items()}
    figures = {f"cpu_{role.value}": cpu_us for role, cpu_us in each_us.items()}
    if all(role in each_us for role in _ALL):
        figures["cpu_programs"] = sum(each_us[role] for role in _PROGRAMS)
        figures["cpu_all"] = sum(each_us[role] for role in _ALL)
    return figures


def _check(summary: generators.Summary) -> None:
    if summary.failures:
        raise MeasurementError(f"of {summary.requests} requests: {summary.failures}")
