"""The systems that are measured side by side: how each is started and where it is reached."""

import json
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

from loadtests import catalog, proc
from loadtests.children import Child, Children, StartError
from loadtests.figures import AIOHTTP, DIRECT, GATEWAY, GATEWAY_10, NGINX
from loadtests.peers import nginx

GATEWAY_CONCURRENCY = 128
_GRACE_S = 3
_START_S = 60.0
_DATA = "data"
_KEPT_LOG_BYTES = 64 * 1024
_NEEDED_ROLES = {
    proc.Role.FRONT: "gateway serve",
    proc.Role.AGENT: "worker-agent",
    proc.Role.NATS: "nats-server",
    proc.Role.INFERENCE: "loadtests.peers.inference",
}


_Run = Callable[[str, list[str]], Child]
"""Starts a command that logs into a file of this name."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running system. ``headers`` go with every request; ``inference_port`` is behind it.

    ``nats_url`` is empty where there is no queue. ``ready_s`` is what the gateway took to be ready.
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
        """Return it as callers of the API see it: whatever names a function is its business."""
        own = tuple(pair for pair in self.headers if pair[0] == "authorization")
        return replace(self, headers=own)


def nginx_binary() -> str | None:
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@contextmanager
def running(
    name: str, children: Children, complain: Callable[[str], None], functions: int = 0
) -> Iterator[Target]:
    """Run one system with an inference server of its own. Raises StartError.

    A gateway has so many ``functions`` in its store beside the one that is called. What is wrong
    about its end is told to ``complain``.
    """
    starts: dict[str, Callable[[_Run, Path], Target]] = {
        DIRECT: _direct,
        NGINX: _nginx,
        AIOHTTP: _aiohttp,
        GATEWAY_10: partial(_gateway, GATEWAY_10, 10),
        GATEWAY: partial(_gateway, GATEWAY, functions),
    }
    with TemporaryDirectory(prefix="bench-") as folder:
        started: list[Child] = []

        def run(log: str, command: list[str]) -> Child:
            started.append(children.start(log, command))
            return started[-1]

        try:
            yield starts[name](run, Path(folder))
        finally:
            for complaint in children.stop(started):
                complain(f"{name}: {complaint}")
            for log in Path(folder).glob(f"{_DATA}/*.log"):
                _keep_end(log, children.logs / f"{name}-{log.name}")


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def _accepts(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _listening(child: Child, port: int) -> Child:
    child.wait_until(lambda: _accepts(port), _START_S)
    return child


def _inference(run: _Run, name: str) -> tuple[Child, int]:
    port = _free_port()
    command = [sys.executable, "-m", "loadtests.peers.inference", "--port", str(port)]
    return _listening(run(f"{name}-inference", command), port), port


def _direct(run: _Run, _: Path) -> Target:
    child, port = _inference(run, DIRECT)
    return Target(DIRECT, port, (), (child.pid,), port)


def _nginx(run: _Run, folder: Path) -> Target:
    binary = nginx_binary()
    if binary is None:
        raise StartError("nginx is not installed")
    inference, upstream = _inference(run, NGINX)
    port = _free_port()
    command = nginx.command(binary, folder / "nginx", port, upstream)
    child = _listening(run(NGINX, command), port)
    return Target(NGINX, port, (), (inference.pid, child.pid), upstream)


def _aiohttp(run: _Run, _: Path) -> Target:
    inference, upstream = _inference(run, AIOHTTP)
    port = _free_port()
    command = [sys.executable, "-m", "loadtests.peers.proxy", "--port", str(port)]
    command += ["--upstream", f"http://127.0.0.1:{upstream}"]
    child = _listening(run(AIOHTTP, command), port)
    return Target(AIOHTTP, port, (), (inference.pid, child.pid), upstream)


def _gateway(name: str, functions: int, run: _Run, folder: Path) -> Target:
    if functions:
        child, said = _dev(name, run, folder)
        catalog.fill(said["nats_url"], functions)
        catalog.undeploy(said)
        if not child.terminate():
            raise StartError("gateway dev does not end")
    child, said = _dev(name, run, folder)
    headers = (
        ("authorization", f"Bearer {said['api_key']}"),
        ("function-id", said["function_id"]),
        ("nvcf-poll-seconds", "600"),
    )
    processes = proc.tree([child.pid])
    roles = {process.role: process for process in processes}
    for role, program in _NEEDED_ROLES.items():
        if role not in roles:
            seen = "; ".join(" ".join(process.argv)[:100] for process in processes)
            raise StartError(f"no process looks like {program!r} under gateway dev, only: {seen}")
    port = urlsplit(said["invocation_url"]).port
    if port is None:
        raise StartError(f"no port in invocation_url {said['invocation_url']!r}")
    inference_port = proc.port_of(roles[proc.Role.INFERENCE].argv)
    nats_url = said["nats_url"]
    ready_s = _ready_s(processes, folder, functions)
    return Target(name, port, headers, (child.pid,), inference_port, nats_url, ready_s)


def _dev(name: str, run: _Run, folder: Path) -> tuple[Child, dict[str, str]]:
    """Start `gateway dev`; return it and what its ready file says."""
    ready = folder / "ready.json"
    inference = f"{sys.executable} -m loadtests.peers.inference --port {{port}}"
    command = [sys.executable, "-m", "gateway", "dev", "--ready-file", str(ready)]
    command += ["--inference-command", inference]
    command += ["--concurrency", str(GATEWAY_CONCURRENCY), "--port", "0"]
    command += ["--data-dir", str(folder / _DATA), "--grace", str(_GRACE_S)]
    child = run(name, command)
    child.wait_until(lambda: _readable(ready), _START_S)
    said: dict[str, str] = json.loads(ready.read_text())
    return child, said


def _ready_s(processes: list[proc.Process], folder: Path, functions: int) -> float:
    """Return the time from the start of the first gateway process until all had said: ready."""
    began = [proc.began_at(one.pid) for one in processes if one.role is proc.Role.FRONT]
    said = []
    for log in (folder / _DATA).glob("*.log"):
        with log.open() as lines:
            said += [json.loads(line) for line in lines if '"event":"gateway.ready"' in line]
    if len(said) != len(began) or any(one["functions"] < functions for one in said):
        raise StartError(f"{len(began)} gateway processes, ready are: {said}")
    return max(datetime.fromisoformat(one["ts"]).timestamp() for one in said) - min(began)


def _keep_end(log: Path, copy: Path) -> None:
    """Keep the end of a log whose folder goes: an access log of a whole run is large."""
    with log.open("rb") as lines:
        lines.seek(max(log.stat().st_size - _KEPT_LOG_BYTES, 0))
        copy.write_bytes(lines.read())


def _readable(file: Path) -> bool:
    """Whether the ready file is there and whole."""
    try:
        json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return False
    return True
