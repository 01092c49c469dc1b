"""``gateway instances``: lists the instances that run or start."""

from collections import Counter
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
    if function is not None:
        named = version_name(function, version)
        found = run(target, lambda api: read_instances(api, named))
        names = None
    else:
        by_name = run(target, _read_all)
        found = [instance for _, instance in by_name]
        names = [name for name, _ in by_name]
    if as_json:
        print_json(found)
    elif not found:
        say("There are no instances.")
    else:
        print_instances(found, names)


async def read_instances(api: ApiClient, named: VersionName) -> list[Json]:
    """Return the instances of a version."""
    found = await named.find(api, is_deployed=True)
    return list((await api.get(found.path))["function"].get("activeInstances") or ())


async def _read_all(api: ApiClient) -> list[tuple[str, Json]]:
    """Return the instances of every version of the account, each with the version's name."""
    found: list[tuple[str, Json]] = []
    for version in await api.versions("functions", None, visibility="private"):
        if version["status"] != "INACTIVE":
            named = VersionName(version["id"], version["versionId"])
            found += [(version["name"], one) for one in await read_instances(api, named)]
    return found


def print_instances(instances: Sequence[Json], names: Sequence[str] | None = None) -> None:
    """Print a table of instances; ``names``: those of their versions, if there are several.

    With names and the versions' ids the table has no room for where an instance runs.
    """
    if names is not None:
        print_table(
            ("NAME*", "INSTANCE", "VERSION", "STATUS"),
            [
                (name, one["instanceId"], one["functionVersionId"], _status(one))
                for name, one in zip(names, instances, strict=True)
            ],
        )
        return
    print_table(
        ("INSTANCE", "STATUS", "BUSY", "GPU*", "BACKEND*", "NODE*", "SINCE"),
        [
            (
                instance["instanceId"],
                _status(instance),
                f"{instance['busy']}/{instance['slots']}",
                _gpus(instance),
                instance["backend"],
                _node(instance),
                instance["instanceCreatedAt"][:19] + "Z",
            )
            for instance in instances
        ],
    )


def _gpus(instance: Json) -> str:
    """Return the GPUs that the worker tells of; if it tells none, the one that was asked for."""
    names = [gpu["name"] for gpu in instance.get("worker", {}).get("gpus", ())]
    counted = [f"{count} x {name}" for name, count in Counter(names).items()]
    return ", ".join(counted) or str(instance["gpu"])


def _node(instance: Json) -> str:
    """Return the worker's machine, and its pod, job or process there."""
    worker = instance.get("worker", {})
    return "/".join(str(part) for part in (worker.get("node"), worker.get("pod")) if part)


def _status(instance: Json) -> str:
    return instance.get("instanceStatus") or "STARTING"
