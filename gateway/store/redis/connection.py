"""The connection of the store to Redis or Valkey, kept for as long as the process lives.

`redis-py` carries it, to one server: the master, alone or named by the Sentinels; or to the masters
of a Cluster. When it is lost, it is opened anew from the addresses, at whatever is the master then.
No command is repeated: a write whose response did not arrive may have happened.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    NoScriptError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from gateway.errors import StoreUnavailable
from gateway.store.options import RedisStoreOptions
from gateway.store.redis.scripts import StoreScript
from runtime.events import emit
from runtime.tasks import spawn

RECONNECT_WAIT_S = 0.2
"""Pause between attempts. Short: a key that was revoked while Redis was away must stop soon."""
CONNECT_WITHIN_S = 2.0
RESPONSE_WITHIN_S = 3.0
"""Timeout of one command."""
_AT_ONCE = 16
"""Commands that are sent at a time, each on a connection of its own; further ones wait."""

_LOST = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, RedisClusterException, OSError)
"""Errors after which another server may be the master, or none."""
_DEMOTED = "UNBLOCKED"
"""What a command that waits gets when its server becomes a replica."""

_log = logging.getLogger("gateway.store")

RedisClient = Redis | RedisCluster


class RedisStoreConnection:
    """Opens, keeps and closes the connection, and runs commands and scripts."""

    def __init__(self, options: RedisStoreOptions) -> None:
        self._options = options
        self._client: RedisClient | None = None
        self._up = asyncio.Event()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._reopening: asyncio.Task[None] | None = None
        self._last_error = ""

    async def open(self, timeout_s: float | None = None) -> None:
        """Connect, and keep trying; raise `StoreUnavailable` after ``timeout_s`` seconds.

        Raises it at once for options that cannot work: a malformed URL, a missing file.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._connect()
        except TimeoutError:
            raise StoreUnavailable(cause=self._last_error or "no response from Redis") from None

    async def close(self) -> None:
        """Close for good. There are no buffered writes to lose."""
        self._up.clear()
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.wait([self._reopening])
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def wait_connected(self) -> None:
        """Wait without limit until there is a connection."""
        await self._up.wait()

    async def call(self, *command: str | bytes | float) -> Any:
        """Return the response to one command. Raises `StoreUnavailable`."""
        async with self._turns:
            return await self.call_at_once(*command)

    async def call_at_once(self, *command: str | bytes | float) -> Any:
        """As `call`, for a command that blocks: it takes no turn from the others."""
        client = self._client
        if client is None or not self._up.is_set():
            raise StoreUnavailable(cause=self._last_error or "not connected to Redis")
        with self._translate_errors(client):
            return await _call(client, *command)

    async def run(
        self, script: StoreScript, keys: tuple[str, ...], *arguments: str | bytes | float
    ) -> int:
        """Return what a script returns. Raises `StoreUnavailable`."""
        try:
            result = await self.call("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except UnknownScript:
            # The server has been started since, has another master, or was told to forget it.
            result = await self.call("EVAL", script.source, len(keys), *keys, *arguments)
        return int(result)

    async def _connect(self) -> None:
        """Try all addresses again and again. Raises `StoreUnavailable` if that cannot work."""
        while True:
            try:
                self._client = await _find_master(self._options)
            except (RedisError, RedisClusterException, OSError) as error:
                if isinstance(error, FileNotFoundError):
                    raise StoreUnavailable(cause=str(error)) from error
                self._note(error)
            except ValueError as error:
                raise StoreUnavailable(cause=str(error)) from error
            else:
                self._last_error = ""
                self._up.set()
                return
            await asyncio.sleep(RECONNECT_WAIT_S)

    async def _reopen(self, lost: RedisClient) -> None:
        await lost.aclose()
        await self._connect()
        emit(_log, "store.reconnected")

    @contextmanager
    def _translate_errors(self, client: RedisClient) -> Iterator[None]:
        """Raise `StoreUnavailable` in place of `redis-py`'s errors; connect anew where that helps.

        The cause names servers and keys: it is for logs, not for callers.
        """
        try:
            yield
        except NoScriptError as error:
            raise UnknownScript(cause=str(error)) from error
        except (RedisError, RedisClusterException, OSError) as error:
            text = _text_of(error)
            if isinstance(error, _LOST) or text.startswith(_DEMOTED):
                self._lose(client, text)
            raise StoreUnavailable(cause=text) from error

    def _lose(self, client: RedisClient, text: str) -> None:
        if client is self._client and self._up.is_set():
            self._up.clear()
            self._last_error = text
            emit(_log, "store.disconnected", logging.WARNING, error=text)
            self._reopening = spawn(self._reopen(client), "store.reopen")

    def _note(self, error: Exception) -> None:
        text = _text_of(error)
        if text != self._last_error:
            self._last_error = text
            emit(_log, "store.redis_error", logging.WARNING, error=text)


class UnknownScript(StoreUnavailable):
    """The server does not know a script by its digest."""


async def _find_master(options: RedisStoreOptions) -> RedisClient:
    """Return a client of the first master that responds. Raises the error of the last address."""
    error: Exception = RedisConnectionError("no address")
    for url in options.urls:
        async with AsyncExitStack() as undo:
            try:
                return await _open_at(options, url, undo)
            except (RedisError, RedisClusterException, OSError) as failure:
                error = failure
    raise error


async def _open_at(options: RedisStoreOptions, url: str, undo: AsyncExitStack) -> RedisClient:
    """Return a client of the master at ``url``, or that the Sentinel there names.

    It is closed by ``undo`` unless it is returned. Raises `redis-py`'s errors and ``OSError``.
    """
    if options.sentinel_master:
        server = await _ask_sentinel(options, url)
    else:
        server = _server_of(options, url)
    client = Redis(**server, **_manners(options))
    undo.push_async_callback(client.aclose)
    reply = await _call(client, "HELLO")
    hello = dict(zip(reply[::2], reply[1::2], strict=True))
    if hello[b"mode"] == b"cluster":
        cluster = RedisCluster(
            startup_nodes=[_node_of(options, other) for other in options.urls],
            **{name: value for name, value in server.items() if name not in {"host", "port"}},
            **_manners(options),
        )
        undo.push_async_callback(cluster.aclose)
        await cluster.initialize()
        undo.pop_all()
        await client.aclose()
        return cluster
    if hello[b"role"] != b"master":
        raise ReadOnlyError(f"{server['host']}:{server['port']} is a replica")
    # A server that still loads its data greets, but responds to nothing else.
    await _call(client, "PING")
    undo.pop_all()
    return client


async def _ask_sentinel(options: RedisStoreOptions, url: str) -> dict[str, Any]:
    """Return how to connect to the master that the Sentinel at ``url`` names."""
    server = _server_of(options, url)
    sentinel = Redis(**{**server, **_login_at_sentinel(options, url)}, **_manners(options))
    try:
        command = "SENTINEL GET-MASTER-ADDR-BY-NAME"
        found = await _call(sentinel, command, options.sentinel_master)
    finally:
        await sentinel.aclose()
    if found is None:
        raise ResponseError(f"the Sentinel knows no master {options.sentinel_master!r}")
    login = {"username": options.user, "password": options.password}
    return {**server, **login, "host": found[0].decode(), "port": int(found[1])}


def _login_at_sentinel(options: RedisStoreOptions, url: str) -> dict[str, Any]:
    parsed = parse_url(url)
    return {
        "username": parsed.get("username"),
        "password": parsed.get("password") or options.sentinel_password,
    }


async def _call(client: RedisClient, *command: str | bytes | float) -> Any:
    return await client.execute_command(*command)


def _node_of(options: RedisStoreOptions, url: str) -> ClusterNode:
    server = _server_of(options, url)
    return ClusterNode(server["host"], server["port"])


def _server_of(options: RedisStoreOptions, url: str) -> dict[str, Any]:
    """Return address, login and TLS of one server, as arguments of a client. Raises ValueError."""
    parsed = parse_url(url)
    tls = {"ssl": True, "ssl_ca_certs": options.ca_file and str(options.ca_file)}
    return {
        "host": parsed.get("host", "localhost"),
        "port": parsed.get("port", 6379),
        "username": parsed.get("username") or options.user,
        "password": parsed.get("password") or options.password,
        **(tls if "connection_class" in parsed else {}),
    }


def _manners(options: RedisStoreOptions) -> dict[str, Any]:
    """Return how every client behaves, as its arguments."""
    return {
        "client_name": options.name,
        # RESP3 adds nothing here but notifications that nobody reads.
        "protocol": 2,
        "socket_timeout": RESPONSE_WITHIN_S,
        "socket_connect_timeout": CONNECT_WITHIN_S,
        # By default a script is sent up to ten times.
        "retry": Retry(NoBackoff(), 0),
    }


def _text_of(error: Exception) -> str:
    known = error.strerror if isinstance(error, OSError) else None
    return known or str(error) or type(error).__name__
