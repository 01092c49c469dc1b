"""An order as two command lines and their environments. Pure.

The container image is stood in for by a command template of the cluster, chosen by the image:
``process://uvicorn examples.echo:app --port {port}``. ``{port}`` is the port it must listen on,
``{python}`` our interpreter, ``{image}`` the image's name. The function's own ``containerArgs``
follow. No shell is involved.

What Linux cannot execute is refused here, in words that its user understands: execve(2) takes at
most 128 KiB in one argument or variable, and a quarter of the stack's limit (by default 8 MiB) in
all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.provision.backend import Order
from gateway.provision.local.shellwords import split

SCHEME = "process://"
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")
"""What instances get of our own environment: never our settings, which hold credentials."""
MAX_STRING_BYTES = 131_072 - 1
"""Of one argument, or of a variable with its name and ``=``: 32 pages with the NUL at its end."""
MAX_ALL_BYTES = (2 << 20) - 4096
"""Of all arguments and variables, each counted with its NUL and the pointer to it."""
MAX_IMAGE_CHARS = 4096
_POINTER_BYTES = 8
_SHOWN_CHARS = 200
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
    """Return how to run the inference server; ``template`` is the one for `image_of` the order.

    Raises `CommandError`.
    """
    spec = order.details.spec
    if template is None or _text(spec, "helmChart"):
        raise CommandError(_no_command(order))
    if not template.startswith(SCHEME):
        raise CommandError(f"{template!r} is no command: it must begin with {SCHEME}")
    values = {"{port}": str(seat.port), "{python}": python, "{image}": image_of(order)}
    words = _words(template.removeprefix(SCHEME), "the cluster's command")
    words += _words(_text(spec, "containerArgs"), "containerArgs")
    if not words:
        raise CommandError("the command is empty")
    return _executable(
        tuple(_filled(word, values) for word in words),
        {**inherited, **_declared(spec), **_platform(order, seat)},
    )


def image_of(order: Order) -> str:
    """Return the container image, empty when there is none. Raises `CommandError`."""
    image = _text(order.details.spec, "containerImage")
    if len(image) > MAX_IMAGE_CHARS:
        raise CommandError(f"containerImage is longer than {MAX_IMAGE_CHARS:,} characters")
    return image


def worker_command(
    order: Order,
    argv: tuple[str, ...],
    seat: Seat,
    drain_s: float,
    inherited: Mapping[str, str],
) -> Command:
    """Return how to run the worker agent beside it (`config/worker.toml`).

    Raises `CommandError`.
    """
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
    return _executable(argv, environment)


def _no_command(order: Order) -> str:
    """Return why there is no command for what the function is made of."""
    spec, cluster = order.details.spec, repr(order.spec.backend)
    runs = f"cluster {cluster} runs commands in place of container images"
    if _text(spec, "helmChart"):
        return f"{runs}: it cannot run a Helm chart (helmChart)"
    image = image_of(order)
    if not image:
        return f"{runs}: it cannot run models without one (containerImage)"
    return f"cluster {cluster} has no command for the image {_start_of(image)}"


def _words(line: str, what: str) -> list[str]:
    if len(line) > MAX_STRING_BYTES:
        raise CommandError(
            f"{what} can have at most {MAX_STRING_BYTES:,} characters, not {len(line):,}"
        )
    try:
        return split(line)
    except ValueError as error:
        raise CommandError(f"{what} cannot be split into words: {error}") from error


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        if len(word) + word.count(name) * (len(value) - len(name)) > MAX_STRING_BYTES:
            raise CommandError(f"{_start_of(word)} is too long once its {name} is filled in")
        word = word.replace(name, value)
    return word


def _executable(argv: tuple[str, ...], environment: Mapping[str, str]) -> Command:
    """Return the command unless Linux could not execute it. Raises `CommandError`."""
    total = sum(_size(word, f"the argument {_start_of(word)}") for word in argv)
    for name, value in environment.items():
        if not name or "=" in name:
            raise CommandError(f"{_start_of(name)} is no name of an environment variable")
        total += _size(f"{name}={value}", f"the environment variable {_start_of(name)}")
    if total > MAX_ALL_BYTES:
        raise CommandError(
            f"arguments and environment can have at most {MAX_ALL_BYTES:,} bytes together, "
            f"not {total:,}"
        )
    return Command(argv, environment)


def _size(text: str, what: str) -> int:
    """Return the bytes that ``text`` takes of those that all may have. Raises `CommandError`."""
    try:
        size = len(text.encode(errors="surrogateescape"))
    except UnicodeEncodeError as error:
        raise CommandError(f"{what} is not valid Unicode") from error
    if size > MAX_STRING_BYTES:
        raise CommandError(f"{what} can have at most {MAX_STRING_BYTES:,} bytes, not {size:,}")
    if "\0" in text:
        raise CommandError(f"{what} contains a NUL")
    return size + 1 + _POINTER_BYTES


def _start_of(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}...")


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
