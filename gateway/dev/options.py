"""The options of `gateway dev`, and the functions that they describe.

Nothing is started here; `DevOptions.check` looks at the file system and makes the data folder.

One function comes from ``--inference-command`` or ``--upstream`` (or is the demo), several from
``--function``. Its server is a command that is started for it, or runs already.
"""

import math
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from gateway.provision.local.command import SCHEME, address_of
from gateway.provision.shellwords import split
from http1.server.listener import MAX_PORT
from queueing.settings import Backend

HOST = "127.0.0.1"
DEMO = "demo"
DEMO_COMMAND = "{python} -P -m gateway.examples.inference --port {port}"
# -P: packages in the current folder must not shadow the gateway's.
OWN = "my-server"
"""Name of the function of one's own server, unless ``--function`` gives another."""
HEALTH_PATH = "/health"
GRPC_HEALTH_CHECK = "grpc.health.v1.Health/Check"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""Names of functions in the REST API."""
_PATH = re.compile(r"/[!-~]*")
_HTTP_PORT = 80
_LOOPBACK = frozenset({"localhost", "0.0.0.0", "::1"})  # noqa: S104 - compared, not bound


class OptionError(Exception):
    """The options make no sense; the message names the option."""


@dataclass(frozen=True, slots=True)
class FunctionOptions:
    """One function: ``template`` is what its cluster has in place of the container image.

    ``option`` is the option that named the server, for messages. ``speaks_grpc``: its server speaks
    gRPC; then ``health_path`` has no effect.
    """

    name: str
    template: str
    health_path: str
    option: str
    speaks_grpc: bool = False

    @property
    def health_check(self) -> str:
        """What its server is asked, for messages."""
        return GRPC_HEALTH_CHECK if self.speaks_grpc else f"GET {self.health_path}"

    @property
    def is_demo(self) -> bool:
        """Whether it is the demo, whose paths are known."""
        return self.name == DEMO and self.template == SCHEME + DEMO_COMMAND

    @property
    def runs_already(self) -> bool:
        """Whether its server is started by somebody else."""
        return not self.template.startswith(SCHEME)

    @property
    def uses_port(self) -> bool:
        """Whether its server is told where to listen by its command, not only by ``PORT``."""
        return self.runs_already or "{port}" in self.template


@dataclass(frozen=True, slots=True)
class DevOptions:
    """The options of `gateway dev`. Port 0 means any free port; durations are seconds.

    ``tls_port`` is `None` without TLS.
    """

    functions: tuple[FunctionOptions, ...]
    port: int
    tls_port: int | None
    queue: Backend
    nats_port: int
    admin_port: int
    processes: int
    concurrency: int
    start_timeout_s: float
    data_dir: Path | None
    ready_file: Path | None
    grace_s: float

    def ports(self) -> list[tuple[str, int]]:
        """Return every port with the name of its option."""
        return [
            ("--port", self.port),
            ("--tls-port", self.tls_port or 0),
            ("--nats-port", self.nats_port),
            ("--admin-port", self.admin_port),
        ]

    def check(self) -> None:
        """Raise `OptionError` if the options contradict each other, or a file cannot be made.

        Makes the data folder.
        """
        _check_seconds("--start-timeout", self.start_timeout_s)
        _check_seconds("--grace", self.grace_s)
        self._check_ports()
        for function in self.functions:
            find_program(function)
        if self.data_dir is not None:
            _make_folder("--data-dir", self.data_dir)
        if self.ready_file is not None:
            if self.ready_file.is_dir():
                raise OptionError(f"--ready-file: {self.ready_file} is a folder")
            if not self.ready_file.parent.is_dir():
                raise OptionError(f"--ready-file: there is no folder {self.ready_file.parent}")
            _check_writable("--ready-file", self.ready_file.parent)

    def _check_ports(self) -> None:
        used: dict[int, str] = {}
        for option, first, count in (
            ("--port", self.port, 1),
            ("--tls-port", self.tls_port or 0, 1),
            ("--nats-port", self.nats_port, 1),
            # Each further process has its metrics one port higher.
            ("--admin-port", self.admin_port, self.processes),
        ):
            if not first:
                continue
            if first + count - 1 > MAX_PORT:
                raise OptionError(
                    f"{option} {first}: {count} processes need ports above {MAX_PORT}"
                )
            for port in range(first, first + count):
                if port in used:
                    raise OptionError(f"{option} and {used[port]} are both port {port}")
                used[port] = option
        for function in self.functions:
            address = address_of(function.template)
            if address is not None and address.port in used and _is_loopback(address.host):
                raise OptionError(
                    f"port {address.port} is that of the server at {function.template}: choose "
                    f"another with {used[address.port]} (0 means any free port)"
                )


def functions_of(
    inference_command: str | None,
    running_server: str | None,
    functions: Sequence[str],
    health_paths: Sequence[str],
    *,
    speak_grpc: bool = False,
) -> tuple[FunctionOptions, ...]:
    """Return the functions that the options of these values describe. Raises `OptionError`.

    ``functions`` are texts ``name=command`` or ``name=URL``, ``health_paths`` ``path`` or
    ``name=path``. ``speak_grpc``: the servers of all of them speak gRPC.
    """
    given = [
        option
        for option, value in (
            ("--inference-command", inference_command is not None),
            ("--upstream", running_server is not None),
            ("--function", bool(functions)),
        )
        if value
    ]
    if len(given) > 1:
        raise OptionError(
            f"{' and '.join(given)} exclude each other: give several servers as "
            "--function NAME=COMMAND, one that already runs as --function NAME=URL"
        )
    own = "a server of your own (--inference-command, --upstream or --function)"
    if not given and health_paths:
        raise OptionError(f"--health-path is for {own}; the demo's is known")
    if not given and speak_grpc:
        raise OptionError(f"--grpc is for {own}; the demo speaks HTTP")
    if speak_grpc and health_paths:
        raise OptionError(
            "--grpc and --health-path exclude each other: a gRPC server has no health path, "
            f"it must implement {GRPC_HEALTH_CHECK}"
        )
    option = given[0] if given else ""
    if inference_command is not None:
        servers = {OWN: SCHEME + _checked_command(inference_command, option)}
    elif running_server is not None:
        servers = {OWN: _checked_url(running_server, option)}
    elif functions:
        servers = _named_servers(functions)
    else:
        servers = {DEMO: SCHEME + DEMO_COMMAND}
    paths = _paths_by_name(health_paths, servers)
    return tuple(
        FunctionOptions(
            name,
            template,
            paths[name],
            f"{option} {name}".removesuffix(f" {OWN}"),
            speaks_grpc=speak_grpc,
        )
        for name, template in servers.items()
    )


def find_program(function: FunctionOptions) -> None:
    """Raise `OptionError` if the program of its command is not there. Reads the file system."""
    if function.runs_already:
        return
    program = split(function.template.removeprefix(SCHEME))[0].replace("{python}", sys.executable)
    if shutil.which(program) is not None:
        return
    if "/" not in program:
        raise OptionError(f"{function.option}: there is no program {program!r} on the PATH")
    what = "cannot be executed" if Path(program).exists() else "does not exist"
    raise OptionError(f"{function.option}: {program} {what}")


def _named_servers(functions: Iterable[str]) -> dict[str, str]:
    servers: dict[str, str] = {}
    for text in functions:
        name, found, server = text.partition("=")
        if not found or not _NAME.fullmatch(name):
            raise OptionError(
                f"--function {text!r}: give NAME=COMMAND or NAME=URL; a name consists of letters, "
                "digits, - and _"
            )
        if name in servers:
            raise OptionError(f"--function: two functions are called {name!r}")
        option = f"--function {name}"
        if re.match(r"https?://", server):
            servers[name] = _checked_url(server, option)
        else:
            servers[name] = SCHEME + _checked_command(server, option)
    return servers


def _checked_command(command: str, option: str) -> str:
    try:
        words = split(command)
    except ValueError as error:
        raise OptionError(f"{option} cannot be split into words: {error}") from error
    if not words:
        raise OptionError(f"{option}: the command is empty")
    return command


def _checked_url(url: str, option: str) -> str:
    """Return the URL as ``http://host:port``."""
    if url.startswith("https://"):
        raise OptionError(f"{option} {url}: the worker speaks plain HTTP; https:// is not possible")
    if not url.startswith("http://"):
        raise OptionError(f"{option} {url!r}: give http://HOST:PORT")
    authority, _, path = url.removeprefix("http://").partition("/")
    if path:
        raise OptionError(
            f"{option} {url}: give http://HOST:PORT without the path; callers give the path"
        )
    for found in (f"http://{authority}", f"http://{authority}:{_HTTP_PORT}"):
        if address_of(found) is not None:
            return found
    raise OptionError(f"{option} {url}: give http://HOST:PORT")


def _paths_by_name(health_paths: Iterable[str], names: Iterable[str]) -> Mapping[str, str]:
    """Return the health path of each function: its own, that of all, or the default."""
    found: dict[str, str] = {}
    for text in health_paths:
        name, is_named, path = ("", "", text) if text.startswith("/") else text.partition("=")
        if (not name and is_named) or not _PATH.fullmatch(path):
            raise OptionError(
                f"--health-path {text!r}: give a path such as {HEALTH_PATH}, or NAME=PATH"
            )
        if name and name not in names:
            raise OptionError(
                f"--health-path {text!r}: there is no function {name!r}, only {', '.join(names)}"
            )
        if name in found:
            raise OptionError(f"--health-path is given twice{f' for {name}' if name else ''}")
        found[name] = path
    return {name: found.get(name, found.get("", HEALTH_PATH)) for name in names}


def _make_folder(option: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OptionError(f"{option}: {folder} is not a folder") from None
    except OSError as error:
        raise OptionError(
            f"{option}: the folder {folder} cannot be made: {error.strerror}"
        ) from None
    _check_writable(option, folder)


def _check_writable(option: str, folder: Path) -> None:
    try:
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OptionError(
            f"{option}: nothing can be written in the folder {folder}: {error.strerror}"
        ) from None


def _check_seconds(option: str, value: float) -> None:
    if not math.isfinite(value):
        raise OptionError(f"{option}: {value} is not a number of seconds")


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host.lower() in _LOOPBACK
