"""Options of the parts of a gateway process, made from its settings."""

from dataclasses import fields
from math import inf

from gateway.invocation.collection import CollectionBounds
from gateway.invocation.context import WebSocketLimits
from gateway.routing.sources import Sources
from gateway.settings import (
    AttachSettings,
    EdgeSettings,
    GatewaySettings,
    StoreBackend,
    UploadSettings,
    WebSocketSettings,
)
from gateway.store.options import NatsOptions, RedisStoreOptions, StoreOptions
from http1.server.limits import ServerLimits
from queueing.redis.settings import GatewayRedisSettings
from runtime.setting_rules import SecretText
from wire.deadlines import MAX_INVOCATION_S

_STORE_CLIENT = "gateway-store"
"""The name that the store's connections give themselves at the servers."""


def edge_limits(edge: EdgeSettings) -> ServerLimits:
    """Return the limits of clients' connections: each setting that is named like a limit."""
    names = {field.name for field in fields(ServerLimits)}
    return ServerLimits(**{name: value for name, value in vars(edge).items() if name in names})


def sources(edge: EdgeSettings) -> Sources:
    """Return what finds the clients behind trusted hops."""
    networks = [hop for hop in edge.trusted_hops if hop != "unix"]
    return Sources(networks, trusts_unix="unix" in edge.trusted_hops)


def collection_bounds(upload: UploadSettings) -> CollectionBounds:
    """Return how much of request bodies a process collects."""
    return CollectionBounds(
        **{name: value for name, value in vars(upload).items() if name != "spool_folder"}
    )


def websocket_limits(websocket: WebSocketSettings) -> WebSocketLimits:
    """Return how long WebSockets may last."""
    return WebSocketLimits(max_s=websocket.max_s, idle_s=websocket.idle_s)


def attach_limits(attach: AttachSettings) -> ServerLimits:
    """Return the limits of workers' connections.

    Workers keep their connections, and a body may be silent as long as its invocation lasts, which
    has limits of its own.
    """
    return ServerLimits(
        max_connections=attach.max_connections,
        vanished_s=attach.vanished_s,
        body_stall_s=inf,
        write_stall_s=MAX_INVOCATION_S,
        idle_timeout_s=MAX_INVOCATION_S,
    )


def store_options(settings: GatewaySettings, backend: StoreBackend | None = None) -> StoreOptions:
    """Return the options of the store's connection, by default at the configured backend."""
    if (backend or settings.store.backend) == "redis":
        return _redis_options(settings.redis)
    servers = settings.nats
    return NatsOptions(
        urls=servers.urls,
        name=_STORE_CLIENT,
        user=servers.user or None,
        password=_secret(servers.password),
        token=_secret(servers.token),
        credentials_file=servers.credentials_file,
        ca_file=servers.ca_file,
    )


def _redis_options(servers: GatewayRedisSettings) -> RedisStoreOptions:
    return RedisStoreOptions(
        urls=servers.urls,
        name=_STORE_CLIENT,
        user=servers.user or None,
        password=_secret(servers.password),
        sentinel_master=servers.sentinel_master,
        sentinel_password=_secret(servers.sentinel_password),
        ca_file=servers.ca_file,
    )


def _secret(text: SecretText | None) -> str | None:
    return text.get_secret_value() if text else None
