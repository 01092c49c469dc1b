"""``gateway deployments``: run versions, follow them coming up, change and remove what runs."""

from typing import Annotated, Any

import typer

from gateway.cli.api_client import ApiClient, Json, run
from gateway.cli.failures import CommandError, usage
from gateway.cli.options import (
    DEFAULT_URL,
    FileOption,
    FunctionArgument,
    JsonOption,
    KeyOption,
    UrlOption,
    VersionArgument,
    WatchOption,
    ids,
    place,
    read_body,
)
from gateway.cli.output import print_json, print_members, print_table, say
from gateway.cli.watching import until_gone, until_up
from wire.worker_api import MAX_CONCURRENCY

app = typer.Typer(
    name="deployments",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Run versions of functions, change how many instances they have, take them down.",
)

MinOption = Annotated[int | None, typer.Option("--min", help="Instances at least.", min=0)]
MaxOption = Annotated[int | None, typer.Option("--max", help="Instances at most.", min=1)]
ConcurrencyOption = Annotated[
    int | None, typer.Option(help="Requests at a time per instance.", min=1, max=MAX_CONCURRENCY)
]


@app.command()
def create(  # noqa: PLR0913 - one argument per option
    function_id: FunctionArgument,
    version_id: VersionArgument,
    gpu: Annotated[str | None, typer.Option(help="As the cluster calls it.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="A cluster group; any with the GPU when absent.")
    ] = None,
    instance_type: Annotated[
        str | None, typer.Option(help="The GPU's default when absent.")
    ] = None,
    least: MinOption = None,
    most: MaxOption = None,
    concurrency: ConcurrencyOption = None,
    file: FileOption = None,
    watch: WatchOption = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Deploy a version: one GPU specification by options, several by --file.

    With --watch, return when it is ACTIVE (0) or has failed (1).
    """
    target = place(api_url, api_key)
    function, version = ids(function_id, version_id)
    given = {
        "gpu": gpu,
        "backend": backend,
        "instanceType": instance_type,
        "minInstances": least,
        "maxInstances": most,
        "maxRequestConcurrency": concurrency,
    }
    spec = {name: value for name, value in given.items() if value is not None}
    body = read_body(file)
    if file is not None and spec:
        raise usage("--file says it all: leave the other options out.")
    if file is None:
        if gpu is None:
            raise usage("Give --gpu or --file.")
        spec.setdefault("minInstances", 1)
        spec.setdefault("maxInstances", max(1, least or 1))
        body = {"deploymentSpecifications": [spec]}

    async def deploy(api: ApiClient) -> Json:
        path = _path(function, version)
        deployment: Json = (await api.call("POST", path, body))["deployment"]
        return await until_up(api, function, version, say) if watch else deployment

    _show(run(target, deploy), as_json)


@app.command()
def show(
    function_id: FunctionArgument,
    version_id: VersionArgument,
    watch: WatchOption = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show a deployment. With --watch, first wait until it is ACTIVE (0) or has failed (1)."""
    target = place(api_url, api_key)
    function, version = ids(function_id, version_id)

    async def look(api: ApiClient) -> Json:
        deployment: Json = (await api.get(_path(function, version)))["deployment"]
        return await until_up(api, function, version, say) if watch else deployment

    _show(run(target, look), as_json)


@app.command()
def update(  # noqa: PLR0913 - one argument per option
    function_id: FunctionArgument,
    version_id: VersionArgument,
    least: MinOption = None,
    most: MaxOption = None,
    concurrency: ConcurrencyOption = None,
    spec: Annotated[
        str | None,
        typer.Option(metavar="SPEC_ID", help="Which GPU specification, if there are several."),
    ] = None,
    watch: WatchOption = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Change how many instances run, or how many requests each takes."""
    target = place(api_url, api_key)
    function, version = ids(function_id, version_id)
    given = {
        "minInstances": least,
        "maxInstances": most,
        "maxRequestConcurrency": concurrency,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise usage("Say what is to change: --min, --max or --concurrency.")

    async def change(api: ApiClient) -> Json:
        path = _path(function, version)
        specs = (await api.get(path))["deployment"]["deploymentSpecifications"]
        body = {"deploymentSpecifications": _changed(specs, spec, changes)}
        deployment: Json = (await api.call("PUT", path, body))["deployment"]
        return await until_up(api, function, version, say) if watch else deployment

    _show(run(target, change), as_json)


@app.command()
def remove(  # noqa: PLR0913 - one argument per option
    function_id: FunctionArgument,
    version_id: VersionArgument,
    graceful: Annotated[
        bool,
        typer.Option("--graceful", help="Finish what is queued and running before it stops."),
    ] = False,
    watch: WatchOption = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Undeploy a version; what is queued ends with an error unless --graceful.

    With --watch, return when nothing of it runs any more.
    """
    target = place(api_url, api_key)
    function, version = ids(function_id, version_id)

    async def undeploy(api: ApiClient) -> Json:
        query = {"graceful": "true"} if graceful else {}
        answer = await api.call("DELETE", _path(function, version), query=query)
        if watch:
            await until_gone(api, function, version, say)
        found: Json = answer["function"]
        return found

    found = run(target, undeploy)
    if as_json:
        print_json(found)
    elif watch or not graceful:
        say(f"Version {version} is undeployed.")
    else:
        say(f"Version {version} takes no more requests and finishes those it has.")


def _path(function_id: str, version_id: str) -> str:
    return f"deployments/functions/{function_id}/versions/{version_id}"


def _changed(
    specs: list[dict[str, Any]], spec_id: str | None, changes: dict[str, int]
) -> list[dict[str, object]]:
    """Return what PUT takes: every GPU specification, the one that is meant with new numbers."""
    if spec_id is None and len(specs) > 1:
        known = ", ".join(spec["gpuSpecificationId"] for spec in specs)
        raise CommandError(f"There are several GPU specifications: give --spec, one of {known}.")
    meant = spec_id.lower() if spec_id is not None else specs[0]["gpuSpecificationId"]
    if all(spec["gpuSpecificationId"] != meant for spec in specs):
        raise CommandError(f"There is no GPU specification {spec_id}.")
    names = ("gpuSpecificationId", "minInstances", "maxInstances", "maxRequestConcurrency")
    return [
        {name: spec[name] for name in names}
        | (changes if spec["gpuSpecificationId"] == meant else {})
        for spec in specs
    ]


def _show(deployment: Json, as_json: bool) -> None:
    if as_json:
        print_json(deployment)
        return
    print_members(
        [
            ("deployment", deployment["deploymentId"]),
            ("function", deployment["functionId"]),
            ("version", deployment["functionVersionId"]),
            ("name", deployment["functionName"]),
            ("status", deployment["functionStatus"]),
            ("updated", str(deployment["lastUpdatedAt"])[:19] + "Z"),
        ]
    )
    print_table(
        ("SPEC", "GPU", "BACKEND", "INSTANCE TYPE", "MIN", "MAX", "CONCURRENCY"),
        [
            (
                spec["gpuSpecificationId"],
                spec["gpu"],
                spec["backend"],
                spec["instanceType"],
                str(spec["minInstances"]),
                str(spec["maxInstances"]),
                str(spec["maxRequestConcurrency"]),
            )
            for spec in deployment["deploymentSpecifications"]
        ],
    )
    if health := deployment.get("healthInfo"):
        print_table(
            ("INSTANCE", "GPU", "ERROR"),
            [(one.get("instanceId", ""), one["gpu"], one["error"]) for one in health],
        )
