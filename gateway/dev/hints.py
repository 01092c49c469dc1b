"""What `gateway dev` prints when it is ready: addresses, and calls that work when pasted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gateway.dev.functions import DevFunction
from gateway.dev.options import GRPC_HEALTH_CHECK, HOST


class Secured(NamedTuple):
    """The port with TLS, and the file of the authority that a client has to trust."""

    port: int
    authority: str

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


@dataclass(frozen=True, slots=True)
class Running:
    """The running system; ``api_key`` may call each of its functions.

    ``broker_url`` is where queue and store are: ``nats://`` or ``redis://``.
    """

    functions: tuple[DevFunction, ...]
    api_key: str
    port: int
    admin_url: str
    broker_url: str
    folder: Path
    secured: Secured | None = None

    @property
    def is_on_redis(self) -> bool:
        return self.broker_url.startswith("redis:")

    @property
    def address(self) -> str:
        """The address for clients, which speak no TLS there: ``host:port``."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def host_of(self, function: DevFunction) -> str:
        """Return the host name at which a function is called."""
        return f"{function.function_id}.invocation.localhost"

    def base_url_of(self, function: DevFunction) -> str:
        """Return the base URL of a function, without a slash at its end."""
        return f"{self.url}/f/{function.options.name}"


def ready_document(running: Running) -> dict[str, object]:
    """Return the content of the ready file: addresses, key, and the ids of the functions.

    ``function_id`` and ``function_version_id`` are those of the first function.
    """
    first, secured = running.functions[0], running.secured
    return {
        **({"tls_url": secured.url, "tls_authority": secured.authority} if secured else {}),
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
        "redis_url" if running.is_on_redis else "nats_url": running.broker_url,
    }


def ready_text(running: Running) -> str:
    """Return the text that says what runs where, and how to call it."""
    lines = [
        "",
        "Ready. Ctrl-C stops everything.",
        "",
        *(_function_line(running, function) for function in running.functions),
        f"  API         {running.url}",
        f"              export GATEWAY_API_URL={running.url} GATEWAY_API_KEY={running.api_key}",
        *_tls_lines(running.secured),
        f"  metrics     {running.admin_url}/metrics",
        *_broker_lines(running),
        f"  logs        {running.folder}",
        f"              gateway logs NAME --folder {running.folder}/instances",
    ]
    if running.functions[0].options.speaks_grpc:
        calls = [*_grpc_calls(running), *_grpc_python_lines(running)]
    else:
        calls = [*_calls(running), *_openai_lines(running)]
    return "\n".join(lines) + "".join(f"\n\n{call}" for call in calls)


def _function_line(running: Running, function: DevFunction) -> str:
    line = (
        f"  function    {function.options.name}: {function.function_id}, "
        f"version {function.version_id}\n"
    )
    if function.options.speaks_grpc:
        return f"{line}              gRPC at {running.address}, with the metadata function-id"
    return (
        f"{line}"
        f"              http://{running.host_of(function)}:{running.port}/\n"
        f"              {running.base_url_of(function)}/ for tools with a base URL and a key"
    )


def _tls_lines(secured: Secured | None) -> Sequence[str]:
    if secured is None:
        return []
    file = secured.authority
    return [
        f"  TLS         {secured.url}, HTTP/2 and HTTP/1.1; also for the host names of functions",
        f"              trust its authority: curl --cacert {file}",
        f"              SSL_CERT_FILE={file} for Python and Go, NODE_EXTRA_CA_CERTS for Node",
    ]


def _broker_lines(running: Running) -> Sequence[str]:
    if not running.is_on_redis:
        return [f"  NATS        {running.broker_url}"]
    return [
        f"  Redis       {running.broker_url}, the user is gateway, the password in",
        f"              {running.folder}/redis/gateway.password",
    ]


def _calls(running: Running) -> Sequence[str]:
    """Return calls of the first function in both forms, and one of each further function."""
    first, *others = running.functions
    by_host, by_header = _by_host(running, first), _by_header(running, first)
    if first.options.is_demo:
        return [
            "Call it, by host name or with the header function-id:",
            f"  curl {by_host} -d 'hello' {running.url}/echo",
            f"  curl -N {by_header} '{running.url}/sse?events=5&interval_ms=500'",
        ]
    first_url = f"'{running.url}{first.options.health_path}'"
    return [
        "Call any path of the server, by host name or with the header function-id:",
        f"  curl {by_host} {first_url}",
        f"  curl {by_header} {first_url}",
        *(
            f"  curl {_by_header(running, other)} '{running.url}{other.options.health_path}'"
            for other in others
        ),
    ]


def _openai_lines(running: Running) -> Sequence[str]:
    first = running.functions[0]
    interface = "OpenAI's interface"
    return [
        f"{interface if first.options.is_demo else f'A server with {interface}'}, in Python after "
        "pip install openai:",
        # Not indented, because Python would refuse it when pasted.
        f"from openai import OpenAI\n"
        f'client = OpenAI(base_url="{running.base_url_of(first)}/v1",\n'
        f'                api_key="{running.api_key}")\n'
        f"print(client.models.list())\n",
    ]


def _grpc_calls(running: Running) -> Sequence[str]:
    """Return a call of each function, which is gRPC."""
    return [
        "Call any method of the server with the metadata authorization and function-id. This lists "
        "its services, if it has server reflection:",
        *(
            f"  grpcurl -plaintext {_by_metadata(running, function)} {running.address} list"
            for function in running.functions
        ),
    ]


def _grpc_python_lines(running: Running) -> Sequence[str]:
    first = running.functions[0]
    return [
        "Its health check, in Python after pip install grpcio:",
        # Not indented, because Python would refuse it when pasted.
        f"import grpc\n"
        f'channel = grpc.insecure_channel("{running.address}")\n'
        f'metadata = [("authorization", "Bearer {running.api_key}"),\n'
        f'            ("function-id", "{first.function_id}")]\n'
        f'check = channel.unary_unary("/{GRPC_HEALTH_CHECK}")\n'
        f'print(check(b"", metadata=metadata))\n',
    ]


def _by_metadata(running: Running, function: DevFunction) -> str:
    return f"-H 'authorization: Bearer {running.api_key}' -H 'function-id: {function.function_id}'"


def _by_host(running: Running, function: DevFunction) -> str:
    return f"{_authorization(running)} -H 'Host: {running.host_of(function)}'"


def _by_header(running: Running, function: DevFunction) -> str:
    return f"{_authorization(running)} -H 'function-id: {function.function_id}'"


def _authorization(running: Running) -> str:
    return f"-H 'Authorization: Bearer {running.api_key}'"
