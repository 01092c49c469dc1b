"""``gateway bootstrap``: the secret that admin tokens are made with, straight in the store.

Whoever may write the bucket ``meta`` may do this; nothing else is asked.
"""

import secrets
import time

import typer

from gateway.api import bootstrap
from gateway.auth.bootstrap import RANDOM_BYTES
from gateway.cli.options import JsonOption
from gateway.cli.output import print_json, say
from gateway.cli.store_access import ConfigOption, NatsUrlOption, with_store
from gateway.domain.lifecycle import timestamp

app = typer.Typer(name="bootstrap", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Make another bootstrap secret when the one that the first start printed is lost or known."""


@app.command("reset")
def reset(
    config: ConfigOption = None, nats_url: NatsUrlOption = None, as_json: JsonOption = False
) -> None:
    """Make a new bootstrap secret in place of the old one and print it. It is shown this once.

    Running gateways refuse the old one within a second. Admin tokens that were made with it stay
    good until they expire.
    """
    at = timestamp(time.time())
    random = secrets.token_bytes(RANDOM_BYTES)
    secret = with_store(config, nats_url, lambda store: bootstrap.reset(store, random, at))
    if as_json:
        print_json({"secret": secret, "createdAt": at})
        return
    typer.echo(secret)
    say("It makes admin tokens (POST /v1/admin/keys). Keep it: it is not shown again.")
