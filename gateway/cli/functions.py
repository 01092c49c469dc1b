"""``gateway functions``: creates, lists, shows, updates and deletes function versions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.api_client import ApiClient, Json, run
from gateway.cli.errors import CommandError, usage
from gateway.cli.options import (
    DEFAULT_URL,
    FileOption,
    FunctionArgument,
    JsonOption,
    KeyOption,
    UrlOption,
    VersionArgument,
    api_target,
    ids,
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

NameOption = Annotated[str | None, typer.Option(help="Name: 1 to 128 letters, digits, - and _.")]
ImageOption = Annotated[
    str | None, typer.Option(metavar="IMAGE", help="Container image of the inference server.")
]
InferenceUrlOption = Annotated[
    str | None, typer.Option(metavar="PATH", help="Path to invoke, such as /v1/completions.")
]
PortOption = Annotated[
    int | None, typer.Option(help="Port of the inference server. Default: 8000.", min=1, max=65535)
]
MaxBodyOption = Annotated[
    int | None,
    typer.Option(
        metavar="BYTES", help="Maximum size of a request body; a larger one gets 413.", min=1
    ),
]
CorsOriginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin",
        metavar="ORIGIN",
        help="Origin of web pages that may read responses, such as https://app.example, or * for "
        "all; repeatable. Default: what the container sends.",
    ),
]
CorsCredentialsOption = Annotated[
    bool, typer.Option("--cors-credentials", help="Such pages may send cookies too.")
]
HealthOption = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Path that returns 200 when the server can serve."),
]
ArgsOption = Annotated[str | None, typer.Option(help="Arguments of the container.")]
EnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--env", metavar="NAME=VALUE", help="Environment variable of the container; repeatable."
    ),
]
SecretOption = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="NAME=FILE",
        help="Secret whose value is read from FILE, so that it is not on the command line; "
        "repeatable.",
    ),
]
TagOption = Annotated[list[str] | None, typer.Option("--tag", help="Tag; repeatable.")]
DescriptionOption = Annotated[str | None, typer.Option(help="Description. Default: the name.")]
TypeOption = Annotated[
    str | None, typer.Option("--type", metavar="TYPE", help="DEFAULT, STREAMING or LLM.")
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


@app.command()
def create(  # noqa: PLR0913 - one argument per option
    name: NameOption = None,
    image: ImageOption = None,
    inference_url: InferenceUrlOption = None,
    inference_port: PortOption = None,
    max_body_bytes: MaxBodyOption = None,
    cors_origin: CorsOriginOption = None,
    cors_credentials: CorsCredentialsOption = False,
    health_path: HealthOption = None,
    container_args: ArgsOption = None,
    env: EnvOption = None,
    secret: SecretOption = None,
    tag: TagOption = None,
    description: DescriptionOption = None,
    kind: TypeOption = None,
    allow_rerun: RerunOption = None,
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
        "healthUri": health_path,
        "containerArgs": container_args,
        "containerEnvironment": _environment(env),
        "secrets": _secrets(secret),
        "tags": tag,
        "description": description,
        "functionType": kind,
        "allowRerun": allow_rerun,
    }
    body = _request_body(members, file)
    created = run(target, lambda api: api.call("POST", "functions", body))
    _show(created["function"], as_json)


@app.command()
def version(  # noqa: PLR0913 - one argument per option
    function_id: FunctionArgument,
    name: NameOption = None,
    image: ImageOption = None,
    inference_url: InferenceUrlOption = None,
    inference_port: PortOption = None,
    max_body_bytes: MaxBodyOption = None,
    cors_origin: CorsOriginOption = None,
    cors_credentials: CorsCredentialsOption = False,
    health_path: HealthOption = None,
    container_args: ArgsOption = None,
    env: EnvOption = None,
    secret: SecretOption = None,
    tag: TagOption = None,
    description: DescriptionOption = None,
    kind: TypeOption = None,
    allow_rerun: RerunOption = None,
    file: FileOption = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Create another version of a function."""
    target = api_target(api_url, api_key)
    (function,) = ids(function_id)
    members = {
        "name": name,
        "containerImage": image,
        "inferenceUrl": inference_url,
        "inferencePort": inference_port,
        "maxBodyBytes": max_body_bytes,
        "cors": _cors(cors_origin, cors_credentials),
        "healthUri": health_path,
        "containerArgs": container_args,
        "containerEnvironment": _environment(env),
        "secrets": _secrets(secret),
        "tags": tag,
        "description": description,
        "functionType": kind,
        "allowRerun": allow_rerun,
    }
    body = _request_body(members, file)
    created = run(target, lambda api: api.call("POST", f"functions/{function}/versions", body))
    _show(created["function"], as_json)


@app.command("list")
def list_functions(
    function_id: Annotated[
        str | None,
        typer.Argument(metavar="[FUNCTION_ID]", help="List only the versions of this function."),
    ] = None,
    visibility: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND", help="List only private, authorized or public functions; repeatable."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Maximum number of versions to list.", min=1)
    ] = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """List function versions, oldest first."""
    target = api_target(api_url, api_key)
    path, query = "functions", {"visibility": ",".join(visibility or ())}
    if function_id is not None:
        if visibility:
            raise usage("--visibility cannot be combined with FUNCTION_ID.")
        path, query = f"functions/{ids(function_id)[0]}/versions", {}
    elif not visibility:
        query = {}
    found = run(target, lambda api: api.versions(path, limit, **query))
    if as_json:
        print_json(found)
        return
    if not found:
        say("There are no functions.")
        return
    print_table(
        ("FUNCTION", "VERSION", "NAME", "STATUS", "OWNER", "CREATED"),
        [
            (*(function[name] for name in _LISTED_MEMBERS), _format_created_at(function))
            for function in found
        ],
    )


@app.command()
def show(
    function_id: FunctionArgument,
    version_id: VersionArgument,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show a version and its instances."""
    target = api_target(api_url, api_key)
    path = _path(function_id, version_id)
    found = run(target, lambda api: api.get(path))
    _show(found["function"], as_json)


@app.command()
def update(  # noqa: PLR0913 - one argument per option
    function_id: FunctionArgument,
    version_id: VersionArgument,
    tag: TagOption = None,
    rate_limit: Annotated[
        str | None, typer.Option(metavar="RATE", help="Rate limit, such as 100-S,5000-H.")
    ] = None,
    cors_origin: CorsOriginOption = None,
    cors_credentials: CorsCredentialsOption = False,
    file: FileOption = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Update tags, rate limit, origins of web pages or LLM configuration.

    Other changes require a new version.
    """
    target = api_target(api_url, api_key)
    path = _path(function_id, version_id)
    body = read_body(file)
    if tag:
        body["tags"] = tag
    if rate_limit is not None:
        body["rateLimit"] = {"rateLimit": rate_limit}
    cors = _cors(cors_origin, cors_credentials)
    if cors is not None:
        body["cors"] = cors
    if not body:
        raise usage("Nothing to update: give --tag, --rate-limit, --cors-origin or --file.")
    updated = run(target, lambda api: api.call("PUT", path, body))
    _show(updated["function"], as_json)


@app.command()
def delete(
    function_id: FunctionArgument,
    version_id: VersionArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Delete it even if it is deployed; it stops at once.")
    ] = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
) -> None:
    """Delete a version permanently. If it is deployed, --force is required."""
    target = api_target(api_url, api_key)
    path = _path(function_id, version_id)

    async def remove(api: ApiClient) -> None:
        if not force:
            status = (await api.get(path))["function"]["status"]
            if status != "INACTIVE":
                raise CommandError(
                    f"The version is {status}. Remove its deployment first, or use --force."
                )
        await api.call("DELETE", path)

    run(target, remove)
    say(f"Version {version_id} is deleted.")


def _path(function_id: str, version_id: str) -> str:
    function, of_it = ids(function_id, version_id)
    return f"functions/{function}/versions/{of_it}"


_LISTED_MEMBERS = ("id", "versionId", "name", "status", "ncaId")


def _request_body(members: Mapping[str, object], file: Path | None) -> dict[str, Any]:
    """Return the request body for a new version: the content of ``file``, updated by ``members``.

    Members that are `None` or empty lists were not given as options.
    """
    body = read_body(file)
    body.update({name: value for name, value in members.items() if value not in (None, [])})
    for member, option in (("name", "--name"), ("inferenceUrl", "--inference-url")):
        if member not in body:
            raise usage(f"{option} is required.")
    return body


def _cors(origins: Sequence[str] | None, credentials: bool) -> dict[str, object] | None:
    if not origins:
        if credentials:
            raise usage("--cors-credentials needs --cors-origin.")
        return None
    return {"origins": list(origins), "credentials": credentials}


def _environment(variables: Sequence[str] | None) -> list[dict[str, str]]:
    pairs = [pair("--env", text) for text in variables or ()]
    return [{"key": name, "value": value} for name, value in pairs]


def _secrets(secrets: Sequence[str] | None) -> list[dict[str, str]]:
    return [_secret(*pair("--secret", text)) for text in secrets or ()]


def _secret(name: str, file: str) -> dict[str, str]:
    try:
        # Editors end a file with a line feed, which is not part of the secret.
        return {"name": name, "value": Path(file).read_text().removesuffix("\n")}
    except (OSError, UnicodeDecodeError):
        raise usage(f"--secret {name}: the file cannot be read as text.") from None


def _show(function: Json, as_json: bool) -> None:
    if as_json:
        print_json(function)
        return
    health = function.get("health", {})
    source = [function.get(name) for name in ("containerImage", "helmChart")]
    print_members(
        [
            ("function", function["id"]),
            ("version", function["versionId"]),
            ("name", function["name"]),
            ("status", function["status"]),
            ("owner", function["ncaId"]),
            ("created", _format_created_at(function)),
            ("type", function.get("functionType")),
            ("description", function.get("description")),
            ("source", next((text for text in source if text), None)),
            ("arguments", function.get("containerArgs")),
            ("inference url", function.get("inferenceUrl")),
            ("largest body", function.get("maxBodyBytes")),
            ("origins", (function.get("cors") or {}).get("origins")),
            ("health", f"{health['protocol']} :{health['port']}{health['uri']}" if health else ""),
            ("rerun", "not allowed" if function.get("allowRerun") is False else None),
            ("tags", function.get("tags")),
            ("rate limit", (function.get("rateLimit") or {}).get("rateLimit")),
            ("secrets", function.get("secrets")),
        ]
    )
    if instances := function.get("activeInstances"):
        print_table(
            ("INSTANCE", "STATUS", "GPU", "INSTANCE TYPE", "BACKEND", "SINCE"),
            [
                (
                    instance["instanceId"],
                    instance.get("instanceStatus"),
                    instance["gpu"],
                    instance["instanceType"],
                    instance["backend"],
                    instance["instanceCreatedAt"][:19],
                )
                for instance in instances
            ],
        )


def _format_created_at(function: Json) -> str:
    return str(function["createdAt"])[:19] + "Z"
