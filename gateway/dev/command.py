"""`gateway dev`: runs nats-server, gateway, inference server and worker agent on loopback."""

import asyncio
import contextlib
import json
import shlex
import socket
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NamedTuple

import aiohttp
import typer

from gateway.api.secrets.master_key import MasterKeyError
from gateway.dev.children import ChildError, Children, InterruptError, Pause
from gateway.dev.demo import CLUSTER, IMAGE, Demo, DemoApi, DemoError, prepare_store
from gateway.dev.folder_lock import FolderInUseError, lock_folder, lock_server
from gateway.errors import StoreUnavailable
from gateway.provision.local.orphans import kill_orphans
from http1.server.listener import MAX_PORT
from queueing.interface import EmbeddedBrokerError
from queueing.open import embedded_broker
from runtime import lifecycle, logs
from runtime.lifecycle import Lifecycle
from wire.worker_api import MAX_CONCURRENCY

HOST = "127.0.0.1"
_START_S = 20.0
_RESPONSE_S = 120.0
_STOP_S = 5.0
"""Time for a child process to end, in addition to its grace period."""
DEMO_COMMAND = "{python} -P -m gateway.examples.inference --port {port}"
# -P: packages in the current folder must not shadow the gateway's.


@dataclass(frozen=True, slots=True)
class DevOptions:
    """The options of `gateway dev`. Port 0 means any free port."""

    port: int
    nats_port: int
    admin_port: int
    processes: int
    concurrency: int
    inference_command: str
    data_dir: Path | None
    ready_file: Path | None
    grace_s: float

    def ports(self) -> list[tuple[str, int]]:
        """Return every port with the name of its option."""
        return [
            ("--port", self.port),
            ("--nats-port", self.nats_port),
            ("--admin-port", self.admin_port),
        ]


app = typer.Typer(add_completion=False)


@app.command()
def dev(  # noqa: PLR0913 - one argument per option
    port: Annotated[
        int, typer.Option(help="Port for clients; 0 means any free port.", min=0, max=MAX_PORT)
    ] = 8080,
    nats_port: Annotated[
        int, typer.Option(help="Port of the nats-server.", min=0, max=MAX_PORT)
    ] = 0,
    admin_port: Annotated[
        int, typer.Option(help="Port of the gateway's metrics.", min=0, max=MAX_PORT)
    ] = 0,
    processes: Annotated[int, typer.Option(help="Number of gateway processes.", min=1, max=64)] = 1,
    concurrency: Annotated[
        int, typer.Option(help="Concurrent requests of the worker.", min=1, max=MAX_CONCURRENCY)
    ] = 64,
    inference_command: Annotated[
        str,
        typer.Option(help="Command of your own server; it must use {port} and serve /health."),
    ] = DEMO_COMMAND,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for data and logs. Default: temporary.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write URLs, ids and key to this JSON file when ready.")
    ] = None,
    grace: Annotated[
        float, typer.Option(help="Seconds for running requests to finish at the end.", min=0)
    ] = 10.0,
) -> None:
    """Run the whole system on this machine and print example calls. Ctrl-C stops it."""
    options = DevOptions(
        port=port,
        nats_port=nats_port,
        admin_port=admin_port,
        processes=processes,
        concurrency=concurrency,
        inference_command=inference_command,
        data_dir=data_dir,
        ready_file=ready_file,
        grace_s=grace,
    )
    logs.setup("error", json=False, stream=sys.stderr)
    sys.exit(lifecycle.run(lambda life: _dev(options, life)))


async def _dev(options: DevOptions, life: Lifecycle) -> int:
    pause = Pause(life.stopping)
    with contextlib.ExitStack() as stack:
        try:
            check_demo(options.inference_command)
            folder = options.data_dir or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-dev-"))
            )
            folder.mkdir(parents=True, exist_ok=True)
            # First, so that nothing of another `gateway dev` is touched.
            stack.enter_context(lock_folder(folder))
            lock = stack.enter_context(await lock_server(folder, _START_S, pause, _say))
            for option, port in options.ports():
                _check_free(option, port)
            instances = folder / "instances"
            instances.mkdir(exist_ok=True)
            # Instances of a gateway that was killed and could not stop them.
            stack.callback(kill_orphans, instances, "")
            if options.ready_file is not None:
                options.ready_file.unlink(missing_ok=True)
                stack.callback(options.ready_file.unlink, missing_ok=True)
            async with Children(folder, 2 * options.grace_s + _STOP_S, pause) as children:
                broker = await _start_broker(options, folder, children, lock.fileno())
                running = await _start(options, folder, children, pause, broker)
                _announce(running, options.ready_file)
                while True:
                    children.check()
                    await pause.wait()
        except InterruptError:
            _say("stopped")
            return 0
        except _FAILURES as error:
            _say(str(error))
            return 1


_FAILURES = (
    *(EmbeddedBrokerError, ChildError, DemoError, FolderInUseError, MasterKeyError),
    *(StoreUnavailable, aiohttp.ClientError, OSError),
)


@dataclass(frozen=True, slots=True)
class Running:
    """The running system."""

    port: int
    admin_url: str
    nats_url: str
    demo: Demo
    folder: Path


class Broker(NamedTuple):
    """The broker of queue and store, once it is ready; ``gateway_env`` are settings for it."""

    url: str
    gateway_env: dict[str, str]


async def _start_broker(options: DevOptions, folder: Path, children: Children, lock: int) -> Broker:
    """Start the broker, which inherits the file descriptor ``lock``."""
    broker = embedded_broker(folder, HOST, options.nats_port)
    _say(f"starting {broker.name}")
    server = children.start(broker.name, broker.argv, {}, [lock])
    await server.line_with(broker.ready_line, _START_S)
    url = broker.url(await server.line_with(broker.listening_line, _START_S))
    return Broker(url, broker.gateway_environment(url))


async def _start(
    options: DevOptions, folder: Path, children: Children, pause: Pause, broker: Broker
) -> Running:
    """Start the gateway and deploy the demo; return once an invocation has succeeded."""
    _say("starting the gateway")
    credentials = await prepare_store(broker.url, folder / "master.key")
    if credentials.bootstrap_secret is not None:
        # Printed at once: it cannot be read again, even if this start fails.
        _say(f"bootstrap secret for admin tokens, shown only once: {credentials.bootstrap_secret}")
    env = _gateway_env(options, folder, broker)
    serve = [sys.executable, "-P", "-m", "gateway", "serve", "--roles"]
    control = children.start("control", [*serve, "api,provision"], {**env, **_CONTROL_ENV})
    api_url = f"http://{(await control.event('gateway.ready', _START_S))['listen'][0]}"
    # A process of its own, so that its memory stays small.
    gateway = children.start(
        "gateway", [*serve, "invocation"], {**env, "GATEWAY_CONTROL__API_URL": api_url}
    )
    ready = await gateway.event("gateway.ready", _START_S)
    port = int(ready["listen"][0].rsplit(":", 1)[1])
    _say("deploying the demo function, waiting for its inference server")
    async with aiohttp.ClientSession() as session:
        api = DemoApi(session, api_url, credentials.api_key)
        demo = await api.create(options.concurrency)
        while not await api.is_active(demo):
            children.check()
            await pause.wait()
    running = Running(port, f"http://{ready['admin']}", broker.url, demo, folder)
    await _wait_for_response(running, children, pause)
    return running


async def _wait_for_response(running: Running, children: Children, pause: Pause) -> None:
    """Return once the inference server has responded to an invocation."""
    demo = running.demo
    headers = {
        "authorization": f"Bearer {demo.api_key}",
        "function-id": demo.function_id,
        "nvcf-poll-seconds": "1",
    }
    deadline = asyncio.get_running_loop().time() + _RESPONSE_S
    async with aiohttp.ClientSession(headers=headers) as session:
        while asyncio.get_running_loop().time() < deadline:
            children.check()
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://{HOST}:{running.port}/health") as response:
                    if response.headers.get("nvcf-status") == "fulfilled":
                        return
            await pause.wait()
    raise ChildError(f"no response from the inference server in {_RESPONSE_S:.0f} s")


def _command_template(command: str) -> str:
    """Return the cluster's command template for ``command``. Raises `ChildError`."""
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise ChildError(f"--inference-command cannot be parsed: {error}") from error
    if not arguments:
        raise ChildError("--inference-command is empty")
    return f"process://{command}"


_CONTROL_ENV = {
    "GATEWAY_EDGE__LISTEN": f"{HOST}:0",
    "GATEWAY_EDGE__PROCESSES": "1",
    "GATEWAY_ADMIN__LISTEN": f"{HOST}:0",
}


def _gateway_env(options: DevOptions, folder: Path, broker: Broker) -> dict[str, str]:
    cluster = {
        "name": CLUSTER,
        "gpus": [{"name": "CPU", "instance_types": [{"name": "local"}]}],
        "images": {IMAGE: _command_template(options.inference_command)},
    }
    return {
        "GATEWAY_CLUSTERS": json.dumps([cluster]),
        "GATEWAY_EDGE__LISTEN": f"{HOST}:{options.port}",
        "GATEWAY_EDGE__PROCESSES": str(options.processes),
        "GATEWAY_ATTACH__LISTEN": f"{HOST}:0",
        "GATEWAY_ADMIN__LISTEN": f"{HOST}:{options.admin_port}",
        **broker.gateway_env,
        "GATEWAY_CONTROL__SECRETS_KEY_FILE": str(folder / "master.key"),
        "GATEWAY_CONTROL__DEPLOY_TIMEOUT_S": str(_RESPONSE_S),
        "GATEWAY_PROVISION__FOLDER": str(folder / "instances"),
        "GATEWAY_PROVISION__STOP_GRACE_S": str(options.grace_s),
        "GATEWAY_PROVISION__RESTART_FIRST_S": "0.2",
        "GATEWAY_PROVISION__MAX_FAILED_STARTS": "2",
        "GATEWAY_DRAIN__GRACE_S": "0",
        "GATEWAY_DRAIN__TIMEOUT_S": str(options.grace_s),
    }


def _announce(running: Running, ready_file: Path | None) -> None:
    demo = running.demo
    url = f"http://{HOST}:{running.port}"
    if ready_file is not None:
        document = {
            "invocation_url": url,
            "api_url": url,
            "function_id": demo.function_id,
            "function_version_id": demo.version_id,
            "api_key": demo.api_key,
            "nats_url": running.nats_url,
        }
        unfinished = ready_file.with_name(ready_file.name + ".part")
        unfinished.write_text(json.dumps(document))
        unfinished.replace(ready_file)
    host = f"{demo.function_id}.invocation.localhost"
    call = f"-H 'Authorization: Bearer {demo.api_key}' -H 'Host: {host}'"
    print(  # noqa: T201
        f"""
Ready. Ctrl-C stops everything.

  function    {demo.function_id}  version {demo.version_id}
  invocation  http://{host}:{running.port}/
  API         {url}
  metrics     {running.admin_url}/metrics
  NATS        {running.nats_url}
  logs        {running.folder}

Call it:

  curl {call} -d 'hello' {url}/echo

  curl -N {call} '{url}/sse?events=5&interval_ms=500'
""",
        flush=True,
    )


def _check_free(option: str, port: int) -> None:
    """Raise `ChildError` if ``port`` is in use."""
    if port == 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ChildError(
                f"port {port} cannot be used: {error.strerror}; choose another with {option}"
            ) from error


def check_demo(command: str) -> None:
    """Raise `ChildError` if ``command`` is the demo and its requirements are not installed."""
    if command == DEMO_COMMAND and not (find_spec("fastapi") and find_spec("uvicorn")):
        raise ChildError(
            "the demo inference server requires: pip install 'invocation-gateway[examples]'; "
            "or give your own with --inference-command"
        )


def _say(text: str) -> None:
    print(f"gateway dev: {text}", file=sys.stderr, flush=True)  # noqa: T201
