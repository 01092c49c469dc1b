"""``gateway queues``: shows the depth of queues and the position of a request."""

from typing import Annotated

import typer

from gateway.cli.api_client import ApiClient, Json, run
from gateway.cli.lookup import find_function, version_name
from gateway.cli.options import (
    DEFAULT_URL,
    FunctionArgument,
    JsonOption,
    KeyOption,
    UrlOption,
    api_target,
    ids,
)
from gateway.cli.output import print_json, print_table, print_text

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
    function: FunctionArgument,
    version: Annotated[
        str | None,
        typer.Argument(
            metavar="VERSION",
            help="Show only this version: its name or id. Default: all that are deployed.",
        ),
    ] = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show how many requests are waiting for each deployed version."""
    target = api_target(api_url, api_key)
    named = version_name(function, version)

    async def read(api: ApiClient) -> Json:
        if named.version is None:
            return await api.get(f"queues/functions/{await find_function(api, named.function)}")
        return await api.get(f"queues/{(await named.find(api)).path}")

    queues = run(target, read)["queues"]
    if as_json:
        print_json(queues)
        return
    print_table(
        ("VERSION", "NAME*", "STATUS", "WAITING"),
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
    print_text(f"{rank} or more" if rank >= MAX_POSITION else str(rank))
