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
from gateway.settings import read_settings
from gateway.store.connection import Connection
from gateway.store.errors import StoreError
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
    typer.Option("--nats-url", metavar="URL", help="NATS server; may be repeated."),
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

        async def main() -> Answer:
            connection = Connection(options)
            await connection.open(CONNECT_WITHIN_S)
            try:
                store = Store(connection, settings.store.bucket_prefix, settings.store.replicas)
                await store.prepare()
                return await use(store)
            finally:
                await connection.close()

        return asyncio.run(main())
    except SettingsError as error:
        raise fail(CommandError(f"settings are not usable: {error}")) from None
    except StoreError as error:
        raise fail(CommandError(f"The store cannot be used: {error}")) from None
    except OSError as error:
        raise fail(CommandError(f"{error.filename or 'file'}: {error.strerror}")) from None
    except CommandError as error:
        raise fail(error) from None
