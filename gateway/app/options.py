"""Options of the parts of a gateway process, made from its settings."""

from gateway.settings import AttachSettings, EdgeSettings, GatewaySettings
from gateway.store.connection import NatsOptions
from http1.server.limits import EdgeLimits


def edge_limits(edge: EdgeSettings) -> EdgeLimits:
    """Return the limits of clients' connections."""
    return EdgeLimits(
        max_request_line_bytes=edge.max_request_line_bytes,
        max_header_bytes=edge.max_header_bytes,
        max_headers=edge.max_headers,
        head_timeout_s=edge.head_timeout_s,
        body_stall_s=edge.body_stall_s,
        write_stall_s=edge.write_stall_s,
        idle_timeout_s=edge.idle_timeout_s,
        max_connections=edge.max_connections,
    )


def attach_limits(attach: AttachSettings) -> EdgeLimits:
    """Return the limits of workers' connections.

    Workers keep their connections, and a body may be silent as long as an invocation may last.
    """
    return EdgeLimits(
        max_connections=attach.max_connections,
        body_stall_s=_INVOCATION_S,
        write_stall_s=_INVOCATION_S,
        idle_timeout_s=_INVOCATION_S,
    )


_INVOCATION_S = 3605.0


def store_options(settings: GatewaySettings) -> NatsOptions:
    """Return the options of the store's connection; the store is in NATS KV."""
    servers = settings.nats
    return NatsOptions(
        urls=servers.urls,
        name="gateway-store",
        user=servers.user or None,
        password=servers.password.get_secret_value() if servers.password else None,
        token=servers.token.get_secret_value() if servers.token else None,
        credentials_file=servers.credentials_file,
        ca_file=servers.ca_file,
    )
