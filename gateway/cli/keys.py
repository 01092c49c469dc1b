"""``gateway keys``: make, list and revoke API keys, over the API or straight in the store."""

import re
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.api_client import Json
from gateway.cli.failures import CommandError, fail
from gateway.cli.key_places import Keys, KeysInStore, KeysOverApi, Wish
from gateway.cli.options import DEFAULT_URL, JsonOption, KeyOption, UrlOption, place
from gateway.cli.output import print_json, print_table, say
from gateway.cli.store_access import ConfigOption, NatsUrlOption
from gateway.domain.model import EVERYTHING, ResourceScope, resource_scope_of
from gateway.domain.principal import INVOKE

app = typer.Typer(name="keys", no_args_is_help=True, rich_markup_mode=None)

_is_key_id = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_S = 36_525 * 86_400
"""Dates end with the year 9999."""


@app.callback()
def group() -> None:
    """Make, list and revoke the API keys that clients send as 'Authorization: Bearer nvapi-...'.

    With GATEWAY_API_KEY in the environment, or --api-key, these commands ask the API, as the others
    do. The key or token needs the scope account_setup; it makes, shows and revokes keys of its own
    account, and gives no more than it has.

    Without one, and always with --config or --nats-url, they work in the store itself, which is in
    NATS. Whoever can log in there can do this, for any account: it is how a first key is made, and
    one that is lost replaced.

    Either way, running gateways know of a change within a second.
    """


@app.command()
def create(  # noqa: PLR0913 - one argument per option
    account: Annotated[
        str | None,
        typer.Option(
            metavar="ACCOUNT",
            help="Account (NCA id) whose functions it opens. Needed in the store; over the API it "
            "is the one of your own key or token, and no other.",
        ),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help=f"What it may do, such as list_functions; may be repeated. Default: {INVOKE}.",
        ),
    ] = None,
    function: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FUNCTION",
            help="Only this function: FUNCTION_ID, or FUNCTION_ID/VERSION_ID for one version; "
            "may be repeated. Default: all of the account and all shared with it.",
        ),
    ] = None,
    expires_in: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Such as 90m, 12h or 30d. Default: over the API a year, which is the most; in the "
            "store it does not expire.",
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            metavar="SUBJECT",
            help="Who calls with it, as functions are told; in the store only. Default: the key's "
            "id. Over the API it is the one of your own key or token.",
        ),
    ] = None,
    description: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="For people. The API takes up to 64 letters, digits, blanks, - and _.",
        ),
    ] = "",
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    config: ConfigOption = None,
    nats_url: NatsUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is shown this once: only its hash is kept."""
    keys = _keys(config, nats_url, api_url, api_key)
    made = keys.make(
        Wish(
            account=account,
            subject=subject,
            scopes=frozenset(scope or [INVOKE]),
            reach=_reach(function),
            lifetime_s=None if expires_in is None else _seconds(expires_in),
            description=description,
        )
    )
    if as_json:
        print_json(made)
        return
    typer.echo(made["key"])
    until = "does not expire" if made["expiresAt"] is None else f"expires {made['expiresAt']}"
    say(f"Key {made['id']} of account {made['account']} {until}. Keep it: it is not shown again.")


@app.command("list")
def list_keys(
    account: Annotated[
        str | None,
        typer.Option(
            metavar="ACCOUNT",
            help="Only this account's. Default: in the store all; over the API the one of your own "
            "key or token, and no other.",
        ),
    ] = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    config: ConfigOption = None,
    nats_url: NatsUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys, oldest first: what they may do, never what they are.

    Keys that were revoked are listed in the store (--config, --nats-url) only.
    """
    found = _keys(config, nats_url, api_url, api_key).all(account)
    if as_json:
        print_json(found)
    elif not found:
        say("There are none. 'gateway keys create' makes one.")
    else:
        _print_keys(found)


@app.command()
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="KEY_ID", help="As 'gateway keys list' shows it.")
    ],
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    config: ConfigOption = None,
    nats_url: NatsUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key: running gateways refuse it within a second. There is no way back."""
    keys = _keys(config, nats_url, api_url, api_key)
    if _is_key_id(key_id) is None:
        raise fail(CommandError(f"There is no key {key_id!r}. 'gateway keys list' shows them."))
    revoked = keys.revoke(key_id)
    if as_json:
        print_json(revoked)
    else:
        say(f"Key {revoked['id']} of account {revoked['account']} is revoked.")


def _keys(config: Path | None, nats_urls: list[str] | None, api_url: str, api_key: str) -> Keys:
    """Return where the keys are that the command line means."""
    if api_key and config is None and not nats_urls:
        return KeysOverApi(place(api_url, api_key))
    return KeysInStore(config, nats_urls)


def _reach(functions: list[str] | None) -> ResourceScope:
    if not functions:
        return EVERYTHING
    resources = [
        {"type": "function", "id": name if "/" in name else f"{name}/*"} for name in functions
    ]
    for name, resource in zip(functions, resources, strict=True):
        if resource_scope_of([resource]) == ResourceScope():
            raise fail(
                CommandError(
                    f"--function {name} is neither FUNCTION_ID nor FUNCTION_ID/VERSION_ID."
                )
            )
    return resource_scope_of(resources)


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,9})([smhd])", text)
    if match is None:
        raise fail(
            CommandError(
                f"--expires-in {text} is no duration: write a number and s, m, h or d, such as 30d."
            )
        )
    seconds = int(match[1]) * _UNITS_S[match[2]]
    if seconds > _LONGEST_S:
        raise fail(CommandError(f"--expires-in {text} is more than 100 years: leave it out."))
    return seconds


def _print_keys(keys: list[Json]) -> None:
    print_table(
        ("ID", "ACCOUNT", "STATUS", "SCOPES", "FUNCTIONS", "EXPIRES", "DESCRIPTION"),
        [
            (
                key["id"],
                key["account"],
                key["status"],
                key["scopes"],
                _functions(key["resources"]),
                key["expiresAt"] or "never",
                key["description"],
            )
            for key in keys
        ],
    )


def _functions(resources: list[dict[str, str]]) -> str:
    """Return which functions a key opens: all, its account's own, those shared with it, or ids."""
    words = {"account-functions": "own", "authorized-functions": "shared"}
    found = [words.get(one["type"]) or one["id"].removesuffix("/*") for one in resources]
    return "all" if {"own", "shared"} <= set(found) else "\n".join(found)
