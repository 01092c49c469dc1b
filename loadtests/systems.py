"""The systems that are compared: how each is started, and its address."""

import json
import shlex
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from redis import Redis

from loadtests import catalog, proc
from loadtests.children import Child, Children, StartError
from loadtests.figures import (
    AIOHTTP,
    BEFORE,
    DIRECT,
    GATEWAY,
    GATEWAY_10,
    NGINX,
    ON_NATS,
    ON_REDIS,
)
from loadtests.peers import nginx

SLOTS = 128
"""Concurrency of a function's server behind a gateway: a free slot for each client."""
_GRACE_S = 3
_START_S = 60.0
_DATA = "data"
_READY_EVENT = '"event":"gateway.ready"'
_HERE = Path(__file__).parents[1]
_KEPT_LOG_BYTES = 64 * 1024
_NEEDED_ROLES = {
    proc.Role.FRONT: "gateway serve",
    proc.Role.AGENT: "worker-agent",
    proc.Role.BROKER: "nats-server or valkey-server",
    proc.Role.INFERENCE: "loadtests.peers.inference",
}


_Run = Callable[[str, list[str]], Child]
"""Starts a command; its output goes to a log file of the given name."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running system.

    ``headers`` are sent with every request. ``inference_port`` is the port of its inference server.
    ``nats_url`` is empty for a system without a queue in NATS. ``ready_s`` is the gateway's
    start-up time.
    """

    name: str
    port: int
    headers: tuple[tuple[str, str], ...]
    roots: tuple[int, ...]
    inference_port: int
    nats_url: str = ""
    ready_s: float = 0.0

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    def processes(self) -> list[proc.Process]:
        return proc.tree(self.roots)

    def api(self) -> "Target":
        """Return the target for calls of the REST API: without the headers that name a function."""
        own = tuple(pair for pair in self.headers if pair[0] == "authorization")
        return replace(self, headers=own)

    def inference(self) -> "Target":
        """Return the inference server behind it, which is then called directly."""
        port = self.inference_port
        return Target(f"inference server of {self.name}", port, (), (), port)


def nginx_binary() -> str | None:
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@contextmanager
def running(
    name: str,
    children: Children,
    complain: Callable[[str], None],
    functions: int = 0,
    before: Path = _HERE,
    slots: int = SLOTS,
) -> Iterator[Target]:
    """Run one system with its own inference server. Raises StartError.

    A gateway has ``functions`` further functions in its store, and ``slots`` is the concurrency of
    its worker. ``before`` is the source tree of the older gateway. Problems when the system is
    stopped are reported to ``complain``.
    """
    starts: dict[str, Callable[[_Run, Path], Target]] = {
        DIRECT: _direct,
        NGINX: _nginx,
        AIOHTTP: _aiohttp,
        GATEWAY_10: partial(_gateway, GATEWAY_10, 10, _HERE, slots),
        BEFORE: partial(_gateway, BEFORE, functions, before, slots),
        GATEWAY: partial(_gateway, GATEWAY, functions, _HERE, slots),
        ON_NATS: partial(_gateway, ON_NATS, functions, _HERE, slots, queue="nats"),
        ON_REDIS: partial(_gateway, ON_REDIS, functions, _HERE, slots, queue="redis"),
    }
    with TemporaryDirectory(prefix="bench-") as folder:
        started: list[Child] = []

        def run(log: str, command: list[str]) -> Child:
            started.append(children.start(log, command))
            return started[-1]

        try:
            yield starts[name](run, Path(folder))
        finally:
            for problem in children.stop(started):
                complain(f"{name}: {problem}")
            for log in Path(folder).glob(f"{_DATA}/*.log"):
                _keep_end(log, children.logs / f"{name}-{log.name}")


@contextmanager
def invocations_alone(target: Target, children: Children) -> Iterator[int]:
    """Run one more gateway process beside those of a `gateway dev`, for invocations alone.

    It has their settings, and addresses of its own. Yields its pid. Raises StartError.
    """
    fronts = [each for each in target.processes() if each.role is proc.Role.FRONT]
    # Of several, the one for invocations: only it knows the address of the REST API.
    model = next((each for each in fronts if "invocation" in each.argv), fronts[0])
    inherited = proc.environment_of(model.pid)
    kept = [name for name in inherited if name.startswith(("GATEWAY_", "PYTHON"))]
    own = {f"GATEWAY_{part}__LISTEN": "127.0.0.1:0" for part in ("EDGE", "ATTACH", "ADMIN")}
    own["GATEWAY_EDGE__PROCESSES"] = "1"
    env = {**{name: inherited[name] for name in kept}, **own}
    command = ["env", *(f"{name}={value}" for name, value in env.items())]
    command += [sys.executable, "-P", "-m", "gateway", "serve", "--roles", "invocation"]
    child = children.start(f"{target.name}-invocations", command)
    try:
        child.wait_until(lambda: child.has_logged(_READY_EVENT), _START_S)
        yield child.pid
    finally:
        children.stop([child])


@contextmanager
def running_grpc(children: Children) -> Iterator[Target]:
    """Run `gateway dev` with a gRPC server. Raises StartError."""
    server = shlex.join([*_python(_HERE), "-m", "loadtests.peers.grpc_server", "--port"])
    with TemporaryDirectory(prefix="bench-") as folder:
        started: list[Child] = []

        def run(log: str, command: list[str]) -> Child:
            started.append(children.start(log, command))
            return started[-1]

        options = ["--inference-command", f"{server} {{port}}", "--grpc"]
        try:
            child, ready = _dev("gateway-grpc", _HERE, SLOTS, run, Path(folder), options)
            port = urlsplit(ready["invocation_url"]).port
            if port is None:
                raise StartError(f"no port in invocation_url {ready['invocation_url']!r}")
            headers = (*_headers(ready), ("te", "trailers"))
            yield Target("gateway-grpc", port, headers, (child.pid,), 0)
        finally:
            children.stop(started)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def accepts(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for_port(child: Child, port: int) -> Child:
    child.wait_until(lambda: accepts(port), _START_S)
    return child


def _inference(run: _Run, name: str) -> tuple[Child, int]:
    port = free_port()
    command = [sys.executable, "-m", "loadtests.peers.inference", "--port", str(port)]
    return _wait_for_port(run(f"{name}-inference", command), port), port


def _direct(run: _Run, _: Path) -> Target:
    child, port = _inference(run, DIRECT)
    return Target(DIRECT, port, (), (child.pid,), port)


def _nginx(run: _Run, folder: Path) -> Target:
    binary = nginx_binary()
    if binary is None:
        raise StartError("nginx is not installed")
    inference, upstream = _inference(run, NGINX)
    port = free_port()
    command = nginx.command(binary, folder / "nginx", port, upstream)
    child = _wait_for_port(run(NGINX, command), port)
    return Target(NGINX, port, (), (inference.pid, child.pid), upstream)


def _aiohttp(run: _Run, _: Path) -> Target:
    inference, upstream = _inference(run, AIOHTTP)
    port = free_port()
    command = [sys.executable, "-m", "loadtests.peers.proxy", "--port", str(port)]
    command += ["--upstream", f"http://127.0.0.1:{upstream}"]
    child = _wait_for_port(run(AIOHTTP, command), port)
    return Target(AIOHTTP, port, (), (inference.pid, child.pid), upstream)


def _gateway(
    name: str,
    functions: int,
    tree: Path,
    slots: int,
    run: _Run,
    folder: Path,
    *,
    queue: str = "",
) -> Target:
    """Start a gateway; with ``queue``, every call goes through the queue, on that broker."""
    if functions:
        child, ready = _dev(name, tree, slots, run, folder, queue=queue)
        catalog.fill(_store_url(ready, folder / _DATA), functions)
        catalog.undeploy(ready)
        if not child.terminate():
            raise StartError("gateway dev does not end")
    child, ready = _dev(name, tree, slots, run, folder, queue=queue)
    if queue == "redis":
        _keep_in_memory(_store_url(ready, folder / _DATA))
    headers = _headers(ready)
    processes = proc.tree([child.pid])
    roles = {process.role: process for process in processes}
    for role, program in _NEEDED_ROLES.items():
        if role not in roles:
            found = "; ".join(" ".join(process.argv)[:100] for process in processes)
            raise StartError(f"no process looks like {program!r} under gateway dev, only: {found}")
    port = urlsplit(ready["invocation_url"]).port
    if port is None:
        raise StartError(f"no port in invocation_url {ready['invocation_url']!r}")
    inference_port = proc.port_of(roles[proc.Role.INFERENCE].argv)
    nats_url = ready.get("nats_url", "")
    ready_s = _ready_s(processes, folder, functions)
    return Target(name, port, headers, (child.pid,), inference_port, nats_url, ready_s)


def _store_url(ready: dict[str, str], folder: Path) -> str:
    """Return the URL of the broker, which holds the store too, with the login that it needs."""
    if "redis_url" not in ready:
        return ready["nats_url"]
    password = (folder / "redis" / "gateway.password").read_text()
    return ready["redis_url"].replace("//", f"//gateway:{password}@")


def _keep_in_memory(url: str) -> None:
    """Switch the append-only file off: a queue in JetStream is in memory too."""
    with closing(Redis.from_url(url)) as client:
        client.config_set("appendonly", "no")


def _headers(ready: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the headers of every call."""
    return (
        ("authorization", f"Bearer {ready['api_key']}"),
        ("function-id", ready["function_id"]),
        ("nvcf-poll-seconds", "600"),
    )


def _inference_options() -> list[str]:
    server = shlex.join([*_python(_HERE), "-m", "loadtests.peers.inference", "--port"])
    return ["--inference-command", f"{server} {{port}}"]


def _dev(
    name: str,
    tree: Path,
    slots: int,
    run: _Run,
    folder: Path,
    inference: list[str] | None = None,
    *,
    queue: str = "",
) -> tuple[Child, dict[str, str]]:
    """Start `gateway dev`; return it and the content of its ready file.

    ``inference`` are the options for its inference server, ``queue`` is as for `_gateway`.
    """
    ready_file = folder / "ready.json"
    python = _python(tree)
    if queue:
        python = ["env", "GATEWAY_QUEUE__DIRECT=false", *python]
    command = [*python, "-m", "gateway", "dev", "--ready-file", str(ready_file)]
    command += ["--queue", queue] if queue else []
    command += _inference_options() if inference is None else inference
    command += ["--concurrency", str(slots), "--port", "0"]
    command += ["--data-dir", str(folder / _DATA), "--grace", str(_GRACE_S)]
    child = run(name, command)
    child.wait_until(lambda: _is_complete(ready_file), _START_S)
    ready: dict[str, str] = json.loads(ready_file.read_text())
    return child, ready


def _python(tree: Path) -> list[str]:
    """Return the start of a command that takes the project's modules from ``tree``."""
    return ["env", f"PYTHONPATH={tree}", "PYTHONSAFEPATH=1", sys.executable]


def _ready_s(processes: list[proc.Process], folder: Path, functions: int) -> float:
    """Return the time from the start of the first gateway process until all were ready."""
    starts = [
        proc.started_at(process.pid) for process in processes if process.role is proc.Role.FRONT
    ]
    events = []
    for log in (folder / _DATA).glob("*.log"):
        with log.open() as lines:
            events += [json.loads(line) for line in lines if _READY_EVENT in line]
    if len(events) != len(starts) or any(event["functions"] < functions for event in events):
        raise StartError(f"{len(starts)} gateway processes, ready are: {events}")
    return max(datetime.fromisoformat(event["ts"]).timestamp() for event in events) - min(starts)


def _keep_end(log: Path, copy: Path) -> None:
    """Copy the end of a log out of a temporary folder; the access log of a run is large."""
    with log.open("rb") as lines:
        lines.seek(max(log.stat().st_size - _KEPT_LOG_BYTES, 0))
        copy.write_bytes(lines.read())


def _is_complete(file: Path) -> bool:
    """Return whether the ready file exists and is complete JSON."""
    try:
        json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return False
    return True
