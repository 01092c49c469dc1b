"""``gateway functions``: register, look at, change, delete."""

from collections.abc import Sequence
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
    ids,
    pair,
    place,
    read_body,
)
from gateway.cli.output import print_json, print_members, print_table, say

app = typer.Typer(
    name="functions",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Register functions and their versions, look at them, delete them.",
)

NameOption = Annotated[str | None, typer.Option(help="1 to 128 letters, digits, - and _.")]
ImageOption = Annotated[
    str | None, typer.Option(metavar="IMAGE", help="Container image that serves it.")
]
InferenceUrlOption = Annotated[
    str | None, typer.Option(metavar="PATH", help="Where it is invoked, such as /v1/completions.")
]
PortOption = Annotated[
    int | None, typer.Option(help="Of the inference server; 8000 when absent.", min=1, max=65535)
]
HealthOption = Annotated[
    str | None, typer.Option(metavar="PATH", help="Answers 200 when it can serve.")
]
ArgsOption = Annotated[str | None, typer.Option(help="Arguments of the container.")]
EnvOption = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME=VALUE", help="Environment of the container; repeatable."),
]
SecretOption = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="NAME=FILE",
        help="A secret, read from a file so that it is on no command line; repeatable.",
    ),
]
TagOption = Annotated[list[str] | None, typer.Option("--tag", help="Repeatable.")]
DescriptionOption = Annotated[str | None, typer.Option(help="The name when absent.")]
TypeOption = Annotated[
    str | None, typer.Option("--type", metavar="TYPE", help="DEFAULT, STREAMING or LLM.")
]


@app.command()
def create(  # noqa: PLR0913 - one argument per option
    name: NameOption = None,
    image: ImageOption = None,
    inference_url: InferenceUrlOption = None,
    inference_port: PortOption = None,
    health_path: HealthOption = None,
    container_args: ArgsOption = None,
    env: EnvOption = None,
    secret: SecretOption = None,
    tag: TagOption = None,
    description: DescriptionOption = None,
    kind: TypeOption = None,
    file: FileOption = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Register a function with its first version. It is INACTIVE until it is deployed."""
    target = place(api_url, api_key)
    values = (
        *(name, image, inference_url, inference_port),
        *(health_path, container_args, description, kind),
    )
    body = _registration(values, file, (env, secret, tag))
    made = run(target, lambda api: api.call("POST", "functions", body))
    _show(made["function"], as_json)


@app.command()
def version(  # noqa: PLR0913 - one argument per option
    function_id: FunctionArgument,
    name: NameOption = None,
    image: ImageOption = None,
    inference_url: InferenceUrlOption = None,
    inference_port: PortOption = None,
    health_path: HealthOption = None,
    container_args: ArgsOption = None,
    env: EnvOption = None,
    secret: SecretOption = None,
    tag: TagOption = None,
    description: DescriptionOption = None,
    kind: TypeOption = None,
    file: FileOption = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Register another version of a function."""
    target = place(api_url, api_key)
    (function,) = ids(function_id)
    values = (
        *(name, image, inference_url, inference_port),
        *(health_path, container_args, description, kind),
    )
    body = _registration(values, file, (env, secret, tag))
    made = run(target, lambda api: api.call("POST", f"functions/{function}/versions", body))
    _show(made["function"], as_json)


@app.command("list")
def list_functions(
    function_id: Annotated[
        str | None, typer.Argument(metavar="[FUNCTION_ID]", help="Only this one's versions.")
    ] = None,
    visibility: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="private, authorized or public; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Not more than so many.", min=1)] = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """List versions, oldest first."""
    target = place(api_url, api_key)
    path, query = "functions", {"visibility": ",".join(visibility or ())}
    if function_id is not None:
        if visibility:
            raise usage("--visibility and FUNCTION_ID exclude each other.")
        path, query = f"functions/{ids(function_id)[0]}/versions", {}
    elif not visibility:
        query = {}
    found = run(target, lambda api: api.versions(path, limit, **query))
    if as_json:
        print_json(found)
        return
    if not found:
        say("There are none.")
        return
    print_table(
        ("FUNCTION", "VERSION", "NAME", "STATUS", "OWNER", "CREATED"),
        [
            (one["id"], one["versionId"], one["name"], one["status"], one["ncaId"], _when(one))
            for one in found
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
    """Show a version with its instances."""
    target = place(api_url, api_key)
    path = _path(function_id, version_id)
    found = run(target, lambda api: api.get(path))
    _show(found["function"], as_json)


@app.command()
def update(  # noqa: PLR0913 - one argument per option
    function_id: FunctionArgument,
    version_id: VersionArgument,
    tag: TagOption = None,
    rate_limit: Annotated[
        str | None, typer.Option(metavar="RATE", help="Such as 100-S,5000-H.")
    ] = None,
    file: FileOption = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Change tags, rate limit or LLM configuration. All else needs a new version."""
    target = place(api_url, api_key)
    path = _path(function_id, version_id)
    body = read_body(file)
    if tag:
        body["tags"] = tag
    if rate_limit is not None:
        body["rateLimit"] = {"rateLimit": rate_limit}
    if not body:
        raise usage("Say what is to change: --tag, --rate-limit or --file.")
    changed = run(target, lambda api: api.call("PUT", path, body))
    _show(changed["function"], as_json)


@app.command()
def delete(
    function_id: FunctionArgument,
    version_id: VersionArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Also when it is deployed: it is stopped at once.")
    ] = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
) -> None:
    """Delete a version for ever; one that is deployed only with --force."""
    target = place(api_url, api_key)
    path = _path(function_id, version_id)

    async def remove(api: ApiClient) -> None:
        if not force:
            status = (await api.get(path))["function"]["status"]
            if status != "INACTIVE":
                raise CommandError(
                    f"The version is {status}. Remove its deployment first, or give --force."
                )
        await api.call("DELETE", path)

    run(target, remove)
    say(f"Version {version_id} is deleted.")


def _path(function_id: str, version_id: str) -> str:
    function, of_it = ids(function_id, version_id)
    return f"functions/{function}/versions/{of_it}"


_MEMBERS = (
    *("name", "containerImage", "inferenceUrl", "inferencePort"),
    *("healthUri", "containerArgs", "description", "functionType"),
)


def _registration(
    values: Sequence[object],
    file: Path | None,
    lists: tuple[list[str] | None, list[str] | None, list[str] | None],
) -> dict[str, Any]:
    """Return the body of a registration: the file's, with what the options say put over it.

    ``values`` are those of `_MEMBERS`, `None` where there is none.
    """
    body = read_body(file)
    given = zip(_MEMBERS, values, strict=True)
    body.update({name: value for name, value in given if value is not None})
    env, secrets, tags = lists
    if env:
        pairs = [pair("--env", text) for text in env]
        body["containerEnvironment"] = [{"key": key, "value": value} for key, value in pairs]
    if secrets:
        body["secrets"] = [_secret(*pair("--secret", text)) for text in secrets]
    if tags:
        body["tags"] = tags
    for member, option in (("name", "--name"), ("inferenceUrl", "--inference-url")):
        if member not in body:
            raise usage(f"{option} is needed.")
    return body


def _secret(name: str, file: str) -> dict[str, str]:
    try:
        # A file that an editor has written ends with a line feed that nobody means.
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
            ("created", _when(function)),
            ("type", function.get("functionType")),
            ("description", function.get("description")),
            ("source", next((text for text in source if text), None)),
            ("arguments", function.get("containerArgs")),
            ("invoked at", function.get("inferenceUrl")),
            ("health", f"{health['protocol']} :{health['port']}{health['uri']}" if health else ""),
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
                    one["instanceId"],
                    one.get("instanceStatus"),
                    one["gpu"],
                    one["instanceType"],
                    one["backend"],
                    one["instanceCreatedAt"][:19],
                )
                for one in instances
            ],
        )


def _when(function: Json) -> str:
    return str(function["createdAt"])[:19] + "Z"
