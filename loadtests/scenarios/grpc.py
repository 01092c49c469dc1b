"""A unary gRPC call beside the small invocation over HTTP/1.1: CPU of all that is the project's."""

import shutil
from pathlib import Path
from typing import Final

from loadtests import generators, systems
from loadtests.children import Children
from loadtests.errors import MeasurementError
from loadtests.proc import Role, cpu_between
from loadtests.scenarios.http2 import HTTP2_CONNECTIONS, STREAMS
from loadtests.scenarios.small import BODY, CONNECTIONS, PATH
from loadtests.systems import Target

_ROLES: Final = (Role.FRONT, Role.AGENT, Role.NATS)
_MESSAGE = b"\0" + len(BODY).to_bytes(4) + BODY
_CALL = generators.PostRequest("/bench.Bench/Echo", "application/grpc", _MESSAGE)
_POST = generators.PostRequest(PATH, "application/json", BODY)


def grpc(target: Target, children: Children, duration_s: int, folder: Path) -> dict[str, float]:
    """Return throughput and CPU of a call, and its CPU in relation to that over HTTP/1.1.

    Its gRPC server has a gateway of its own. Raises `loadtests.children.StartError`.
    """
    h2load = shutil.which("h2load")
    if h2load is None:
        raise MeasurementError("this row needs h2load: `apt-get install nghttp2-client`")
    _, cpu_1 = _measure(h2load, target, _POST, CONNECTIONS, 0, duration_s, folder)
    with systems.running_grpc(children) as called:
        rate, cpu = _measure(h2load, called, _CALL, HTTP2_CONNECTIONS, STREAMS, duration_s, folder)
    return {"grpc_throughput": rate, "grpc_cpu_all": cpu, "grpc_cpu_ratio": cpu / cpu_1}


def _measure(
    h2load: str,
    target: Target,
    post: generators.PostRequest,
    connections: int,
    streams: int,
    duration_s: int,
    folder: Path,
) -> tuple[float, float]:
    """Return calls per second, and the CPU of each in µs: gateway, worker agent, nats-server."""
    generators.measure(h2load, target, post, connections, 1, folder, streams)
    before = target.processes()
    summary = generators.measure(h2load, target, post, connections, duration_s, folder, streams)
    used = cpu_between(before, target.processes())
    if summary.failures:
        raise MeasurementError(f"of {summary.requests} requests: {summary.failures}")
    total_s = sum(used[role] for role in _ROLES)
    return summary.requests_per_s, total_s / summary.requests * 1e6
