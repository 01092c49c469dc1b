"""Direct access to the store, for commands that work without the API."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from gateway.app.options import store_options
from gateway.cli.errors import CommandError, fail, usage
from gateway.cli.options import is_url
from gateway.errors import Conflict, StoreUnavailable
from gateway.settings import StoreSettings, read_settings
from gateway.store.connection import NatsOptions, StoreConnection
from gateway.store.nats_kv import Store
from runtime.settings import SettingsError

CONNECT_TIMEOUT_S = 2.0

Result = TypeVar("Result")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file of the gateway, for the NATS servers and the login. Default: the "
        "environment variables, and the defaults of settings.",
    ),
]
NatsUrlOption = Annotated[
    list[str] | None,
    typer.Option(
        "--nats-url",
        metavar="URL",
        help="URL of a NATS server, nats:// or tls://; repeatable. Default: from --config or "
        "GATEWAY_NATS__URLS, else nats://127.0.0.1:4222.",
    ),
]


def with_store(
    config: Path | None,
    nats_urls: list[str] | None,
    use: Callable[[Store], Awaitable[Result]],
    *,
    advice: str = "",
) -> Result:
    """Return the result of ``use`` with an open store. Ends the program if it cannot be used.

    ``advice`` says what else the user can do then.
    """
    for url in nats_urls or ():
        if not is_url(url if "://" in url else f"nats://{url}", "nats", "tls"):
            raise usage(
                f"{_without_login(url)} is not a URL: give --nats-url as nats://HOST:PORT or "
                "tls://HOST:PORT."
            )
    # Failures are printed in one line; without a handler, Python would print the log as well.
    logging.getLogger("gateway").addHandler(logging.NullHandler())
    try:
        settings = read_settings(config)
        options = replace(store_options(settings), name="gateway-command")
        if nats_urls:
            options = replace(options, urls=tuple(nats_urls))
        return asyncio.run(_connect_and_use(options, settings.store, use))
    except SettingsError as error:
        raise usage(f"invalid settings: {error}") from None
    except OSError as error:
        raise fail(CommandError(f"{error.filename or 'file'}: {error.strerror}")) from None
    except StoreUnusable as error:
        raise fail(CommandError(f"{error} {advice}".rstrip())) from None
    except CommandError as error:
        raise fail(error) from None


class StoreUnusable(CommandError):
    """The store cannot be reached, or refuses what a command needs."""


async def _connect_and_use(
    options: NatsOptions, settings: StoreSettings, use: Callable[[Store], Awaitable[Result]]
) -> Result:
    connection = StoreConnection(options)
    try:
        await connection.open(CONNECT_TIMEOUT_S)
        try:
            store = Store(connection, settings.bucket_prefix, settings.replicas)
            await store.prepare()
            return await use(store)
        finally:
            await connection.close()
    except (Conflict, StoreUnavailable) as error:
        servers = ", ".join(map(_without_login, options.urls))
        raise StoreUnusable(f"The store at {servers} cannot be used: {error}.") from None


def _without_login(url: str) -> str:
    """Return ``url`` without user and password."""
    scheme, slashes, authority = url.rpartition("//")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}"
