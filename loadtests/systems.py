"""The systems that are measured side by side: how each is started and where it is reached."""

import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from loadtests import proc
from loadtests.children import Child, Children, StartError
from loadtests.figures import AIOHTTP, DIRECT, GATEWAY, NGINX
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


@dataclass(frozen=True, slots=True)
class Target:
    """A running system. ``headers`` go with every request; ``inference_port`` is behind it.

    ``nats_url`` is empty where there is no queue.
    """

    name: str
    port: int
    headers: tuple[tuple[str, str], ...]
    roots: tuple[int, ...]
    inference_port: int
    nats_url: str = ""

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    def processes(self) -> list[proc.Process]:
        return proc.tree(self.roots)


def nginx_binary() -> str | None:
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@contextmanager
def running(name: str, children: Children, complain: Callable[[str], None]) -> Iterator[Target]:
    """Run one system with an inference server of its own. Raises StartError.

    What is wrong about its end is told to ``complain``.
    """
    start = {DIRECT: _direct, NGINX: _nginx, AIOHTTP: _aiohttp, GATEWAY: _gateway}[name]
    with TemporaryDirectory(prefix="bench-") as folder:
        started: list[Child] = []

        def run(log: str, command: list[str]) -> Child:
            started.append(children.start(log, command))
            return started[-1]

        try:
            yield start(run, Path(folder))
        finally:
            for complaint in children.stop(started):
                complain(f"{name}: {complaint}")
            for log in Path(folder).glob(f"{_DATA}/*.log"):
                _keep_end(log, children.logs / f"{name}-{log.name}")


_Run = Callable[[str, list[str]], Child]


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


def _gateway(run: _Run, folder: Path) -> Target:
    ready = folder / "ready.json"
    inference = f"{sys.executable} -m loadtests.peers.inference --port {{port}}"
    command = [sys.executable, "-m", "gateway", "dev", "--ready-file", str(ready)]
    command += ["--inference-command", inference]
    command += ["--concurrency", str(GATEWAY_CONCURRENCY), "--port", "0"]
    command += ["--data-dir", str(folder / _DATA), "--grace", str(_GRACE_S)]
    child = run(GATEWAY, command)
    child.wait_until(lambda: _readable(ready), _START_S)
    said = json.loads(ready.read_text())
    headers = (
        ("authorization", f"Bearer {said['api_key']}"),
        ("function-id", said["function_id"]),
        ("nvcf-poll-seconds", "600"),
    )
    processes = proc.tree([child.pid])
    roles = {process.role: process for process in processes}
    for role, name in _NEEDED_ROLES.items():
        if role not in roles:
            seen = "; ".join(" ".join(process.argv)[:100] for process in processes)
            raise StartError(f"no process looks like {name!r} under gateway dev, only: {seen}")
    port = urlsplit(said["invocation_url"]).port
    if port is None:
        raise StartError(f"no port in invocation_url {said['invocation_url']!r}")
    inference_port = proc.port_of(roles[proc.Role.INFERENCE].argv)
    return Target(GATEWAY, port, headers, (child.pid,), inference_port, said["nats_url"])


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
