"""HTTP/2 beside HTTP/1.1 at the same gateway: throughput and CPU, both from h2load."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from loadtests import generators
from loadtests.errors import MeasurementError
from loadtests.proc import Role, cpu_between
from loadtests.scenarios.small import BODY, CONNECTIONS, PATH
from loadtests.systems import Target

HTTP2_CONNECTIONS: Final = 8
STREAMS: Final = 8
_ROLES: Final = (Role.FRONT,)
POST: Final = generators.PostRequest(PATH, "application/json", BODY)


def http2(target: Target, duration_s: int, folder: Path) -> dict[str, float]:
    """Return the throughput over HTTP/2, and throughput and gateway CPU in relation to HTTP/1.1.

    Both protocols are measured one after the other, each after a second of warm-up.
    """
    h2load = shutil.which("h2load")
    if h2load is None:
        raise MeasurementError("this row needs h2load: `apt-get install nghttp2-client`")
    rate_1, cpu_1 = measure(h2load, target, POST, CONNECTIONS, 0, duration_s, folder, _ROLES)
    rate_2, cpu_2 = measure(
        h2load, target, POST, HTTP2_CONNECTIONS, STREAMS, duration_s, folder, _ROLES
    )
    return {
        "http2_throughput": rate_2,
        "http2_ratio": rate_2 / rate_1,
        "http2_cpu_front": cpu_2,
        "http2_cpu_ratio": cpu_2 / cpu_1,
    }


def measure(
    h2load: str,
    target: Target,
    post: generators.PostRequest,
    connections: int,
    streams: int,
    duration_s: int,
    folder: Path,
    roles: Sequence[Role],
) -> tuple[float, float]:
    """Return calls per second, and the CPU of each in µs: that of the processes with ``roles``."""
    generators.measure(h2load, target, post, connections, 1, folder, streams)
    before = target.processes()
    summary = generators.measure(h2load, target, post, connections, duration_s, folder, streams)
    used = cpu_between(before, target.processes())
    if summary.failures:
        raise MeasurementError(f"of {summary.requests} requests: {summary.failures}")
    total_s = sum(used[role] for role in roles)
    return summary.requests_per_s, total_s / summary.requests * 1e6
