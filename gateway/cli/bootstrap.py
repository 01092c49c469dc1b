"""``gateway bootstrap``: replaces the secret that admin tokens are created with, in the store.

Write access to the bucket ``meta`` is the only permission that this needs.
"""

import secrets
import time

import typer

from gateway.api import bootstrap
from gateway.auth.bootstrap import RANDOM_BYTES
from gateway.cli.options import JsonOption
from gateway.cli.output import print_json, print_text, say
from gateway.cli.store_access import ConfigOption, StoreUrlOption, with_store
from gateway.domain.lifecycle import timestamp

app = typer.Typer(
    name="bootstrap", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@app.callback()
def group() -> None:
    """Reset the bootstrap secret.

    The gateway prints this secret at its first start. It is used to create admin tokens.
    """


@app.command("reset")
def reset(
    config: ConfigOption = None, store_url: StoreUrlOption = None, as_json: JsonOption = False
) -> None:
    """Create a new bootstrap secret, replace the old one and print it. It is shown only once.

    Running gateways reject the old secret within a second. Admin tokens that were created with it
    remain valid until they expire.
    """
    at = timestamp(time.time())
    random = secrets.token_bytes(RANDOM_BYTES)
    secret = with_store(config, store_url, lambda store: bootstrap.reset(store, random, at))
    if as_json:
        print_json({"secret": secret, "createdAt": at})
        return
    print_text(secret)
    say("Use it to create admin tokens (POST /v1/admin/keys). Store it: it is not shown again.")
