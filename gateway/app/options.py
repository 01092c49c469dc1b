"""Options of the parts of a gateway process, made from its settings."""

from dataclasses import fields
from math import inf
from typing import TYPE_CHECKING

from gateway.invocation.collection import CollectionBounds
from gateway.invocation.context import WebSocketLimits
from gateway.objects.assets import AssetLimits
from gateway.objects.open import LocalOptions
from gateway.requests.detached import Limits
from gateway.routing.sources import Sources
from gateway.settings import (
    AssetSettings,
    AttachSettings,
    EdgeSettings,
    GatewaySettings,
    ObjectSettings,
    RequestsSettings,
    UploadSettings,
    WebhookSettings,
    WebSocketSettings,
)
from gateway.store.options import NatsOptions, RedisStoreOptions, StoreOptions
from gateway.webhooks.addresses import WebhookRules
from http1.server.limits import ServerLimits
from queueing.settings import Backend
from runtime.setting_rules import SecretText
from wire.deadlines import MAX_INVOCATION_S

if TYPE_CHECKING:
    from gateway.objects.s3 import S3Options

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


def webhook_rules(webhooks: WebhookSettings) -> WebhookRules:
    """Return to whom webhooks may go."""
    return WebhookRules(webhooks.hosts, webhooks.private_networks, webhooks.allow_http)


def request_limits(requests: RequestsSettings) -> Limits:
    """Return the bounds of the recordings of detached calls."""
    return Limits(requests.max_response_bytes, requests.account_bytes)


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


def store_options(settings: GatewaySettings, backend: Backend | None = None) -> StoreOptions:
    """Return the options of the store's connection, by default at the configured backend."""
    if (backend or settings.store.backend) == "redis":
        redis = settings.redis
        return RedisStoreOptions(
            urls=redis.urls,
            name=_STORE_CLIENT,
            user=redis.user or None,
            password=_secret(redis.password),
            sentinel_master=redis.sentinel_master,
            sentinel_password=_secret(redis.sentinel_password),
            ca_file=redis.ca_file,
        )
    nats = settings.nats
    return NatsOptions(
        urls=nats.urls,
        name=_STORE_CLIENT,
        user=nats.user or None,
        password=_secret(nats.password),
        token=_secret(nats.token),
        credentials_file=nats.credentials_file,
        ca_file=nats.ca_file,
    )


def object_options(settings: ObjectSettings) -> "LocalOptions | S3Options":
    """Return the options of the object store."""
    if settings.backend == "local":
        return LocalOptions(settings.folder)
    # Imported here: it takes 40 MiB.
    from gateway.objects.s3 import S3Options  # noqa: PLC0415

    return S3Options(
        settings.bucket,
        settings.endpoint_url or None,
        settings.region or None,
        settings.access_key or None,
        _secret(settings.secret_key),
    )


def asset_limits(settings: AssetSettings) -> AssetLimits:
    """Return the bounds of assets."""
    return AssetLimits(**vars(settings))


def _secret(text: SecretText | None) -> str | None:
    return text.get_secret_value() if text else None
