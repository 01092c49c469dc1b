"""Builds the two command lines of an instance, and their environments, from a launch spec. Pure.

In place of a container image, a cluster configures a command template for it:
``process://uvicorn my_model:app --port {port}``. ``{port}`` becomes the port to listen on,
``{python}`` our interpreter, ``{image}`` the name of the image. The function's own
``containerArgs`` are appended. No shell is involved.

``http://host:port`` in place of a command is an inference server that runs already: an instance is
then a worker agent alone, and nothing is started or stopped but that.

A command that Linux cannot execute is refused here, with a message for its user: execve(2) takes at
most 128 KiB in one argument or variable, and a quarter of the stack's limit (by default 8 MiB) in
all of them together.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway.provision.backend import LaunchSpec
from gateway.provision.launch import (
    MAX_STRING_BYTES,
    LaunchError,
    container_args,
    function_environment,
    image_of,
    platform_environment,
    start_of,
    text_of,
    words_of,
    worker_settings,
)

SCHEME = "process://"
_RUNNING = re.compile(r"http://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})/?")
"""URL of an inference server that runs already: the agent speaks no TLS and adds no path."""
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")
"""Variables that instances inherit: never the gateway's settings, which hold credentials."""
MAX_ALL_BYTES = (2 << 20) - 4096
"""Limit of all arguments and variables, each counted with its NUL and the pointer to it."""
_POINTER_BYTES = 8
_MAX_PORT = 65535


class ServerAddress(NamedTuple):
    """Where an inference server listens; an IPv6 address without brackets."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one instance was given: where its server listens, and its secrets file.

    ``admin_host`` is where its worker listens.
    """

    host: str
    port: int
    secrets_file: Path
    admin_host: str = "127.0.0.1"

    @property
    def folder(self) -> Path:
        """The instance's own folder."""
        return self.secrets_file.parent


@dataclass(frozen=True, slots=True)
class Command:
    """Arguments and environment of a process."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)


def address_of(url: str) -> ServerAddress | None:
    """Return the address in ``http://host:port``; `None` if it is anything else."""
    found = _RUNNING.fullmatch(url)
    if found is None or not 0 < int(found[3]) <= _MAX_PORT:
        return None
    return ServerAddress(found[1] or found[2], int(found[3]))


def running_server(launch: LaunchSpec, template: str | None) -> ServerAddress | None:
    """Return the address of the server that runs already; `None` if one is to be started.

    Raises `LaunchError` if the function has settings that such a server cannot get.
    """
    address = None if template is None else address_of(template)
    if address is not None:
        for name in ("helmChart", "containerArgs", "containerEnvironment", "telemetries"):
            if launch.details.spec.get(name):
                raise LaunchError(
                    f"{name} cannot be given to a server that runs already: {template}"
                )
    return address


def inference_command(
    launch: LaunchSpec,
    template: str | None,
    allocation: Allocation,
    python: str,
    inherited: Mapping[str, str],
) -> Command:
    """Return the command of the inference server. Raises `LaunchError`.

    ``template`` is the cluster's command template for the container image, if it has one.
    """
    spec = launch.details.spec
    if template is None or text_of(spec, "helmChart"):
        raise LaunchError(_explain_no_command(launch))
    if not template.startswith(SCHEME):
        raise LaunchError(
            f"{template!r} is neither a command, which begins with {SCHEME}, "
            "nor the address of a server that runs already, http://host:port"
        )
    values = {"{port}": str(allocation.port), "{python}": python, "{image}": image_of(launch)}
    words = words_of(template.removeprefix(SCHEME), "the cluster's command")
    words += container_args(launch)
    if not words:
        raise LaunchError("the command is empty")
    return _check_command(
        tuple(_fill(word, values) for word in words),
        {
            **inherited,
            **function_environment(spec),
            **launch.variables,
            **platform_environment(launch, allocation.port, str(allocation.secrets_file)),
        },
    )


def worker_command(
    launch: LaunchSpec,
    argv: tuple[str, ...],
    allocation: Allocation,
    drain_s: float,
    inherited: Mapping[str, str],
) -> Command:
    """Return the command of the worker agent, ``argv`` with its settings in the environment.

    The settings are those of ``config/worker.toml``. Raises `LaunchError`.
    """
    environment = {
        **inherited,
        **worker_settings(launch, allocation.port, drain_s),
        "WORKER_INFERENCE__HOST": allocation.host,
        "WORKER_INFERENCE__ASSET_DIR": str(allocation.folder / "inputAssets"),
        "WORKER_INFERENCE__LARGE_OUTPUT_DIR": str(allocation.folder / "response"),
        "WORKER_ADMIN__LISTEN": f"{allocation.admin_host}:0",
        **launch.worker_environment,
    }
    return _check_command(argv, environment)


def _explain_no_command(launch: LaunchSpec) -> str:
    """Return why the cluster has no command for the function's image, Helm chart or models."""
    spec, cluster = launch.details.spec, repr(launch.spec.backend)
    runs = f"cluster {cluster} runs commands in place of container images"
    if text_of(spec, "helmChart"):
        return f"{runs}: it cannot run a Helm chart (helmChart)"
    image = image_of(launch)
    if not image:
        return f"{runs}: it cannot run models without one (containerImage)"
    return f"cluster {cluster} has no command for the image {start_of(image)}"


def _fill(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        if len(word) + word.count(name) * (len(value) - len(name)) > MAX_STRING_BYTES:
            raise LaunchError(f"{start_of(word)} is too long once its {name} is filled in")
        word = word.replace(name, value)
    return word


def _check_command(argv: tuple[str, ...], environment: Mapping[str, str]) -> Command:
    """Return the command. Raises `LaunchError` if Linux cannot execute it."""
    total = sum(_size(word, f"the argument {start_of(word)}") for word in argv)
    for name, value in environment.items():
        if not name or "=" in name:
            raise LaunchError(f"{start_of(name)} is not the name of an environment variable")
        total += _size(f"{name}={value}", f"the environment variable {start_of(name)}")
    if total > MAX_ALL_BYTES:
        raise LaunchError(
            f"arguments and environment can have at most {MAX_ALL_BYTES:,} bytes together, "
            f"not {total:,}"
        )
    return Command(argv, environment)


def _size(text: str, what: str) -> int:
    """Return how many bytes ``text`` takes of `MAX_ALL_BYTES`. Raises `LaunchError`."""
    try:
        size = len(text.encode(errors="surrogateescape"))
    except UnicodeEncodeError as error:
        raise LaunchError(f"{what} is not valid Unicode") from error
    if size > MAX_STRING_BYTES:
        raise LaunchError(f"{what} can have at most {MAX_STRING_BYTES:,} bytes, not {size:,}")
    if "\0" in text:
        raise LaunchError(f"{what} contains a NUL")
    return size + 1 + _POINTER_BYTES
