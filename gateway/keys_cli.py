"""``gateway keys``: make, list and revoke API keys, straight in the store.

Whoever may write the key bucket may do this; nothing else is asked. A running gateway sees a change
within a second.
"""

import asyncio
import logging
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import orjson
import typer
from rich.console import Console
from rich.table import Table

from gateway.app.options import store_options
from gateway.auth.keys import RANDOM_BYTES, digest_of, new_key
from gateway.auth.scopes import ACCOUNT_SCOPES
from gateway.functions.model import EVERYTHING, ApiKey, Reach, reach_of, resources_of
from gateway.functions.principal import INVOKE
from gateway.settings import read_settings
from gateway.store.connection import Connection, NatsOptions
from gateway.store.errors import StoreError
from gateway.store.nats_kv import Store
from runtime.settings import SettingsError
from wire.ids import uuid4_text

CONNECT_WITHIN_S = 2.0

Answer = TypeVar("Answer")
app = typer.Typer(
    name="keys",
    no_args_is_help=True,
    help="Make, list and revoke the API keys that clients send as 'Authorization: Bearer nvapi-…'.",
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="The gateway's TOML file: where NATS is and how to log in."),
]
NatsUrlOption = Annotated[
    list[str] | None,
    typer.Option(
        "--nats-url",
        metavar="URL",
        help="NATS server, nats:// or tls://; may be repeated. Default: as in --config or "
        "GATEWAY_NATS__URLS, else nats://127.0.0.1:4222.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@dataclass(frozen=True, slots=True)
class Place:
    """Which store."""

    nats: NatsOptions
    prefix: str
    replicas: int


@app.command()
def create(  # noqa: PLR0913 - one argument per option
    account: Annotated[str, typer.Option(help="Account (NCA id) whose functions it opens.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help=f"What it may do; may be repeated. Default: {INVOKE}."),
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
            metavar="DURATION", help="Such as 12h, 30d or 90m. Default: it does not expire."
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="Who calls with it, as functions are told. Default: the key's id."),
    ] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    config: ConfigOption = None,
    nats_url: NatsUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is shown this once: only its hash is kept."""
    now = int(time.time())
    secret = new_key(secrets.token_bytes(RANDOM_BYTES))
    key_id = uuid4_text(secrets.token_bytes(16))
    key = ApiKey(
        key_id=key_id,
        digest=digest_of(secret.encode()),
        account=_checked_account(account),
        subject=subject or key_id,
        scopes=_checked_scopes(scope),
        reach=_checked_reach(function),
        created_at=now,
        expires_at=None if expires_in is None else now + _seconds(expires_in),
        description=description,
    )

    async def put(store: Store) -> None:
        await store.prepare()
        await store.put(key, 0)

    _with_store(_place(config, nats_url), put)
    if as_json:
        _print_json({**_as_json(key, now), "key": secret})
    else:
        typer.echo(secret)
        typer.echo(f"Key {key_id} of account {account}. Keep it: it is not shown again.", err=True)


@app.command("list")
def list_keys(
    account: Annotated[str | None, typer.Option(help="Only this account's.")] = None,
    config: ConfigOption = None,
    nats_url: NatsUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys: what they may do, never what they are."""

    async def read(store: Store) -> tuple[list[ApiKey], list[str]]:
        await store.prepare()
        return await store.list_keys(account)

    keys, unreadable = _with_store(_place(config, nats_url), read)
    now = int(time.time())
    if as_json:
        _print_json([_as_json(key, now) for key in keys])
    else:
        _print_table(keys, now)
    for name in unreadable:
        typer.echo(f"Key {name} is stored in a form that this program cannot read.", err=True)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as 'gateway keys list' shows it.")],
    config: ConfigOption = None,
    nats_url: NatsUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key: running gateways refuse it within a second. There is no way back."""

    async def change(store: Store) -> ApiKey | None:
        await store.prepare()
        return await store.revoke_key(key_id)

    key = None
    if _is_key_id(key_id):
        key = _with_store(_place(config, nats_url), change)
    if key is None:
        _fail(f"There is no key {key_id!r}. 'gateway keys list' shows the ids.")
    if as_json:
        _print_json(_as_json(key, int(time.time())))
    else:
        typer.echo(f"Key {key.key_id} of account {key.account} is revoked.")


def _with_store(place: Place, use: Callable[[Store], Awaitable[Answer]]) -> Answer:
    async def run() -> Answer:
        connection = Connection(place.nats)
        await connection.open(CONNECT_WITHIN_S)
        try:
            return await use(Store(connection, place.prefix, place.replicas))
        finally:
            await connection.close()

    # Failures are told in one line, below; without a handler, Python would print the log too.
    logging.getLogger("gateway").addHandler(logging.NullHandler())
    try:
        return asyncio.run(run())
    except StoreError as error:
        _fail(f"The store at {', '.join(map(_shown, place.nats.urls))} cannot be used: {error}")


def _place(config: Path | None, nats_urls: list[str] | None) -> Place:
    try:
        settings = read_settings(config)
    except (SettingsError, OSError) as error:
        _fail(str(error))
    options = replace(store_options(settings.nats), name="gateway-keys")
    if nats_urls:
        options = replace(options, urls=tuple(nats_urls))
    return Place(options, settings.store.bucket_prefix, settings.store.replicas)


def _shown(url: str) -> str:
    """Return ``url`` without user and password."""
    scheme, slashes, authority = url.rpartition("//")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}"


def _checked_account(account: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{1,128}", account):
        _fail("--account takes 1 to 128 visible ASCII characters, without spaces.")
    return account


def _checked_scopes(scopes: list[str] | None) -> frozenset[str]:
    chosen = frozenset(scopes or [INVOKE])
    if unknown := sorted(chosen - ACCOUNT_SCOPES):
        _fail(f"--scope {unknown[0]} is unknown. Scopes: {', '.join(sorted(ACCOUNT_SCOPES))}.")
    return chosen


def _checked_reach(functions: list[str] | None) -> Reach:
    if not functions:
        return EVERYTHING
    resources = [
        {"type": "function", "id": name if "/" in name else f"{name}/*"} for name in functions
    ]
    for name, resource in zip(functions, resources, strict=True):
        if reach_of([resource]) == Reach():
            _fail(f"--function {name} is neither FUNCTION_ID nor FUNCTION_ID/VERSION_ID.")
    return reach_of(resources)


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_S = 36_525 * 86_400
"""Dates end with the year 9999."""


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,9})([smhd])", text)
    if match is None:
        _fail(f"--expires-in {text} is no duration: write a number and s, m, h or d, such as 30d.")
    seconds = int(match[1]) * _UNITS_S[match[2]]
    if seconds > _LONGEST_S:
        _fail(f"--expires-in {text} is more than 100 years: leave it out.")
    return seconds


def _is_key_id(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) is not None


def _status(key: ApiKey, now: int) -> str:
    if key.is_revoked:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


def _as_json(key: ApiKey, now: int) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "account": key.account,
        "subject": key.subject,
        "status": _status(key, now),
        "scopes": sorted(key.scopes),
        "resources": resources_of(key.reach),
        "createdAt": _when(key.created_at),
        "expiresAt": None if key.expires_at is None else _when(key.expires_at),
        "description": key.description,
    }


def _when(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _print_json(value: object) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def _print_table(keys: list[ApiKey], now: int) -> None:
    if not keys:
        typer.echo("There are no keys. 'gateway keys create --account ACCOUNT' makes one.")
        return
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for key in keys:
        narrow = sorted(key.reach.functions | key.reach.versions)
        table.add_row(
            key.key_id,
            key.account,
            _status(key, now),
            " ".join(sorted(key.scopes)),
            "\n".join(narrow) if not key.reach.own else "all",
            "never" if key.expires_at is None else _when(key.expires_at),
            key.description,
        )
    # As wide as it gets: half an id is of no use, and terminals fold lines by themselves.
    Console(file=sys.stdout, width=_MAX_LINE).print(table)


_COLUMNS = ("ID", "ACCOUNT", "STATUS", "SCOPES", "FUNCTIONS", "EXPIRES", "DESCRIPTION")
_MAX_LINE = 10_000


def _fail(message: str) -> NoReturn:
    typer.echo(f"gateway keys: {message}", err=True)
    raise typer.Exit(1)
