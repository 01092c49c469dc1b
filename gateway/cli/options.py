"""Options and arguments of several commands, and checks of their values."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
import typer

from gateway.cli.api_client import ApiTarget
from gateway.cli.errors import CommandError, fail, usage
from gateway.settings import API_KEY_VARIABLE, API_URL_VARIABLE
from wire.ids import parse_uuid

DEFAULT_URL = "http://127.0.0.1:8080"

UrlOption = Annotated[
    str,
    typer.Option("--api-url", envvar=API_URL_VARIABLE, metavar="URL", help="URL of the API."),
]
KeyOption = Annotated[
    str,
    typer.Option(
        "--api-key",
        envvar=API_KEY_VARIABLE,
        metavar="KEY",
        help="API key or token. Required. Prefer the environment variable: other users can see "
        "options.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
WatchOption = Annotated[
    bool, typer.Option("--watch", help="Wait until it is up, printing each step.")
]
FunctionArgument = Annotated[
    str, typer.Argument(metavar="FUNCTION", help="Name or id of the function.")
]
VersionArgument = Annotated[
    str | None,
    typer.Argument(metavar="VERSION", help="Name or id of the version. Default: the latest."),
]
DeployedVersionArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="VERSION",
        help="Name or id of the version. Default: the latest that is deployed.",
    ),
]
OnlyVersionArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="VERSION",
        help="Name or id of the version. Required if there are several to choose from.",
    ),
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="FILE",
        help="Request body in JSON; - reads standard input. Other options override its members, "
        "and those that are required may be members. Default: none.",
    ),
]

_URL_FORM = f"give --api-url or {API_URL_VARIABLE} as http://HOST:PORT or https://HOST"
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MAX_LIFETIME_S = 36_525 * 86_400
"""A hundred years; dates end with the year 9999."""
_is_visible = re.compile(r"[\x21-\x7e]+").fullmatch


def api_target(url: str, key: str) -> ApiTarget:
    """Return the API to call. Ends the program if URL or key is missing or malformed."""
    if not is_url(url, "http", "https"):
        raise usage(f"{url or 'An empty text'} is not a URL: {_URL_FORM}.")
    if not key:
        raise usage(f"Give an API key with {API_KEY_VARIABLE} or --api-key.")
    if not _is_visible(key):
        raise usage("The API key must consist of visible ASCII characters, without spaces.")
    return ApiTarget(url.rstrip("/"), key)


def is_url(text: str, *schemes: str) -> bool:
    """Return whether ``text`` is a URL of one of ``schemes``, without query and fragment."""
    if not _is_visible(text):
        return False
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        return False
    is_plain = not parts.query and not parts.fragment
    return parts.scheme in schemes and bool(host) and port != 0 and is_plain


def lifetime_s(option: str, text: str) -> int:
    """Return the seconds of a lifetime such as ``30d``. Ends the program for any other text."""
    match = re.fullmatch(r"([1-9][0-9]{0,9})([smhd])", text)
    if match is None:
        raise fail(
            CommandError(f"{option} {text} is not a duration: give a number with s, m, h or d.")
        )
    seconds = int(match[1]) * _UNITS_S[match[2]]
    if seconds > _MAX_LIFETIME_S:
        raise fail(CommandError(f"{option} {text} is more than 100 years: leave it out."))
    return seconds


def ids(*texts: str) -> tuple[str, ...]:
    """Return ids in canonical form. Ends the program for any other text: ids are parts of paths."""
    found = []
    for text in texts:
        canonical = parse_uuid(text.encode())
        if canonical is None:
            raise usage(f"{text} is not an id: ids are UUIDs.")
        found.append(canonical)
    return tuple(found)


def read_body(file: Path | None) -> dict[str, Any]:
    """Return the JSON object in ``file``, empty without a file. Ends the program otherwise."""
    if file is None:
        return {}
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        body = orjson.loads(data)
    except OSError as error:
        raise usage(f"--file {file} cannot be read: {error.strerror}.") from None
    except orjson.JSONDecodeError as error:
        raise usage(f"--file {file} is not JSON: {error}.") from None
    if not isinstance(body, dict):
        raise usage(f"--file {file} is not a JSON object.")
    return body


def check_readable(file: Path) -> None:
    """End the program if ``file`` cannot be read."""
    try:
        file.open("rb").close()
    except OSError as error:
        raise usage(f"{file} cannot be read: {error.strerror}.") from None


def pair(option: str, text: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``. Ends the program for any other text, without printing the value."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise usage(f"{option} takes NAME=VALUE.")
    return name, value
