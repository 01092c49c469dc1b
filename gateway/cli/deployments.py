"""``gateway deployments``: creates, shows, updates and removes deployments of versions."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.api_client import ApiClient, ApiTarget, Json, run
from gateway.cli.errors import CommandError, usage
from gateway.cli.invocation_urls import invocation_url
from gateway.cli.lookup import Ids, version_name
from gateway.cli.options import (
    DEFAULT_URL,
    DeployedVersionArgument,
    FunctionArgument,
    JsonOption,
    KeyOption,
    OnlyVersionArgument,
    UrlOption,
    VersionArgument,
    WatchOption,
    api_target,
    read_body,
)
from gateway.cli.output import print_json, print_members, print_table, say
from gateway.cli.watch import wait_until_gone, wait_until_up
from wire.worker_api import MAX_CONCURRENCY

app = typer.Typer(
    name="deployments",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Create, show, update and remove deployments.",
)


_SIZES: dict[str, tuple[str, int, int | None]] = {
    "--min": ("Minimum number of instances; with 0, a request starts the first", 0, None),
    "--max": ("Maximum number of instances", 1, None),
    "--concurrency": ("Concurrent requests per instance", 1, MAX_CONCURRENCY),
}
_UNCHANGED = "no change"


def _size(name: str, default: str) -> Any:
    """Return an option for the size of a deployment; ``default`` says what holds without it."""
    about, least, most = _SIZES[name]
    return typer.Option(
        name, metavar="N", help=f"{about}. Default: {default}.", min=least, max=most
    )


@app.command()
def create(  # noqa: PLR0913 - one argument per option
    function: FunctionArgument,
    version: VersionArgument = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="GPU", help="GPU: one of 'gateway gpus'. Required, unless there is a --file."
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(metavar="BACKEND", help="Cluster group. Default: any that has the GPU."),
    ] = None,
    instance_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Instance type. Default: that of the GPU.")
    ] = None,
    least: Annotated[int | None, _size("--min", "1")] = None,
    most: Annotated[int | None, _size("--max", "--min, but at least 1")] = None,
    concurrency: Annotated[int | None, _size("--concurrency", "1")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Request body in JSON, with one or more GPU specifications, in place of the "
            "options above; - reads standard input. Default: none.",
        ),
    ] = None,
    watch: WatchOption = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Deploy a version: start instances of it. A deployment that has failed is replaced.

    Give one GPU specification by options, or several with --file; 'gateway gpus' lists what there
    is. With --watch, wait until the deployment is ACTIVE (exit code 0) or has failed (exit code 1).
    """
    target = api_target(api_url, api_key)
    named = version_name(function, version)
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
        raise usage("--file cannot be combined with options of the GPU specification.")
    if file is None:
        if gpu is None:
            raise usage("Give --gpu or --file.")
        spec.setdefault("minInstances", 1)
        spec.setdefault("maxInstances", max(1, least or 1))
        body = {"deploymentSpecifications": [spec]}

    async def deploy(api: ApiClient) -> Json:
        found = await named.find(api)
        deployment: Json = (await api.call("POST", _path(found), body))["deployment"]
        return await wait_until_up(api, *found, say) if watch else deployment

    _show(run(target, deploy), target, as_json)


@app.command()
def show(
    function: FunctionArgument,
    version: DeployedVersionArgument = None,
    watch: WatchOption = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show a deployment. With --watch, first wait until it is ACTIVE, or fail with exit code 1."""
    target = api_target(api_url, api_key)
    named = version_name(function, version)

    async def read(api: ApiClient) -> Json:
        found = await named.find(api, is_deployed=True)
        deployment: Json = (await api.get(_path(found)))["deployment"]
        return await wait_until_up(api, *found, say) if watch else deployment

    _show(run(target, read), target, as_json)


@app.command()
def update(  # noqa: PLR0913 - one argument per option
    function: FunctionArgument,
    version: DeployedVersionArgument = None,
    least: Annotated[int | None, _size("--min", _UNCHANGED)] = None,
    most: Annotated[int | None, _size("--max", _UNCHANGED)] = None,
    concurrency: Annotated[int | None, _size("--concurrency", _UNCHANGED)] = None,
    spec: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC_ID",
            help="GPU specification to update: its id, from 'gateway deployments show'. Required "
            "if there are several.",
        ),
    ] = None,
    watch: WatchOption = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Change the number of instances or their concurrency."""
    target = api_target(api_url, api_key)
    named = version_name(function, version)
    given = {
        "minInstances": least,
        "maxInstances": most,
        "maxRequestConcurrency": concurrency,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise usage("Nothing to update: give --min, --max or --concurrency.")

    async def change(api: ApiClient) -> Json:
        found = await named.find(api, is_deployed=True)
        path = _path(found)
        specs = (await api.get(path))["deployment"]["deploymentSpecifications"]
        body = {"deploymentSpecifications": _apply_changes(specs, spec, changes)}
        deployment: Json = (await api.call("PUT", path, body))["deployment"]
        return await wait_until_up(api, *found, say) if watch else deployment

    _show(run(target, change), target, as_json)


@app.command()
def remove(  # noqa: PLR0913 - one argument per option
    function: FunctionArgument,
    version: OnlyVersionArgument = None,
    graceful: Annotated[
        bool,
        typer.Option("--graceful", help="Finish queued and running requests first."),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Wait until it is gone, printing each step.")
    ] = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Remove a deployment. Queued requests end with an error unless --graceful is given.

    With --watch, wait until its instances have ended.
    """
    target = api_target(api_url, api_key)
    named = version_name(function, version)

    async def undeploy(api: ApiClient) -> Json:
        query = {"graceful": "true"} if graceful else {}
        found = await named.find_only(api, is_deployed=True)
        undeployed: Json = (await api.call("DELETE", _path(found), query=query))["function"]
        if watch:
            await wait_until_gone(api, *found, say)
        return undeployed

    undeployed = run(target, undeploy)
    version_id = undeployed["versionId"]
    if as_json:
        print_json(undeployed)
    elif watch or not graceful:
        say(f"Version {version_id} is undeployed.")
    else:
        say(f"Version {version_id} accepts no more requests and finishes those it has.")


def _path(ids: Ids) -> str:
    return f"deployments/{ids.path}"


def _apply_changes(
    specs: list[dict[str, Any]], spec_id: str | None, changes: dict[str, int]
) -> list[dict[str, object]]:
    """Return all GPU specifications, as PUT requires, with ``changes`` made to the selected one."""
    if spec_id is None and len(specs) > 1:
        known = ", ".join(spec["gpuSpecificationId"] for spec in specs)
        raise CommandError(f"There are several GPU specifications: give --spec, one of {known}.")
    selected = spec_id.lower() if spec_id is not None else specs[0]["gpuSpecificationId"]
    if all(spec["gpuSpecificationId"] != selected for spec in specs):
        raise CommandError(f"There is no GPU specification {spec_id}.")
    names = ("gpuSpecificationId", "minInstances", "maxInstances", "maxRequestConcurrency")
    return [
        {name: spec[name] for name in names}
        | (changes if spec["gpuSpecificationId"] == selected else {})
        for spec in specs
    ]


def _show(deployment: Json, target: ApiTarget, as_json: bool) -> None:
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
            ("invocation url", invocation_url(target.url, deployment["functionId"], "/")),
            ("updated", str(deployment["lastUpdatedAt"])[:19] + "Z"),
        ]
    )
    print_table(
        ("SPEC", "GPU*", "BACKEND*", "TYPE*", "MIN", "MAX", "CONCURRENCY"),
        [
            (
                spec["gpuSpecificationId"],
                spec["gpu"],
                spec["backend"] or "any",
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
            ("INSTANCE", "GPU*", "ERROR*"),
            [(info.get("instanceId", ""), info["gpu"], info["error"]) for info in health],
        )
