"""What every backend gives to an instance: arguments, environments, the agent's settings. Pure.

Function versions are in the form of the API (`gateway.domain.model.VersionDetails.spec`).
"""

from collections.abc import Mapping

from gateway.domain.agent_settings import agent_settings
from gateway.provision.backend import LaunchSpec
from gateway.provision.shellwords import split

MAX_STRING_BYTES = 131_072 - 1
"""Limit of an argument, or of a variable with name and ``=``: 32 pages, less the NUL at the end
(execve(2) on Linux)."""
MAX_IMAGE_CHARS = 4096
_SHOWN_CHARS = 200


class LaunchError(Exception):
    """The launch spec cannot be run; another attempt fails as well."""


def image_of(launch: LaunchSpec) -> str:
    """Return the container image, empty if there is none. Raises `LaunchError`."""
    image = text_of(launch.details.spec, "containerImage")
    if len(image) > MAX_IMAGE_CHARS:
        raise LaunchError(f"containerImage is longer than {MAX_IMAGE_CHARS:,} characters")
    return image


def container_args(launch: LaunchSpec) -> list[str]:
    """Return the function's ``containerArgs`` as words. Raises `LaunchError`."""
    return words_of(text_of(launch.details.spec, "containerArgs"), "containerArgs")


def words_of(line: str, what: str) -> list[str]:
    """Return the words of ``line``, which is ``what``. Raises `LaunchError`."""
    if len(line) > MAX_STRING_BYTES:
        raise LaunchError(
            f"{what} can have at most {MAX_STRING_BYTES:,} characters, not {len(line):,}"
        )
    try:
        return split(line)
    except ValueError as error:
        raise LaunchError(f"{what} cannot be split into words: {error}") from error


def function_environment(spec: Mapping[str, object]) -> dict[str, str]:
    """Return the function's ``containerEnvironment``."""
    entries = spec.get("containerEnvironment")
    found = {}
    for entry in entries if isinstance(entries, list | tuple) else ():
        if isinstance(entry, Mapping) and (key := text_of(entry, "key")):
            found[key] = text_of(entry, "value")
    return found


def platform_environment(launch: LaunchSpec, port: int, secrets_file: str) -> dict[str, str]:
    """Return the platform's variables for the inference server; they override the function's."""
    instance = launch.instance
    return {
        "PORT": str(port),
        "INFERENCE_PORT": str(port),
        "INSTANCE_ID": instance.instance_id,
        "INSTANCE_TYPE": instance.instance_type,
        "GPU_NAME": instance.gpu,
        "FUNCTION_ID": instance.function_id,
        "FUNCTION_VERSION_ID": instance.version_id,
        "NCA_ID": instance.account,
        "NVCF_SECRETS_FILE": secrets_file,
    }


def worker_settings(launch: LaunchSpec, port: int, drain_s: float) -> dict[str, str]:
    """Return the settings of the worker agent of an inference server on ``port``.

    They are those of ``config/worker.toml``, without addresses and folders. ``drain_s`` is how many
    seconds it may take to finish its requests.
    """
    details = launch.details
    return {
        **agent_settings(details.spec),
        "WORKER_FUNCTION__ID": details.function_id,
        "WORKER_FUNCTION__VERSION_ID": details.version_id,
        "WORKER_INSTANCE__ID": launch.instance.instance_id,
        "WORKER_INSTANCE__TYPE": launch.spec.instance_type,
        "WORKER_INSTANCE__BACKEND": launch.spec.backend,
        "WORKER_INFERENCE__PORT": str(port),
        "WORKER_INFERENCE__MAX_CONCURRENCY": str(launch.spec.concurrency),
        "WORKER_DRAIN__TIMEOUT_S": f"{drain_s:g}",
    }


def start_of(text: str) -> str:
    """Return the beginning of ``text``, quoted, for a message."""
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}...")


def text_of(members: Mapping[str, object], name: str) -> str:
    """Return a member that is a text, empty if there is none."""
    value = members.get(name)
    return value if isinstance(value, str) else ""


def number_of(members: Mapping[str, object], name: str) -> int:
    """Return a member that is a whole number, 0 if there is none."""
    value = members.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
