"""From settings to what each part of the process is made with."""

import ssl
from dataclasses import fields

from gateway.settings import AttachSettings, EdgeSettings, NatsSettings, QueueSettings
from gateway.store.connection import NatsOptions
from http1.server.limits import EdgeLimits
from queueing.nats.jetstream import StreamSettings
from queueing.nats.login import ConnectionOptions, Login
from wire.deadlines import MAX_INVOCATION_S


def edge_limits(edge: EdgeSettings) -> EdgeLimits:
    """Return the limits for clients: each setting that is named like a limit."""
    names = {field.name for field in fields(EdgeLimits)}
    return EdgeLimits(**edge.model_dump(include=names))


def attach_limits(attach: AttachSettings) -> EdgeLimits:
    """Workers keep their connections; a body may be silent as long as an invocation may last."""
    return EdgeLimits(
        max_connections=attach.max_connections,
        body_stall_s=MAX_INVOCATION_S,
        write_stall_s=MAX_INVOCATION_S,
        idle_timeout_s=MAX_INVOCATION_S,
    )


def _tls(settings: NatsSettings) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else None


def data_options(settings: NatsSettings) -> ConnectionOptions:
    """Return how the queue's data connection is made."""
    return ConnectionOptions(
        servers=settings.urls,
        name="gateway-data",
        login=Login(
            credentials_file=settings.credentials_file,
            token=settings.token.get_secret_value() if settings.token else "",
            user=settings.user,
            password=settings.password.get_secret_value() if settings.password else "",
        ),
        tls=_tls(settings),
    )


def store_options(settings: NatsSettings) -> NatsOptions:
    """Return how the store's connection is made."""
    return NatsOptions(
        urls=settings.urls,
        name="gateway-store",
        user=settings.user or None,
        password=settings.password.get_secret_value() if settings.password else None,
        token=settings.token.get_secret_value() if settings.token else None,
        credentials_file=settings.credentials_file,
        ca_file=settings.ca_file,
    )


def stream_settings(settings: QueueSettings) -> StreamSettings:
    """Return how the queues' streams and consumers are made."""
    return StreamSettings(
        max_messages=settings.max_messages,
        replicas=settings.replicas,
        ack_wait_s=settings.lease_s,
        max_deliver=settings.max_deliveries,
    )
