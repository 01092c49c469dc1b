"""Finds the master of the store: a server, what the Sentinels call the master, or a Cluster."""

from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisClusterException, RedisError, ResponseError

from gateway.store.options import RedisStoreOptions

CONNECT_WITHIN_S = 2.0
RESPONSE_WITHIN_S = 3.0
"""Timeout of one command."""
ERRORS = (RedisError, RedisClusterException, OSError)
"""What `redis-py` raises."""

RedisClient = Redis | RedisCluster


class StoreServer(NamedTuple):
    """Address and login of one server; with ``tls`` it is verified."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None
    tls: bool = False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class StoreMaster(NamedTuple):
    """The master that was found, and a client of it; of a Cluster one node, and a client of all."""

    server: StoreServer
    client: RedisClient


def check_urls(options: RedisStoreOptions) -> None:
    """Raise ValueError unless every URL is one of Redis, and of its database 0."""
    for url in options.urls:
        if parse_url(url).get("db"):
            raise ValueError("only database 0 can be used, which is the one of Clusters")


async def find_master(options: RedisStoreOptions) -> StoreMaster:
    """Return the first master that responds. Raises one of `ERRORS`."""
    if options.sentinel_master:
        servers = [await ask_sentinels(options)]
    else:
        servers = [_server_at(options, url) for url in options.urls]
    error: Exception = RedisConnectionError("no address")
    for server in servers:
        async with AsyncExitStack() as undo:
            try:
                return StoreMaster(server, await _open(options, server, undo))
            except ERRORS as failure:
                error = failure
    raise error


async def ask_sentinels(options: RedisStoreOptions) -> StoreServer:
    """Return the master that the first Sentinel to respond names. Raises one of `ERRORS`."""
    error: Exception = RedisConnectionError("no address")
    for url in options.urls:
        asked = _server_at(options, url)
        own = parse_url(url)
        password = own.get("password") or options.sentinel_password
        sentinel = _client(options, asked._replace(user=own.get("username"), password=password))
        try:
            command = "SENTINEL GET-MASTER-ADDR-BY-NAME"
            found = await call(sentinel, command, options.sentinel_master)
        except ERRORS as failure:
            error = failure
            continue
        finally:
            await sentinel.aclose()
        if found is not None:
            host, port = found
            return StoreServer(host.decode(), int(port), options.user, options.password, asked.tls)
        error = ResponseError(f"{asked} knows no master {options.sentinel_master!r}")
    raise error


async def call(client: RedisClient, *command: str | bytes | float) -> Any:
    """Return the response to a command. Raises one of `ERRORS`."""
    try:
        return await client.execute_command(*command)
    except AttributeError as error:
        # When a Cluster is down, its client closes connections on which others are about to write.
        raise RedisConnectionError("closed meanwhile") from error


async def _open(
    options: RedisStoreOptions, server: StoreServer, undo: AsyncExitStack
) -> RedisClient:
    """Return a client of ``server``, or of the Cluster that it is a node of.

    It is closed by ``undo`` unless it is returned.
    """
    client = _client(options, server)
    undo.push_async_callback(client.aclose)
    reply = await call(client, "HELLO")
    hello = dict(zip(reply[::2], reply[1::2], strict=True))
    if hello[b"mode"] == b"cluster":
        return await _open_cluster(options, server)
    if hello[b"mode"] == b"sentinel":
        raise ReadOnlyError(f"{server} is a Sentinel: redis.sentinel_master is not set")
    if hello[b"role"] != b"master":
        raise ReadOnlyError(f"{server} is a replica")
    # A server that still loads its data greets, but responds to nothing else.
    await call(client, "PING")
    undo.pop_all()
    return client


async def _open_cluster(options: RedisStoreOptions, server: StoreServer) -> RedisCluster:
    nodes = [_server_at(options, url) for url in options.urls]
    cluster = RedisCluster(
        startup_nodes=[ClusterNode(node.host, node.port) for node in nodes],
        **_manners(options, server),
    )
    try:
        await cluster.initialize()
    except ERRORS:
        await cluster.aclose()
        raise
    return cluster


def _client(options: RedisStoreOptions, server: StoreServer) -> Redis:
    return Redis(host=server.host, port=server.port, **_manners(options, server))


def _server_at(options: RedisStoreOptions, url: str) -> StoreServer:
    """Return the server of a URL, whose login comes before that of the options."""
    parsed = parse_url(url)
    return StoreServer(
        parsed.get("host", "localhost"),
        parsed.get("port", 6379),
        parsed.get("username") or options.user,
        parsed.get("password") or options.password,
        tls="connection_class" in parsed,
    )


def _manners(options: RedisStoreOptions, server: StoreServer) -> dict[str, Any]:
    """Return login, TLS and behaviour of a client, as its arguments."""
    ca_file = None if options.ca_file is None else str(options.ca_file)
    return {
        "username": server.user,
        "password": server.password,
        **({"ssl": True, "ssl_ca_certs": ca_file} if server.tls else {}),
        "client_name": options.name,
        # RESP3 adds nothing here but notifications that nobody reads.
        "protocol": 2,
        "socket_timeout": RESPONSE_WITHIN_S,
        "socket_connect_timeout": CONNECT_WITHIN_S,
        # By default a script is sent up to ten times.
        "retry": Retry(NoBackoff(), 0),
    }
