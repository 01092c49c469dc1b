"""``gateway webhooks``: shows and rotates the secret with which webhooks are signed."""

from typing import Annotated

import typer

from gateway.cli.api_client import ApiClient, Json, run
from gateway.cli.options import DEFAULT_URL, JsonOption, KeyOption, UrlOption, api_target
from gateway.cli.output import print_json, print_text, say

_PATH = "/v2/webhooks/secret"

app = typer.Typer(
    name="webhooks", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@app.callback()
def group() -> None:
    """Check webhooks that the gateway has sent."""


@app.command()
def secret(
    *,
    rotate: Annotated[
        bool,
        typer.Option(
            "--rotate",
            help="Make a new secret first. The one before signs too for a day, so that receivers "
            "can change to the new one.",
        ),
    ] = False,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Print the secret with which the webhooks of your account are signed (Standard Webhooks).

    The key or token needs the scope account_setup.
    """
    target = api_target(api_url, api_key)

    async def read(api: ApiClient) -> Json:
        return await api.call("POST", f"{_PATH}/rotate") if rotate else await api.get(_PATH)

    found = run(target, read)
    if as_json:
        print_json(found)
        return
    print_text(found["secret"])
    if "previousSecret" in found:
        say(f"The secret before it signs too until {found['previousExpiresAt']}.")
