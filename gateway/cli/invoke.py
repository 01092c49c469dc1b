"""``gateway invoke``: calls a function and writes its response as it comes.

The function is named by the headers ``function-id`` and ``function-version-id``, so that the call
needs no DNS for the function's host name (`docs/wire.md` §1).
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Annotated, Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import typer

from gateway.cli.api_client import ApiTarget, error_of, run
from gateway.cli.errors import CommandError, fail, usage
from gateway.cli.lookup import VersionName, find_versions, version_name
from gateway.cli.options import DEFAULT_URL, FunctionArgument, KeyOption, UrlOption, api_target
from gateway.cli.output import say, write
from gateway.domain.grpc import is_grpc
from wire.http1 import is_token
from wire.ids import parse_uuid

CONNECT_TIMEOUT_S = 10.0
PROBLEM = "application/problem+json"

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True, slots=True)
class InvokeRequest:
    """A call of a function; ``headers`` include those that name the function."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]]
    body: bytes | IO[bytes] | None
    shows_head: bool


@app.command()
def invoke(  # noqa: PLR0913 - one argument per option
    function: FunctionArgument,
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="PATH",
            help="Path and query, such as /v1/models?all=1. Default: the function's inference URL.",
        ),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(
            "--function-version",
            metavar="VERSION",
            help="Name or id of the version. Default: one of those that serve, as for any caller.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-X",
            metavar="METHOD",
            help="HTTP method. Default: POST with a body, else GET.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", metavar="TEXT", help="Body of the request. Default: none."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Body from a file; - reads standard input. Default: none.",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            "-H",
            metavar="NAME:VALUE",
            help="Header of the request; repeatable. Default: none.",
        ),
    ] = None,
    include: Annotated[
        bool,
        typer.Option("--include", "-i", help="Print status and headers on standard error."),
    ] = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
) -> None:
    """Invoke a function. The response is printed as it arrives.

    The key needs invoke_function; and list_functions, if the function is given by name or without
    PATH. A JSON body is sent as application/json;
    what comes from standard input is one if it begins with { or [.

    A gRPC function needs a gRPC client: the error says which address and metadata.

    Exit code: 0 below status 400, 4 for 4xx, 5 for 5xx, 1 if there is no complete response.
    """
    target = api_target(api_url, api_key)
    named = version_name(function, version)
    if method is not None and not _is_token(method):
        raise usage(f"-X takes the name of an HTTP method, such as PUT: {method!r} is none.")
    body = _body(data, file)
    headers = [_header(text) for text in header or ()]
    if not any(name.lower() == "content-type" for name, _ in headers):
        if isinstance(body, bytes):
            headers.append(("content-type", _type_of(body)))
        elif body is sys.stdin.buffer and _begins_as_json():
            headers.append(("content-type", "application/json"))
    which, called = _resolve(target, named, path)
    call = InvokeRequest(
        method or ("GET" if body is None else "POST"),
        f"{target.url}{called}",
        [*headers, *which.items(), ("authorization", f"Bearer {target.key}")],
        body,
        include,
    )
    try:
        status = asyncio.run(_invoke(call))
    except CommandError as error:
        raise fail(error) from None
    raise typer.Exit(status // 100 if status >= 400 else 0)


def _resolve(
    target: ApiTarget, named: VersionName, path: str | None
) -> tuple[Mapping[str, str], str]:
    """Return the headers that name the function, and the path to call.

    The API is called only for what the command line does not say.
    """
    needs_api = path is None or parse_uuid(named.function.encode()) is None
    if named.version is not None and parse_uuid(named.version.encode()) is None:
        needs_api = True
    which = {"function-id": named.function}
    if named.version is not None:
        which["function-version-id"] = named.version
    if not needs_api:
        return which, _absolute(path or "/")
    versions = run(target, lambda api: find_versions(api, named.function))
    which["function-id"] = versions[-1]["id"]
    if named.version is not None:
        by_id = {one["versionId"]: one for one in versions}
        found = run(target, named.find).version_id
        which["function-version-id"] = found
        versions = [by_id[found]] if found in by_id else versions
    if all(is_grpc(one.get("inferenceUrl")) for one in versions):
        raise fail(CommandError(_explain_grpc(target, named.function, which)))
    return which, _absolute(path or versions[-1].get("inferenceUrl") or "/")


def _explain_grpc(target: ApiTarget, function: str, which: Mapping[str, str]) -> str:
    """Return how to call a gRPC function, which this command cannot."""
    parts = urlsplit(target.url)
    is_secure = parts.scheme == "https"
    port = parts.port or (443 if is_secure else 80)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    metadata = " ".join(f"-H '{name}: {value}'" for name, value in which.items())
    return (
        f"{function} is a gRPC function: call it with a gRPC client, such as grpcurl"
        f"{'' if is_secure else ' -plaintext'} -H 'authorization: Bearer KEY' {metadata} "
        f"{host}:{port} list"
    )


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _body(data: str | None, file: Path | None) -> bytes | IO[bytes] | None:
    if data is not None and file is not None:
        raise usage("--data cannot be combined with --file.")
    if data is not None:
        return data.encode()
    if file is None:
        return None
    if str(file) == "-":
        return sys.stdin.buffer
    try:
        return file.open("rb")
    except OSError as error:
        raise usage(f"--file {file} cannot be read: {error.strerror}.") from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not _is_token(name.strip()):
        raise usage("--header takes NAME:VALUE, with a NAME of letters, digits and hyphens.")
    if not set(value).isdisjoint("\r\n\0"):
        raise usage(f"--header {name}: the VALUE must be one line.")
    return name.strip(), value.strip()


def _is_token(text: str) -> bool:
    return is_token(text.encode(errors="replace"))


def _type_of(body: bytes) -> str:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return "text/plain; charset=utf-8"
    return "application/json"


def _begins_as_json() -> bool:
    """Return whether standard input, which may be a long stream, begins as an object or a list."""
    reader = sys.stdin.buffer
    return isinstance(reader, BufferedReader) and reader.peek(1).lstrip()[:1] in (b"{", b"[")


async def _invoke(call: InvokeRequest) -> int:
    """Make the call, write the response to standard output, and return its status."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
    # Bytes are passed on as they are: redirects and compression are the caller's.
    how: dict[str, Any] = {"headers": call.headers, "allow_redirects": False, "data": call.body}
    try:
        async with (
            aiohttp.ClientSession(
                timeout=timeout, auto_decompress=False, skip_auto_headers=["accept-encoding"]
            ) as session,
            session.request(call.method, call.url, **how) as response,
        ):
            if call.shows_head:
                say(f"HTTP {response.status} {response.reason or ''}")
                for name, value in response.headers.items():
                    say(f"{name}: {value}")
            if response.content_type == PROBLEM:
                say(f"gateway: {error_of(response.status, await response.read())}")
                return response.status
            async for data in response.content.iter_any():
                write(data)
            return response.status
    except aiohttp.ClientPayloadError:
        raise CommandError("The response broke off before its end.") from None
    except aiohttp.InvalidURL:
        raise usage(f"{call.url} is not a URL.") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise CommandError(f"{call.url} cannot be called: {error}") from None
