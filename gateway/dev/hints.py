"""What `gateway dev` prints when it is ready: addresses, and calls that work when pasted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.dev.functions import DevFunction
from gateway.dev.options import HOST


@dataclass(frozen=True, slots=True)
class Running:
    """The running system; ``api_key`` may call each of its functions."""

    functions: tuple[DevFunction, ...]
    api_key: str
    port: int
    admin_url: str
    nats_url: str
    folder: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def host_of(self, function: DevFunction) -> str:
        """Return the host name at which a function is called."""
        return f"{function.function_id}.invocation.localhost"


def ready_document(running: Running) -> dict[str, object]:
    """Return the content of the ready file: addresses, key, and the ids of the functions.

    ``function_id`` and ``function_version_id`` are those of the first function.
    """
    first = running.functions[0]
    return {
        "invocation_url": running.url,
        "api_url": running.url,
        "function_id": first.function_id,
        "function_version_id": first.version_id,
        "functions": {
            function.options.name: {
                "function_id": function.function_id,
                "function_version_id": function.version_id,
            }
            for function in running.functions
        },
        "api_key": running.api_key,
        "nats_url": running.nats_url,
    }


def ready_text(running: Running) -> str:
    """Return the text that says what runs where, and how to call it."""
    sections = [
        "",
        "Ready. Ctrl-C stops everything.",
        "",
        *(_function_line(running, function) for function in running.functions),
        f"  API         {running.url}",
        f"              export GATEWAY_API_URL={running.url} GATEWAY_API_KEY={running.api_key}",
        f"  metrics     {running.admin_url}/metrics",
        f"  NATS        {running.nats_url}",
        f"  logs        {running.folder}",
        *(line for function in running.functions for line in _calls(running, function)),
        *_sdk_lines(running, running.functions[0]),
    ]
    return "\n".join(sections)


def _function_line(running: Running, function: DevFunction) -> str:
    return (
        f"  function    {function.options.name}: {function.function_id}, "
        f"version {function.version_id}\n"
        f"              http://{running.host_of(function)}:{running.port}/"
    )


def _calls(running: Running, function: DevFunction) -> Sequence[str]:
    if function.options.is_demo:
        return _paragraphs(
            [
                "Call it, by host name or with the header function-id:",
                f"  curl {_by_host(running, function)} -d 'hello' {running.url}/echo",
                f"  curl -N {_by_header(running, function)} "
                f"'{running.url}/sse?events=5&interval_ms=500'",
            ]
        )
    path = function.options.health_path
    return _paragraphs(
        [
            f"Call {function.options.name} with any path of its server, by host name or with the "
            "header function-id:",
            f"  curl {_by_host(running, function)} '{running.url}{path}'",
            f"  curl {_by_header(running, function)} '{running.url}{path}'",
        ]
    )


def _sdk_lines(running: Running, function: DevFunction) -> Sequence[str]:
    what = "It has" if function.options.is_demo else "If the server has"
    return _paragraphs(
        [
            f"{what} OpenAI's interface; in Python, after pip install openai:",
            # Not indented, because Python would refuse it when pasted.
            f"from openai import OpenAI\n"
            f'client = OpenAI(base_url="{running.url}/v1", api_key="{running.api_key}",\n'
            f'                default_headers={{"function-id": "{function.function_id}"}})\n'
            f"print(client.models.list())\n",
        ]
    )


def _by_host(running: Running, function: DevFunction) -> str:
    return f"{_authorization(running)} -H 'Host: {running.host_of(function)}'"


def _by_header(running: Running, function: DevFunction) -> str:
    return f"{_authorization(running)} -H 'function-id: {function.function_id}'"


def _authorization(running: Running) -> str:
    return f"-H 'Authorization: Bearer {running.api_key}'"


def _paragraphs(lines: Iterable[str]) -> Sequence[str]:
    """Return the lines, each after an empty one."""
    return [line for text in lines for line in ("", text)]
