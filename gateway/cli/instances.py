"""``gateway instances``: lists the instances that run or start."""

from collections.abc import Sequence
from typing import Annotated

import typer

from gateway.cli.api_client import ApiClient, Json, run
from gateway.cli.lookup import VersionName, version_name
from gateway.cli.options import (
    DEFAULT_URL,
    DeployedVersionArgument,
    JsonOption,
    KeyOption,
    UrlOption,
    api_target,
)
from gateway.cli.output import print_json, print_table, say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def instances(
    function: Annotated[
        str | None,
        typer.Argument(
            metavar="FUNCTION",
            help="Name or id of the function. Default: every deployed function of the account.",
        ),
    ] = None,
    version: DeployedVersionArgument = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """List instances: the running copies of a function. Needs list_functions_details."""
    target = api_target(api_url, api_key)
    named = None if function is None else version_name(function, version)
    found = run(target, lambda api: _read_all(api) if named is None else read_instances(api, named))
    if as_json:
        print_json(found)
    elif not found:
        say("There are no instances.")
    else:
        print_instances(found, with_version=named is None)


async def read_instances(api: ApiClient, named: VersionName) -> list[Json]:
    """Return the instances of a version."""
    found = await named.find(api, is_deployed=True)
    return list((await api.get(found.path))["function"].get("activeInstances") or ())


async def _read_all(api: ApiClient) -> list[Json]:
    """Return the instances of every version of the account."""
    found: list[Json] = []
    for version in await api.versions("functions", None, visibility="private"):
        if version["status"] != "INACTIVE":
            found += await read_instances(api, VersionName(version["id"], version["versionId"]))
    return found


def print_instances(instances: Sequence[Json], *, with_version: bool = False) -> None:
    """Print a table of instances; ``with_version``: of several versions, whose ids are shown."""
    columns = ("INSTANCE", "STATUS", "GPU*", "TYPE*", "BACKEND*", "SINCE")
    rows = [
        (
            instance["instanceId"],
            instance.get("instanceStatus") or "STARTING",
            instance["gpu"],
            instance["instanceType"],
            instance["backend"],
            instance["instanceCreatedAt"][:19] + "Z",
        )
        for instance in instances
    ]
    if not with_version:
        print_table(columns, rows)
        return
    versions = [instance["functionVersionId"] for instance in instances]
    print_table(
        ("INSTANCE", "VERSION", "STATUS", "GPU*"),
        [(row[0], version, row[1], row[2]) for row, version in zip(rows, versions, strict=True)],
    )
