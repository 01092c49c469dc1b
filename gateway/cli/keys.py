"""``gateway keys``: creates, lists and revokes API keys, over the API or in the store."""

import re
from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer

from gateway.cli.api_client import Json
from gateway.cli.errors import CommandError, fail
from gateway.cli.key_backends import ApiKeyBackend, KeyBackend, KeyRequest, StoreKeyBackend
from gateway.cli.options import DEFAULT_URL, JsonOption, UrlOption, api_target, lifetime_s
from gateway.cli.output import print_json, print_members, print_text, say
from gateway.cli.store_access import ConfigOption, StoreUrlOption
from gateway.domain.principal import INVOKE
from gateway.settings import API_KEY_VARIABLE

app = typer.Typer(name="keys", no_args_is_help=True, add_completion=False, rich_markup_mode=None)

_is_key_id = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_SCOPES_WIDTH = 80


AccountOption = Annotated[
    str | None,
    typer.Option(
        metavar="ACCOUNT",
        help="Account (NCA id) of the key. Required in the store; over the API it is always the "
        "account of your own key or token.",
    ),
]
ListAccountOption = Annotated[
    str | None,
    typer.Option(
        metavar="ACCOUNT",
        help="List only the keys of this account. Default: all in the store; over the API always "
        "the account of your own key or token.",
    ),
]
ScopeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SCOPE",
        help=f"Permission, such as list_functions; repeatable. Default: {INVOKE}.",
    ),
]
FunctionOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FUNCTION",
        help="Restrict the key to FUNCTION, or to one version with FUNCTION/VERSION; repeatable. "
        "Both are ids; over the API names too. Default: all functions of the account and all "
        "shared with it.",
    ),
]
LifetimeOption = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="Lifetime, such as 90m, 12h or 30d. Default: one year over the API, which is the "
        "maximum there; unlimited in the store.",
    ),
]
SubjectOption = Annotated[
    str | None,
    typer.Option(
        metavar="SUBJECT",
        help="Subject that functions receive as NVCF-SUB; only for keys created in the store. "
        "Default: the id of the key. Over the API it is the subject of your own key or token.",
    ),
]
CredentialOption = Annotated[
    str,
    typer.Option(
        "--api-key",
        envvar=API_KEY_VARIABLE,
        metavar="KEY",
        help="API key or token. Prefer the environment variable: other users can see options. "
        "Default: none; the command works in the store.",
        show_default=False,
    ),
]
DescriptionOption = Annotated[
    str,
    typer.Option(
        metavar="TEXT",
        help="Description; the API accepts up to 64 letters, digits, spaces, - and _. Default: "
        "none.",
    ),
]


@app.callback()
def group() -> None:
    """Create, list and revoke API keys.

    Clients send a key as 'Authorization: Bearer nvapi-...'.

    With GATEWAY_API_KEY in the environment, or with --api-key, these commands call the API. The key
    or token needs the scope account_setup. It manages the keys of its own account, and cannot grant
    scopes that it does not have.

    Without a key or token, and always with --config or --store-url, these commands work in the
    store itself, which is in NATS or Redis. A login there is enough to manage the keys of every
    account. Use this to create the first key, or to replace a lost one.

    Running gateways apply every change within a second.
    """


@app.command()
def create(  # noqa: PLR0913 - one argument per option
    account: AccountOption = None,
    scope: ScopeOption = None,
    function: FunctionOption = None,
    expires_in: LifetimeOption = None,
    subject: SubjectOption = None,
    description: DescriptionOption = "",
    api_url: UrlOption = DEFAULT_URL,
    api_key: CredentialOption = "",
    config: ConfigOption = None,
    store_url: StoreUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and print it. It is shown only once: the gateway keeps only its hash."""
    backend = _backend(config, store_url, api_url, api_key)
    request = KeyRequest(
        account=account,
        subject=subject,
        scopes=frozenset(scope or [INVOKE]),
        functions=tuple(function or ()),
        lifetime_s=None if expires_in is None else lifetime_s("--expires-in", expires_in),
        description=description,
    )
    key = backend.create(request)
    if as_json:
        print_json(key)
        return
    print_text(key["key"])
    until = "does not expire" if key["expiresAt"] is None else f"expires {key['expiresAt']}"
    say(f"Key {key['id']} of account {key['account']} {until}. Store it: it is not shown again.")


@app.command("list")
def list_keys(
    account: ListAccountOption = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: CredentialOption = "",
    config: ConfigOption = None,
    store_url: StoreUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys, oldest first.

    Their values are not shown: the gateway does not have them. Revoked keys are listed only in the
    store (--config, --store-url).
    """
    keys = _backend(config, store_url, api_url, api_key).list_keys(account)
    if as_json:
        print_json(keys)
    elif not keys:
        say("There are no keys. Create one with 'gateway keys create'.")
    else:
        _print_keys(keys)


@app.command()
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="KEY_ID", help="Id of the key, from 'gateway keys list'.")
    ],
    api_url: UrlOption = DEFAULT_URL,
    api_key: CredentialOption = "",
    config: ConfigOption = None,
    store_url: StoreUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key permanently. Running gateways reject it within a second."""
    backend = _backend(config, store_url, api_url, api_key)
    if _is_key_id(key_id) is None:
        raise fail(CommandError(f"There is no key {key_id!r}. List keys with 'gateway keys list'."))
    key = backend.revoke(key_id)
    if as_json:
        print_json(key)
    else:
        say(f"Key {key['id']} of account {key['account']} is revoked.")


def _backend(
    config: Path | None, store_urls: list[str] | None, api_url: str, api_key: str
) -> KeyBackend:
    """Return the backend that the options select."""
    if api_key and config is None and not store_urls:
        return ApiKeyBackend(api_target(api_url, api_key))
    return StoreKeyBackend(config, store_urls)


def _print_keys(keys: list[Json]) -> None:
    """Print the members of each key: ids and scopes of a key do not fit into a row of a table."""
    for index, key in enumerate(keys):
        if index:
            print_text()
        print_members(
            [
                ("id", key["id"]),
                ("account", key["account"]),
                ("status", key["status"]),
                ("expires", key["expiresAt"] or "never"),
                ("scopes", fill(" ".join(key["scopes"]), _SCOPES_WIDTH)),
                ("functions", _functions(key["resources"])),
                ("description", key["description"]),
            ]
        )


def _functions(resources: list[dict[str, str]]) -> str:
    """Return the functions of a key: all, those of its account, those shared with it, or ids."""
    names = {"account-functions": "own", "authorized-functions": "shared"}
    shown = [
        names.get(resource["type"]) or resource["id"].removesuffix("/*") for resource in resources
    ]
    return "all" if {"own", "shared"} <= set(shown) else "\n".join(shown)
