"""`gateway dev`: runs brokers, gateway, inference servers and worker agents on loopback."""

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import aiohttp
import typer

from gateway.api.secrets.master_key import MasterKeyError
from gateway.dev import keeper
from gateway.dev.certificates import DevCertificates, make_certificates
from gateway.dev.children import POLL_S, Child, ChildError, Children
from gateway.dev.folder_lock import FolderInUseError, lock_folder, lock_server
from gateway.dev.functions import (
    CLUSTER,
    HEALTH_TIMEOUT_S,
    DevApi,
    DevFunction,
    DevFunctionError,
    Prepared,
    prepare_store,
)
from gateway.dev.hints import Running, Secured, ready_document, ready_text
from gateway.dev.keeper import Handover, say
from gateway.dev.options import HOST, DevOptions, FunctionOptions, OptionError, functions_of
from gateway.dev.progress import LoadingServer, telling
from gateway.errors import StoreUnavailable
from gateway.provision.local.orphans import kill_orphans
from gateway.settings import read_settings
from http1.server.listener import MAX_PORT
from queueing.interface import EmbeddedBrokerError
from queueing.open import embedded_broker
from queueing.settings import Backend
from runtime import lifecycle, logs
from runtime.lifecycle import EXIT_UNUSABLE, Lifecycle
from runtime.settings import SettingsError
from runtime.tasks import spawn
from wire.worker_api import MAX_CONCURRENCY

_START_S = 60.0
_RESPONSE_S = 120.0
"""Time to the first response after the server has become healthy."""
_STOP_S = 5.0
"""Time for a child process to end, in addition to its grace period."""
_MAX_POLL_S = 1.0

Result = TypeVar("Result")

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def dev(  # noqa: PLR0913 - one argument per option
    inference_command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Command of your own server. {port} becomes the port to listen on, also in the "
            "environment as PORT; {python} this Python. Default: the demo.",
            show_default=False,
        ),
    ] = None,
    running_server: Annotated[
        str | None,
        typer.Option(
            "--upstream",
            metavar="URL",
            help="Your own server, which runs already: http://HOST:PORT. Default: none.",
            show_default=False,
        ),
    ] = None,
    function: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COMMAND",
            help="A function with this name and server, a command or a URL; once per function. "
            "Default: one, called my-server or demo.",
            show_default=False,
        ),
    ] = None,
    health_path: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="Path at which your server responds with 200 once it can serve. Default: /health.",
            show_default=False,
        ),
    ] = None,
    grpc: Annotated[
        bool,
        typer.Option(
            "--grpc",
            help="Your server speaks gRPC, without TLS, and its standard health service says when "
            "it can serve.",
            show_default=False,
        ),
    ] = False,
    start_timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Time for your server to load its model.", min=1),
    ] = 600.0,
    concurrency: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Requests that each server gets at a time; further ones wait in its queue.",
            min=1,
            max=MAX_CONCURRENCY,
        ),
    ] = 64,
    port: Annotated[
        int,
        typer.Option(
            metavar="PORT",
            help="Port for clients and the API; 0 means any free port.",
            min=0,
            max=MAX_PORT,
        ),
    ] = 8080,
    tls: Annotated[
        bool,
        typer.Option(
            "--tls",
            help="Speak TLS too, with a certificate of an authority that is made for it.",
            show_default=False,
        ),
    ] = False,
    tls_port: Annotated[
        int,
        typer.Option(
            metavar="PORT",
            help="Port for TLS, with --tls; 0 means any free port.",
            min=0,
            max=MAX_PORT,
        ),
    ] = 8443,
    queue: Annotated[
        Backend,
        typer.Option(
            help="What holds queue and store; redis starts a valkey-server, or a redis-server, in "
            "place of the nats-server.",
        ),
    ] = "nats",
    nats_port: Annotated[
        int, typer.Option(metavar="PORT", help="Port of the nats-server.", min=0, max=MAX_PORT)
    ] = 0,
    admin_port: Annotated[
        int,
        typer.Option(metavar="PORT", help="Port of the gateway's metrics.", min=0, max=MAX_PORT),
    ] = 0,
    processes: Annotated[
        int, typer.Option(metavar="N", help="Number of gateway processes.", min=1, max=64)
    ] = 1,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for data and logs, made if it does not exist; with it, functions keep "
            "their ids, and the API key stays the same. Default: a temporary one.",
        ),
    ] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write URLs, ids and key to this JSON file when ready. Default: none.",
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Time for running requests to finish after Ctrl-C.", min=0
        ),
    ] = 10.0,
) -> None:
    """Run the whole system on this machine and print example calls. Ctrl-C stops it.

    Without options a demo is served. --inference-command starts your own server, --upstream
    takes one that runs already, --function NAME=COMMAND serves several.

    Its log files are JSON, because it reads them: GATEWAY_LOG__FORMAT has no effect here.
    """
    logs.setup("error", json=False, stream=sys.stderr)
    try:
        options = DevOptions(
            functions=functions_of(
                inference_command,
                running_server,
                function or (),
                health_path or (),
                speak_grpc=grpc,
            ),
            port=port,
            tls_port=tls_port if tls else None,
            queue=queue,
            nats_port=nats_port,
            admin_port=admin_port,
            processes=processes,
            concurrency=concurrency,
            start_timeout_s=start_timeout,
            data_dir=data_dir,
            ready_file=ready_file,
            grace_s=grace,
        )
        options.check()
        check_demo(options.functions)
    except OptionError as error:
        say(str(error))
        sys.exit(EXIT_UNUSABLE)
    sys.exit(lifecycle.run(lambda life: _dev(options, life)))


async def _dev(options: DevOptions, life: Lifecycle) -> int:
    """Run until the first stop signal, or until something fails; return the exit code."""
    running = spawn(_run(options), "dev")
    stopping = spawn(life.stopping.wait(), "dev.stopping")
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        say(f"stopping; running requests may take {options.grace_s:g} s")
        running.cancel()
        await asyncio.wait({running})
    if running.cancelled():
        say("stopped")
        return 0
    return running.result()


async def _run(options: DevOptions) -> int:
    """Start everything and hand it to the keeper, which replaces this program.

    Returns the exit code if that is not reached.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = options.data_dir or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-dev-"))
            )
            # First, so that nothing of another `gateway dev` is touched.
            own_lock = stack.enter_context(lock_folder(folder))
            lock = stack.enter_context(await lock_server(folder, _START_S, say))
            for option, port in options.ports():
                _check_free(option, port)
            instances = folder / "instances"
            instances.mkdir(exist_ok=True)
            # Instances of a gateway that was killed and could not stop them.
            stack.callback(kill_orphans, instances)
            if options.ready_file is not None:
                options.ready_file.unlink(missing_ok=True)
                stack.callback(options.ready_file.unlink, missing_ok=True)
            stop_s = 2 * options.grace_s + _STOP_S
            async with Children(folder, stop_s) as children:
                broker = await _start_broker(options, folder, children, lock.fileno())
                running = await _start(options, folder, children, broker)
                keeper.block_signals()
                # A stop signal that had arrived before cancels this task here.
                await asyncio.sleep(POLL_S)
                known = Handover(
                    children.kept(),
                    ready_text(running),
                    json.dumps(ready_document(running)),
                    str(options.ready_file or ""),
                    options.grace_s,
                    stop_s,
                    str(instances),
                    "" if options.data_dir else str(folder),
                )
                keeper.hand_over(known, [own_lock.fileno(), lock.fileno()])
        except _FAILURES as error:
            say(_reason(error))
            return 1


_FAILURES = (
    *(EmbeddedBrokerError, ChildError, DevFunctionError, FolderInUseError, MasterKeyError),
    *(StoreUnavailable, SettingsError, aiohttp.ClientError, OSError),
)


def _reason(error: Exception) -> str:
    """Return what failed; of a file which one, without the number of the error."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


class Broker(NamedTuple):
    """The broker of queue and store, once it is ready; ``gateway_env`` are settings for it."""

    url: str
    gateway_env: dict[str, str]


async def _start_broker(options: DevOptions, folder: Path, children: Children, lock: int) -> Broker:
    """Start the broker, which inherits the file descriptor ``lock``."""
    port = options.nats_port if options.queue == "nats" else 0
    broker = embedded_broker(folder, HOST, port, options.queue)
    say(f"starting {broker.name}")
    server = children.start(broker.name, broker.argv, broker.environment, [lock])
    with _telling_of(server):
        await server.line_with(broker.ready_line, _START_S)
        url = broker.url(await server.line_with(broker.listening_line, _START_S))
    backend = {"GATEWAY_QUEUE__BACKEND": options.queue, "GATEWAY_STORE__BACKEND": options.queue}
    return Broker(url, backend | broker.gateway_environment(url))


def _telling_of(child: Child) -> contextlib.AbstractContextManager[None]:
    return telling(say, lambda elapsed_s: [f"waiting for {child.name} ({elapsed_s:.0f} s)"])


async def _start(options: DevOptions, folder: Path, children: Children, broker: Broker) -> Running:
    """Start the gateway and deploy the functions; return once each has responded to a call.

    gRPC functions are not called, only healthy: a call needs a client for HTTP/2.
    """
    say("starting the gateway")
    env = _gateway_env(options, folder, broker.gateway_env)
    prepared = await prepare_store(read_settings(None, env), folder)
    if prepared.bootstrap_secret is not None:
        # Printed at once: it cannot be read again, even if this start fails.
        say(f"bootstrap secret for admin tokens, shown only once: {prepared.bootstrap_secret}")
    _raise_if_cancelled()
    certificates = None
    if options.tls_port is not None:
        certificates = make_certificates(folder / "tls")
        env |= _tls_env(options.tls_port, certificates)
    api_url, ready = await _start_gateway(options, env, children)
    port, tls_port = (int(ready["listen"][at].rsplit(":", 1)[1]) for at in (-1, 0))
    async with aiohttp.ClientSession() as session:
        api = DevApi(session, api_url, prepared.api_key)
        functions = await _deploy(options, folder / "instances", children, api, prepared)
        running = Running(
            functions,
            prepared.api_key,
            port,
            f"http://{ready['admin']}",
            broker.url,
            folder,
        )
        if certificates is not None:
            secure = Secured(tls_port, str(certificates.authority))
            running = replace(running, secured=secure)
        for function in functions:
            if not function.options.speaks_grpc:
                await _wait_for_response(session, running, function, children)
    return running


async def _start_gateway(
    options: DevOptions, env: dict[str, str], children: Children
) -> tuple[str, dict[str, Any]]:
    """Return the URL of the API, and the fields of ``gateway.ready`` of what serves invocations.

    One process with all roles is smaller than two. Several for invocations are smaller without the
    API, which then has a process of its own.
    """
    serve = [sys.executable, "-P", "-m", "gateway", "serve"]
    if options.processes == 1:
        ready = await _ready(children.start("gateway", serve, env))
        return _url(ready), ready
    control = children.start(
        "control", [*serve, "--roles", "api,provision"], {**env, **_CONTROL_ENV}
    )
    api_url = _url(await _ready(control))
    gateway = children.start(
        "gateway",
        [*serve, "--roles", "invocation"],
        {**env, "GATEWAY_CONTROL__API_URL": api_url},
    )
    return api_url, await _ready(gateway)


async def _ready(gateway: Child) -> dict[str, Any]:
    with _telling_of(gateway):
        return await gateway.event("gateway.ready", _START_S)


def _url(ready: dict[str, Any]) -> str:
    # Addresses with TLS come first.
    return f"http://{ready['listen'][-1]}"


def _raise_if_cancelled() -> None:
    """Raise `asyncio.CancelledError` if the cancellation of this task was swallowed.

    nats-py waits with ``asyncio.wait_for``, which can do so on Python 3.11 (cpython #86296).
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _deploy(
    options: DevOptions, instances: Path, children: Children, api: DevApi, prepared: Prepared
) -> tuple[DevFunction, ...]:
    """Deploy the functions; return them once all servers are healthy."""
    for wanted in options.functions:
        say(_deploying(wanted))
    deployed = [
        await api.deploy(wanted, prepared.earlier.get(wanted.name), options.concurrency)
        for wanted in options.functions
    ]
    servers = {function: _loading(function.options) for function in deployed}
    with telling(
        say, lambda elapsed_s: [server.describe(elapsed_s) for server in servers.values()]
    ):
        poll_s = POLL_S
        while servers:
            children.check()
            for function, server in tuple(servers.items()):
                server.follow(instances, await api.instance_ids(function))
                try:
                    if await api.is_active(function):
                        del servers[function]
                except DevFunctionError as error:
                    raise _explained(error, function.options, server, options) from error
            await asyncio.sleep(poll_s)
            poll_s = min(poll_s * 1.2, _MAX_POLL_S)
    return tuple(deployed)


def _deploying(function: FunctionOptions) -> str:
    if function.is_demo:
        return "deploying the demo function, waiting for its inference server"
    if function.runs_already:
        return f"deploying {function.name}, which is served by {function.template}"
    hint = "" if function.uses_port else "; its command has no {port}, so it must listen on $PORT"
    return f"deploying {function.name}, waiting for its inference server{hint}"


def _loading(function: FunctionOptions) -> LoadingServer:
    return LoadingServer(function.name, function.health_check, runs_already=function.runs_already)


def _explained(
    error: DevFunctionError, function: FunctionOptions, server: LoadingServer, options: DevOptions
) -> DevFunctionError:
    """Return the error with what the health check found last, if that is why it failed."""
    if "deploy deadline" not in str(error):
        return DevFunctionError(f"the inference server of {function.name} does not start\n{error}")
    advice = f"was not healthy within {options.start_timeout_s:g} s (--start-timeout); "
    option = "--grpc" if function.speaks_grpc else "--health-path"
    return DevFunctionError(
        f"the inference server of {function.name} {advice}{server.finding()} "
        f"({option})\n{server.tail()}".rstrip()
    )


async def _wait_for_response(
    session: aiohttp.ClientSession, running: Running, function: DevFunction, children: Children
) -> None:
    """Return once the inference server has responded to an invocation."""
    headers = {
        "authorization": f"Bearer {running.api_key}",
        "function-id": function.function_id,
        "nvcf-poll-seconds": str(HEALTH_TIMEOUT_S),
    }
    url, name = running.url + function.options.health_path, function.options.name
    try:
        with telling(
            say, lambda elapsed_s: [f"waiting for a response of {name} ({elapsed_s:.0f} s)"]
        ):
            async with asyncio.timeout(_RESPONSE_S):
                while True:
                    children.check()
                    with contextlib.suppress(aiohttp.ClientError):
                        async with session.get(url, headers=headers) as response:
                            if response.headers.get("nvcf-status") == "fulfilled":
                                return
                    await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise ChildError(
            f"no response from the inference server of {name} in {_RESPONSE_S:.0f} s"
        ) from None


def _tls_env(port: int, certificates: DevCertificates) -> dict[str, str]:
    return {
        "GATEWAY_TLS__LISTEN": f"{HOST}:{port}",
        "GATEWAY_TLS__CERTIFICATES": str(certificates.chain),
        "GATEWAY_TLS__KEYS": str(certificates.key),
    }


_CONTROL_ENV = {
    "GATEWAY_TLS__LISTEN": "",
    "GATEWAY_EDGE__LISTEN": f"{HOST}:0",
    "GATEWAY_EDGE__PROCESSES": "1",
    "GATEWAY_ADMIN__LISTEN": f"{HOST}:0",
}


def _gateway_env(options: DevOptions, folder: Path, broker_env: dict[str, str]) -> dict[str, str]:
    cluster = {
        "name": CLUSTER,
        "gpus": [{"name": "CPU", "instance_types": [{"name": "local"}]}],
        "images": {function.name: function.template for function in options.functions},
    }
    return {
        "GATEWAY_CLUSTERS": json.dumps([cluster]),
        "GATEWAY_EDGE__LISTEN": f"{HOST}:{options.port}",
        "GATEWAY_EDGE__PROCESSES": str(options.processes),
        "GATEWAY_ATTACH__LISTEN": f"{HOST}:0",
        "GATEWAY_ADMIN__LISTEN": f"{HOST}:{options.admin_port}",
        **broker_env,
        "GATEWAY_CONTROL__SECRETS_KEY_FILE": str(folder / "master.key"),
        "GATEWAY_CONTROL__DEPLOY_TIMEOUT_S": str(options.start_timeout_s),
        "GATEWAY_OBJECTS__FOLDER": str(folder / "objects"),
        "GATEWAY_PROVISION__FOLDER": str(folder / "instances"),
        "GATEWAY_PROVISION__AT_STOP": "end",
        "GATEWAY_PROVISION__STOP_GRACE_S": str(options.grace_s),
        "GATEWAY_PROVISION__RESTART_FIRST_S": "0.2",
        "GATEWAY_PROVISION__MAX_FAILED_STARTS": "2",
        "GATEWAY_DRAIN__GRACE_S": "0",
        **log_env(),
        "GATEWAY_DRAIN__TIMEOUT_S": str(options.grace_s),
    }


def log_env() -> dict[str, str]:
    """Return settings with which every process writes ``gateway.ready`` so that it can be read."""
    env = {"GATEWAY_LOG__FORMAT": "json"}
    if os.environ.get("GATEWAY_LOG__LEVEL") in {"warning", "error"}:
        env["GATEWAY_LOG__LEVEL"] = "info"
    return env


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


def check_demo(functions: Iterable[FunctionOptions]) -> None:
    """Raise `OptionError` if one is the demo and its requirements are not installed."""
    if any(function.is_demo for function in functions) and not (
        find_spec("fastapi") and find_spec("uvicorn")
    ):
        raise OptionError(
            "the demo inference server requires: pip install 'invocation-gateway[examples]'; "
            "or give your own with --inference-command"
        )
