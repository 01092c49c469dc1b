"""Direct access to the store, for commands that work without the API."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from gateway.app.options import store_options
from gateway.cli.errors import CommandError, fail, usage
from gateway.cli.options import is_url
from gateway.errors import Conflict, StoreUnavailable
from gateway.settings import StoreSettings, read_settings
from gateway.store.open import make_store
from gateway.store.options import REDIS_SCHEMES, StoreOptions
from gateway.store.records import Store
from queueing.settings import Backend
from runtime.settings import SettingsError

CONNECT_TIMEOUT_S = 2.0

Result = TypeVar("Result")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file of the gateway, for the store's servers and the login. Default: the "
        "environment variables, and the defaults of settings.",
    ),
]
StoreUrlOption = Annotated[
    list[str] | None,
    typer.Option(
        "--store-url",
        "--nats-url",
        metavar="URL",
        help="URL of a server of the store: nats:// or tls:// for NATS, redis:// or rediss:// for "
        "Redis; repeatable. Default: from --config or the environment, else "
        "nats://127.0.0.1:4222.",
    ),
]
_NATS_SCHEMES = ("nats", "tls")


def with_store(
    config: Path | None,
    store_urls: list[str] | None,
    use: Callable[[Store], Awaitable[Result]],
    *,
    advice: str = "",
) -> Result:
    """Return the result of ``use`` with an open store. Ends the program if it cannot be used.

    ``advice`` says what else the user can do then.
    """
    backend = _backend_of(store_urls) if store_urls else None
    # Failures are printed in one line; without a handler, Python would print the log as well.
    logging.getLogger("gateway").addHandler(logging.NullHandler())
    try:
        settings = read_settings(config)
        options = replace(store_options(settings, backend), name="gateway-command")
        if store_urls:
            options = replace(options, urls=tuple(store_urls))
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
    options: StoreOptions, settings: StoreSettings, use: Callable[[Store], Awaitable[Result]]
) -> Result:
    store = make_store(options, settings.bucket_prefix, settings.replicas)
    try:
        await store.open(CONNECT_TIMEOUT_S)
        try:
            await store.prepare()
            return await use(store)
        finally:
            await store.close()
    except (Conflict, StoreUnavailable) as error:
        servers = ", ".join(map(_without_login, options.urls))
        # Some causes are a server's words, and end like a sentence.
        cause = str(error).rstrip(".")
        raise StoreUnusable(f"The store at {servers} cannot be used: {cause}.") from None


def _backend_of(urls: Sequence[str]) -> Backend:
    """Return the backend whose servers all ``urls`` are. Ends the program if there is none."""
    found: set[Backend] = set()
    for url in urls:
        complete = url if "://" in url else f"nats://{url}"
        if is_url(complete, *_NATS_SCHEMES):
            found.add("nats")
        elif is_url(complete, *REDIS_SCHEMES):
            found.add("redis")
        else:
            raise usage(
                f"{_without_login(url)} is not a URL: give --store-url as nats://HOST:PORT, "
                "tls://HOST:PORT, redis://HOST:PORT or rediss://HOST:PORT."
            )
    if len(found) > 1:
        raise usage("Give --store-url servers of NATS or of Redis, not of both.")
    return found.pop()


def _without_login(url: str) -> str:
    """Return ``url`` without user and password."""
    scheme, slashes, authority = url.rpartition("//")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}"
