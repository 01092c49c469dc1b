"""``gateway queues``: shows the depth of queues and the position of a request."""

from typing import Annotated

import typer

from gateway.cli.api_client import run
from gateway.cli.options import (
    DEFAULT_URL,
    FunctionArgument,
    JsonOption,
    KeyOption,
    UrlOption,
    api_target,
    ids,
)
from gateway.cli.output import print_json, print_table

MAX_POSITION = 1000
"""The API counts positions up to this one."""

app = typer.Typer(
    name="queues",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Show waiting requests.",
)


@app.command()
def show(
    function_id: FunctionArgument,
    version_id: Annotated[
        str | None, typer.Argument(metavar="[VERSION_ID]", help="Show only this version.")
    ] = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show how many requests are waiting for each deployed version."""
    target = api_target(api_url, api_key)
    path = f"queues/functions/{ids(function_id)[0]}"
    if version_id is not None:
        path += f"/versions/{ids(version_id)[0]}"
    queues = run(target, lambda api: api.get(path))["queues"]
    if as_json:
        print_json(queues)
        return
    print_table(
        ("VERSION", "NAME", "STATUS", "WAITING"),
        [
            (
                queue["functionVersionId"],
                queue["functionName"],
                queue["functionStatus"],
                str(queue["queueDepth"]),
            )
            for queue in queues
        ],
    )


@app.command()
def position(
    request_id: Annotated[
        str, typer.Argument(metavar="REQUEST_ID", help="Request id, from the header nvcf-reqid.")
    ],
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show the position of a request in its queue.

    1 is next, 0 is with a worker.
    """
    target = api_target(api_url, api_key)
    path = f"queues/{ids(request_id)[0]}/position"
    found = run(target, lambda api: api.get(path))
    if as_json:
        print_json(found)
        return
    rank = found["positionInQueue"]
    typer.echo(f"{rank} or more" if rank >= MAX_POSITION else str(rank))
