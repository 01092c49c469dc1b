"""``gateway functions``: creates, lists, shows, updates and deletes function versions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.api_client import ApiClient, ApiTarget, Json, run
from gateway.cli.errors import CommandError, usage
from gateway.cli.instances import print_instances
from gateway.cli.invocation_urls import invocation_url
from gateway.cli.lookup import Ids, find_function, find_versions, version_name
from gateway.cli.options import (
    DEFAULT_URL,
    FileOption,
    FunctionArgument,
    JsonOption,
    KeyOption,
    OnlyVersionArgument,
    UrlOption,
    VersionArgument,
    api_target,
    pair,
    read_body,
)
from gateway.cli.output import print_json, print_members, print_table, say

app = typer.Typer(
    name="functions",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Create, list, show, update and delete functions.",
)

_NAME_RULE = "1 to 128 letters, digits, - and _"
NameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help=f"Name: {_NAME_RULE}. Required.")
]
VersionNameOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Name of the version: {_NAME_RULE}. Default: the name of the function.",
    ),
]
ImageOption = Annotated[
    str | None,
    typer.Option(
        metavar="IMAGE",
        help="Container image of the inference server; the gateway's settings say how to run it. "
        "Required, unless --file has a helmChart.",
    ),
]
InferenceUrlOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Path of the server to invoke if the caller gives none, such as /v1/completions; "
        "/grpc for a gRPC server. Required.",
    ),
]
PortOption = Annotated[
    int | None,
    typer.Option(
        metavar="PORT", help="Port of the server in the container. Default: 8000.", min=1, max=65535
    ),
]
MaxBodyOption = Annotated[
    int | None,
    typer.Option(
        metavar="BYTES",
        help="Maximum size of a request body; a larger one gets 413. Default: the gateway's limit.",
        min=1,
    ),
]
_ORIGIN = "Origin of web pages that may read responses, such as https://app.example, or * for all"
CorsOriginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin",
        metavar="ORIGIN",
        help=f"{_ORIGIN}; repeatable. Default: what the container sends.",
    ),
]
CorsCredentialsOption = Annotated[
    bool, typer.Option("--cors-credentials", help="Such pages may send cookies too.")
]
_RATE = (
    "Rate limit of each calling account: requests per second (S), minute (M), hour (H) or day (D), "
    "such as 100-S,5000-H"
)
RateLimitOption = Annotated[
    str | None, typer.Option(metavar="RATE", help=f"{_RATE}. Default: none.")
]
HealthOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Path that returns 200 when the server can serve; a gRPC server is asked by the "
        "standard health check instead, unless --file has another health. Default: "
        "/v2/health/ready.",
    ),
]
ArgsOption = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Arguments of the container. Default: none.")
]
EnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME=VALUE",
        help="Environment variable of the container; repeatable. Default: none.",
    ),
]
SecretOption = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="NAME=FILE",
        help="Secret whose value is read from FILE, so that it is not on the command line; "
        "repeatable. Default: none.",
    ),
]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Tag; repeatable. Default: none.")
]
DescriptionOption = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Description. Default: the name.")
]
TypeOption = Annotated[
    str | None, typer.Option("--type", metavar="TYPE", help="DEFAULT or LLM. Default: DEFAULT.")
]

RerunOption = Annotated[
    bool | None,
    typer.Option(
        "--allow-rerun/--no-allow-rerun",
        help="Whether a POST may be run again, once, if an inference server broke off before it "
        "responded. Default: allowed.",
        show_default=False,
    ),
]
InterimOption = Annotated[
    bool | None,
    typer.Option(
        "--pass-interim/--no-pass-interim",
        help="Whether clients get interim responses (1xx, as 103 Early Hints). Default: dropped.",
        show_default=False,
    ),
]


@app.command()
def create(  # noqa: PLR0913 - one argument per option
    name: NameOption = None,
    image: ImageOption = None,
    inference_url: InferenceUrlOption = None,
    inference_port: PortOption = None,
    max_body_bytes: MaxBodyOption = None,
    cors_origin: CorsOriginOption = None,
    cors_credentials: CorsCredentialsOption = False,
    rate_limit: RateLimitOption = None,
    health_path: HealthOption = None,
    container_args: ArgsOption = None,
    env: EnvOption = None,
    secret: SecretOption = None,
    tag: TagOption = None,
    description: DescriptionOption = None,
    kind: TypeOption = None,
    allow_rerun: RerunOption = None,
    pass_interim: InterimOption = None,
    file: FileOption = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Create a function and its first version. It is INACTIVE until it is deployed."""
    target = api_target(api_url, api_key)
    members = {
        "name": name,
        "containerImage": image,
        "inferenceUrl": inference_url,
        "inferencePort": inference_port,
        "maxBodyBytes": max_body_bytes,
        "cors": _cors(cors_origin, cors_credentials),
        "rateLimit": _rate_limit(rate_limit),
        "healthUri": health_path,
        "containerArgs": container_args,
        "containerEnvironment": _environment(env),
        "secrets": _secrets(secret),
        "tags": tag,
        "description": description,
        "functionType": kind,
        "allowRerun": allow_rerun,
        "passInterim": pass_interim,
    }
    body = _request_body(members, file, {**_NAME, **_REQUIRED})
    created = run(target, lambda api: api.call("POST", "functions", body))
    _show(created["function"], target, as_json)


@app.command()
def version(  # noqa: PLR0913 - one argument per option
    function: FunctionArgument,
    name: VersionNameOption = None,
    image: ImageOption = None,
    inference_url: InferenceUrlOption = None,
    inference_port: PortOption = None,
    max_body_bytes: MaxBodyOption = None,
    cors_origin: CorsOriginOption = None,
    cors_credentials: CorsCredentialsOption = False,
    rate_limit: RateLimitOption = None,
    health_path: HealthOption = None,
    container_args: ArgsOption = None,
    env: EnvOption = None,
    secret: SecretOption = None,
    tag: TagOption = None,
    description: DescriptionOption = None,
    kind: TypeOption = None,
    allow_rerun: RerunOption = None,
    pass_interim: InterimOption = None,
    file: FileOption = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Create another version of a function.

    Nothing is taken from earlier versions but the name: give every option that it needs.
    """
    target = api_target(api_url, api_key)
    named = version_name(function)
    members = {
        "name": name,
        "containerImage": image,
        "inferenceUrl": inference_url,
        "inferencePort": inference_port,
        "maxBodyBytes": max_body_bytes,
        "cors": _cors(cors_origin, cors_credentials),
        "rateLimit": _rate_limit(rate_limit),
        "healthUri": health_path,
        "containerArgs": container_args,
        "containerEnvironment": _environment(env),
        "secrets": _secrets(secret),
        "tags": tag,
        "description": description,
        "functionType": kind,
        "allowRerun": allow_rerun,
        "passInterim": pass_interim,
    }
    body = _request_body(members, file, _REQUIRED)

    async def add(api: ApiClient) -> Json:
        if "name" in body:
            function_id = await find_function(api, named.function)
        else:
            latest = (await find_versions(api, named.function))[-1]
            function_id = latest["id"]
            body["name"] = latest["name"] if named.function == function_id else named.function
        return await api.call("POST", f"functions/{function_id}/versions", body)

    _show(run(target, add)["function"], target, as_json)


@app.command("list")
def list_functions(
    function: Annotated[
        str | None,
        typer.Argument(
            metavar="FUNCTION",
            help="List the versions of this function: its name or id. Default: all functions.",
        ),
    ] = None,
    visibility: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="List only private, authorized or public functions; repeatable. Default: all.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Maximum number of versions to list. Default: all.", min=1),
    ] = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """List functions, or the versions of one function, oldest first.

    With --json, every version is listed.
    """
    target = api_target(api_url, api_key)
    if function is None:
        query = {"visibility": ",".join(visibility)} if visibility else {}
        found = run(target, lambda api: api.versions("functions", limit, **query))
    else:
        if visibility:
            raise usage("--visibility cannot be combined with FUNCTION.")
        named = version_name(function)
        found = run(target, lambda api: find_versions(api, named.function))[:limit]
    if as_json:
        print_json(found)
    elif not found:
        say("There are no functions. Create one with 'gateway functions create'.")
    elif function is None:
        _print_functions(found)
    else:
        _print_versions(found)


@app.command()
def show(
    function: FunctionArgument,
    version: VersionArgument = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show a version: how it was created, its URL and its instances."""
    target = api_target(api_url, api_key)
    named = version_name(function, version)

    async def read(api: ApiClient) -> Json:
        return await api.get((await named.find(api)).path)

    _show(run(target, read)["function"], target, as_json)


@app.command()
def update(  # noqa: PLR0913 - one argument per option
    function: FunctionArgument,
    version: VersionArgument = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG", help="Tag, in place of all present ones; repeatable. Default: no change."
        ),
    ] = None,
    rate_limit: Annotated[
        str | None,
        typer.Option(
            metavar="RATE",
            help=f"{_RATE}, in place of the whole present limit. Default: no change.",
        ),
    ] = None,
    no_rate_limit: Annotated[
        bool, typer.Option("--no-rate-limit", help="Take the rate limit away.")
    ] = False,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help=f"{_ORIGIN}, in place of all present ones; repeatable. Default: no change.",
        ),
    ] = None,
    cors_credentials: CorsCredentialsOption = False,
    file: FileOption = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Update tags, rate limit or origins of web pages.

    With --file, description and LLM configuration too. Other changes require a new version.
    """
    target = api_target(api_url, api_key)
    named = version_name(function, version)
    body = read_body(file)
    if tag:
        body["tags"] = tag
    if rate_limit is not None and no_rate_limit:
        raise usage("--rate-limit cannot be combined with --no-rate-limit.")
    if rate_limit is not None or no_rate_limit:
        body["rateLimit"] = _rate_limit(rate_limit)
    cors = _cors(cors_origin, cors_credentials)
    if cors is not None:
        body["cors"] = cors
    if not body:
        raise usage(
            "Nothing to update: give --tag, --rate-limit, --no-rate-limit, --cors-origin or --file."
        )

    async def change(api: ApiClient) -> Json:
        return await api.call("PUT", (await named.find(api)).path, body)

    _show(run(target, change)["function"], target, as_json)


@app.command()
def delete(
    function: FunctionArgument,
    version: OnlyVersionArgument = None,
    force: Annotated[
        bool, typer.Option("--force", help="Delete it even if it is deployed; it stops at once.")
    ] = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
) -> None:
    """Delete a version permanently. If it is deployed, --force is required.

    The function is deleted with its last version.
    """
    target = api_target(api_url, api_key)
    named = version_name(function, version)

    async def remove(api: ApiClient) -> Ids:
        found = await named.find_only(api)
        if not force:
            status = (await api.get(found.path))["function"]["status"]
            if status != "INACTIVE":
                raise CommandError(
                    f"The version is {status}. Remove its deployment first, or use --force."
                )
        await api.call("DELETE", found.path)
        return found

    say(f"Version {run(target, remove).version_id} is deleted.")


def _print_functions(versions: Sequence[Json]) -> None:
    """Print one row per function, with the name of its latest version and all of its states."""
    by_id: dict[str, list[Json]] = {}
    for version in versions:
        by_id.setdefault(version["id"], []).append(version)
    print_table(
        ("FUNCTION", "NAME*", "VERSIONS", "STATUS*", "OWNER*"),
        [
            (
                function_id,
                own[-1]["name"],
                str(len(own)),
                " ".join(dict.fromkeys(version["status"] for version in own)),
                own[-1]["ncaId"],
            )
            for function_id, own in by_id.items()
        ],
    )


def _print_versions(versions: Sequence[Json]) -> None:
    print_table(
        ("VERSION", "NAME*", "STATUS", "CREATED"),
        [
            (version["versionId"], version["name"], version["status"], _format_created_at(version))
            for version in versions
        ],
    )


_NAME = {"name": "--name"}
_REQUIRED = {"containerImage": "--image", "inferenceUrl": "--inference-url"}


def _request_body(
    members: Mapping[str, object], file: Path | None, required: Mapping[str, str]
) -> dict[str, Any]:
    """Return the request body for a new version: the content of ``file``, updated by ``members``.

    Members that are `None` or empty lists were not given as options. ``required`` are members that
    must be there, and their options.
    """
    body = read_body(file)
    body.update({name: value for name, value in members.items() if value not in (None, [])})
    if "helmChart" in body:
        required = {name: option for name, option in required.items() if name != "containerImage"}
    missing = [option for member, option in required.items() if member not in body]
    if missing:
        raise usage(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} required.")
    return body


def _cors(origins: Sequence[str] | None, credentials: bool) -> dict[str, object] | None:
    if not origins:
        if credentials:
            raise usage("--cors-credentials needs --cors-origin.")
        return None
    return {"origins": list(origins), "credentials": credentials}


def _rate_limit(rate: str | None) -> dict[str, object] | None:
    if rate == "":
        raise usage(
            "--rate-limit needs a rate, such as 100-S. 'gateway functions update' takes a rate "
            "limit away with --no-rate-limit."
        )
    return None if rate is None else {"rateLimit": rate}


def _environment(variables: Sequence[str] | None) -> list[dict[str, str]]:
    pairs = [pair("--env", text) for text in variables or ()]
    return [{"key": name, "value": value} for name, value in pairs]


def _secrets(secrets: Sequence[str] | None) -> list[dict[str, str]]:
    return [_secret(*pair("--secret", text)) for text in secrets or ()]


def _secret(name: str, file: str) -> dict[str, str]:
    try:
        # Editors end a file with a line feed, which is not part of the secret.
        return {"name": name, "value": Path(file).read_text("utf-8").removesuffix("\n")}
    except OSError as error:
        raise usage(f"--secret {name}: {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise usage(f"--secret {name}: {file} is not text in UTF-8.") from None


def _show(function: Json, target: ApiTarget, as_json: bool) -> None:
    if as_json:
        print_json(function)
        return
    source = [function.get(name) for name in ("containerImage", "helmChart")]
    url = invocation_url(target.url, function["id"], function.get("inferenceUrl") or "/")
    print_members(
        [
            ("function", function["id"]),
            ("version", function["versionId"]),
            ("name", function["name"]),
            ("status", function["status"]),
            ("invocation url", url),
            ("owner", function["ncaId"]),
            ("created", _format_created_at(function)),
            ("type", function.get("functionType")),
            ("description", function.get("description")),
            ("source", next((text for text in source if text), None)),
            ("arguments", function.get("containerArgs")),
            ("inference url", function.get("inferenceUrl")),
            ("largest body", function.get("maxBodyBytes")),
            ("origins", (function.get("cors") or {}).get("origins")),
            ("health", _format_health(function.get("health"))),
            ("rerun", "not allowed" if function.get("allowRerun") is False else None),
            ("interim responses", "passed on" if function.get("passInterim") else None),
            ("tags", function.get("tags")),
            ("rate limit", _format_rate_limit(function.get("rateLimit") or {})),
            ("secrets", function.get("secrets")),
        ]
    )
    if instances := function.get("activeInstances"):
        print_instances(instances)


def _format_health(health: Json | None) -> str:
    if not health:
        return ""
    path = "" if health["protocol"] == "gRPC" else health["uri"]
    return f"{health['protocol']} :{health['port']}{path}"


def _format_created_at(function: Json) -> str:
    return str(function["createdAt"])[:19] + "Z"


def _format_rate_limit(limit: Json) -> str:
    """Return one line for each member of a rate limit, empty for none."""
    lines = [limit.get("rateLimit")]
    lines += [
        f"{rate} for account {account}"
        for account, rate in (limit.get("perNcaIdRate") or {}).items()
    ]
    if exempted := limit.get("exemptedNcaIds"):
        lines.append(f"none for {' '.join(exempted)}")
    if rate := limit.get("perUserRate"):
        lines.append(f"{rate} for each caller")
    if limit.get("syncCheck"):
        lines.append("counted with all gateway processes before each call")
    return "\n".join(line for line in lines if line)
