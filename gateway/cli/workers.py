"""``gateway workers``: tokens with which workers that others start register as instances."""

from typing import Annotated

import typer

from gateway.cli.api_client import ApiClient, Json, run
from gateway.cli.lookup import version_name
from gateway.cli.options import (
    DEFAULT_URL,
    FunctionArgument,
    JsonOption,
    KeyOption,
    UrlOption,
    VersionArgument,
    api_target,
    ids,
    lifetime_s,
)
from gateway.cli.output import print_json, print_table, print_text, say

_PATH = "registrationTokens"

app = typer.Typer(name="workers", no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Let workers that you start yourself serve a function.

    Deploy the function on a cluster whose backend is external. Then start 'worker-agent' beside
    your model server, wherever the gateway and its queue can be reached, with the URL of the API in
    WORKER_CONTROL__URL and a registration token in WORKER_CONTROL__TOKEN, and nothing else.

    'gateway instances FUNCTION' lists the workers that have registered.
    """


@app.command()
def token(
    function: FunctionArgument,
    version: VersionArgument = None,
    expires: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="How long workers can register with it, such as 12h or 30d; a year at most. Those "
            "that have registered go on after that.",
        ),
    ] = "30d",
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Create a registration token and print it. It is shown only once. Needs deploy_function.

    Any number of workers of the version can register with it.
    """
    target = api_target(api_url, api_key)
    named = version_name(function, version)
    body = {"expiresInSeconds": lifetime_s("--expires", expires)}

    async def create(api: ApiClient) -> Json:
        return await api.call("POST", f"{_PATH}/{(await named.find(api)).path}", body)

    made = run(target, create)
    if as_json:
        print_json(made)
        return
    print_text(made["token"])
    say(
        f"Registration token {made['tokenId']} of version {made['functionVersionId']} expires "
        f"{made['expiresAt'][:19]}Z. Store it: it is not shown again."
    )


@app.command()
def tokens(
    api_url: UrlOption = DEFAULT_URL, api_key: KeyOption = "", as_json: JsonOption = False
) -> None:
    """List registration tokens that are valid, oldest first; not their values."""
    found = run(api_target(api_url, api_key), lambda api: api.get(_PATH))["registrationTokens"]
    if as_json:
        print_json(found)
    elif not found:
        say("There are no registration tokens. Create one with 'gateway workers token'.")
    else:
        print_table(
            ("TOKEN", "VERSION", "EXPIRES*"),
            [
                (one["tokenId"], one["functionVersionId"], one["expiresAt"][:19] + "Z")
                for one in found
            ],
        )


@app.command()
def revoke(
    token_id: Annotated[
        str, typer.Argument(metavar="TOKEN_ID", help="Id of the token, from 'workers tokens'.")
    ],
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
) -> None:
    """Revoke a registration token for good.

    No worker can register with it any more. Those that have are told to stop at their next
    heartbeat: they finish their requests and exit.
    """
    path = f"{_PATH}/{ids(token_id)[0]}"
    run(api_target(api_url, api_key), lambda api: api.call("DELETE", path))
    say(f"Registration token {token_id} is revoked.")
