"""``gateway queues``: how much waits, and where one request stands."""

from typing import Annotated

import typer

from gateway.cli.api_client import run
from gateway.cli.options import (
    DEFAULT_URL,
    FunctionArgument,
    JsonOption,
    KeyOption,
    UrlOption,
    ids,
    place,
)
from gateway.cli.output import print_json, print_table

MAX_POSITION = 1000
"""The API counts no further."""

app = typer.Typer(
    name="queues",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at the requests that wait.",
)


@app.command()
def show(
    function_id: FunctionArgument,
    version_id: Annotated[
        str | None, typer.Argument(metavar="[VERSION_ID]", help="Only this one's.")
    ] = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show how many requests wait for each deployed version."""
    target = place(api_url, api_key)
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
        str, typer.Argument(metavar="REQUEST_ID", help="As the header nvcf-reqid has it.")
    ],
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show a request's place in line: 1 is next, 0 is with a worker."""
    target = place(api_url, api_key)
    path = f"queues/{ids(request_id)[0]}/position"
    found = run(target, lambda api: api.get(path))
    if as_json:
        print_json(found)
        return
    place_in_line = found["positionInQueue"]
    typer.echo(f"{place_in_line}{' or further back' if place_in_line >= MAX_POSITION else ''}")
