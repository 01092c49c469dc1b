"""An order as two command lines and their environments. Pure.

The container image is stood in for by a command template of the cluster, chosen by the image:
``process://uvicorn examples.echo:app --port {port}``. ``{port}`` is the port it must listen on,
``{python}`` our interpreter, ``{image}`` the image's name. The function's own ``containerArgs``
follow. No shell is involved.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.provision.backend import Order

SCHEME = "process://"
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")
"""What instances get of our own environment: never our settings, which hold credentials."""
_DEFAULT_PORT = 8000


class CommandError(Exception):
    """The order cannot be turned into a command; another attempt cannot either."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one instance runs: its port on ``host``, and its secrets file."""

    host: str
    port: int
    secrets_file: Path


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)


def inference_command(
    order: Order, template: str | None, seat: Seat, python: str, inherited: Mapping[str, str]
) -> Command:
    """Return how to run the inference server. Raises `CommandError`."""
    spec = order.details.spec
    image = _text(spec, "containerImage")
    if template is None:
        raise CommandError(f"cluster {order.spec.backend!r} has no command for the image {image!r}")
    if not template.startswith(SCHEME):
        raise CommandError(f"{template!r} is no command: it must begin with {SCHEME}")
    values = {"{port}": str(seat.port), "{python}": python, "{image}": image}
    try:
        words = shlex.split(template.removeprefix(SCHEME))
        words += shlex.split(_text(spec, "containerArgs"))
    except ValueError as error:
        raise CommandError(f"the command cannot be split into words: {error}") from error
    if not words:
        raise CommandError("the command is empty")
    return Command(
        tuple(_filled(word, values) for word in words),
        {**inherited, **_declared(spec), **_platform(order, seat)},
    )


def worker_command(
    order: Order,
    argv: tuple[str, ...],
    seat: Seat,
    drain_s: float,
    inherited: Mapping[str, str],
) -> Command:
    """Return how to run the worker agent beside it (`config/worker.toml`)."""
    spec, details = order.details.spec, order.details
    health = spec.get("health")
    environment = {
        **inherited,
        "WORKER_FUNCTION__ID": details.function_id,
        "WORKER_FUNCTION__VERSION_ID": details.version_id,
        "WORKER_FUNCTION__NAME": _text(spec, "name"),
        "WORKER_INSTANCE__ID": order.instance.instance_id,
        "WORKER_INSTANCE__TYPE": order.spec.instance_type,
        "WORKER_INSTANCE__BACKEND": order.spec.backend,
        "WORKER_INFERENCE__HOST": seat.host,
        "WORKER_INFERENCE__PORT": str(seat.port),
        "WORKER_INFERENCE__MAX_CONCURRENCY": str(order.spec.concurrency),
        "WORKER_ADMIN__LISTEN": f"{seat.host}:0",
        "WORKER_DRAIN__TIMEOUT_S": f"{drain_s:g}",
        **(_probe(health, _number(spec, "inferencePort")) if isinstance(health, Mapping) else {}),
        **order.worker_environment,
    }
    return Command(argv, environment)


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _probe(health: Mapping[str, object], declared_port: int) -> dict[str, str]:
    """Return the worker's health settings; the declared port is the one the instance was given."""
    found = {}
    if uri := _text(health, "uri"):
        found["WORKER_HEALTH__PATH"] = uri if uri.startswith("/") else f"/{uri}"
    if timeout := _text(health, "timeout"):
        found["WORKER_HEALTH__TIMEOUT_S"] = timeout
    if status := _number(health, "expectedStatusCode"):
        found["WORKER_HEALTH__EXPECTED_STATUS"] = str(status)
    port = _number(health, "port")
    if port and port != (declared_port or _DEFAULT_PORT):
        found["WORKER_HEALTH__PORT"] = str(port)
    return found


def _declared(spec: Mapping[str, object]) -> dict[str, str]:
    """Return the function's own ``containerEnvironment``."""
    entries = spec.get("containerEnvironment")
    found = {}
    for entry in entries if isinstance(entries, list | tuple) else ():
        if isinstance(entry, Mapping) and (key := _text(entry, "key")):
            found[key] = _text(entry, "value")
    return found


def _platform(order: Order, seat: Seat) -> dict[str, str]:
    """Return what the platform tells the inference server; wins over what the function declares."""
    instance = order.instance
    return {
        "PORT": str(seat.port),
        "INFERENCE_PORT": str(seat.port),
        "INSTANCE_ID": instance.instance_id,
        "INSTANCE_TYPE": instance.instance_type,
        "GPU_NAME": instance.gpu,
        "FUNCTION_ID": instance.function_id,
        "FUNCTION_VERSION_ID": instance.version_id,
        "NCA_ID": instance.account,
        "NVCF_SECRETS_FILE": str(seat.secrets_file),
    }


def _text(members: Mapping[str, object], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else ""


def _number(members: Mapping[str, object], name: str) -> int:
    value = members.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
