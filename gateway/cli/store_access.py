"""The store itself, for commands that need no API: whoever may read and write it may run them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from gateway.app.options import store_options
from gateway.cli.failures import CommandError, fail
from gateway.errors import Conflict, StoreUnavailable
from gateway.settings import StoreSettings, read_settings
from gateway.store.connection import Connection, NatsOptions
from gateway.store.nats_kv import Store
from runtime.settings import SettingsError

CONNECT_WITHIN_S = 2.0

Answer = TypeVar("Answer")

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


def with_store(
    config: Path | None, nats_urls: list[str] | None, use: Callable[[Store], Awaitable[Answer]]
) -> Answer:
    """Return what ``use`` does with the store. Ends the program when the store cannot be used."""
    # Failures are told in one line; without a handler, Python would print the log too.
    logging.getLogger("gateway").addHandler(logging.NullHandler())
    try:
        settings = read_settings(config)
        options = replace(store_options(settings.nats), name="gateway-command")
        if nats_urls:
            options = replace(options, urls=tuple(nats_urls))
        return asyncio.run(_used(options, settings.store, use))
    except SettingsError as error:
        raise fail(CommandError(f"settings are not usable: {error}")) from None
    except OSError as error:
        raise fail(CommandError(f"{error.filename or 'file'}: {error.strerror}")) from None
    except CommandError as error:
        raise fail(error) from None


async def _used(
    options: NatsOptions, settings: StoreSettings, use: Callable[[Store], Awaitable[Answer]]
) -> Answer:
    connection = Connection(options)
    try:
        await connection.open(CONNECT_WITHIN_S)
        try:
            store = Store(connection, settings.bucket_prefix, settings.replicas)
            await store.prepare()
            return await use(store)
        finally:
            await connection.close()
    except (Conflict, StoreUnavailable) as error:
        servers = ", ".join(map(_shown, options.urls))
        raise CommandError(f"The store at {servers} cannot be used: {error}") from None


def _shown(url: str) -> str:
    """Return ``url`` without user and password."""
    scheme, slashes, authority = url.rpartition("//")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}"
