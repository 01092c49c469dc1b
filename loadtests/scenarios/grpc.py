"""A unary gRPC call beside the small invocation over HTTP/1.1: CPU of all that is the project's."""

import shutil
from pathlib import Path
from typing import Final

from loadtests import generators, systems
from loadtests.children import Children
from loadtests.errors import MeasurementError
from loadtests.proc import Role
from loadtests.scenarios.http2 import HTTP2_CONNECTIONS, POST, STREAMS, measure
from loadtests.scenarios.small import BODY, CONNECTIONS
from loadtests.systems import Target

_ROLES: Final = (Role.FRONT, Role.AGENT, Role.BROKER)
_MESSAGE = b"\0" + len(BODY).to_bytes(4) + BODY
_CALL = generators.PostRequest("/bench.Bench/Echo", "application/grpc", _MESSAGE)


def grpc(target: Target, children: Children, duration_s: int, folder: Path) -> dict[str, float]:
    """Return throughput and CPU of a call, and its CPU in relation to that over HTTP/1.1.

    Its gRPC server has a gateway of its own. Raises `loadtests.children.StartError`.
    """
    h2load = shutil.which("h2load")
    if h2load is None:
        raise MeasurementError("this row needs h2load: `apt-get install nghttp2-client`")
    _, cpu_1 = measure(h2load, target, POST, CONNECTIONS, 0, duration_s, folder, _ROLES)
    with systems.running_grpc(children) as called:
        rate, cpu = measure(
            h2load, called, _CALL, HTTP2_CONNECTIONS, STREAMS, duration_s, folder, _ROLES
        )
    return {"grpc_throughput": rate, "grpc_cpu_all": cpu, "grpc_cpu_ratio": cpu / cpu_1}
