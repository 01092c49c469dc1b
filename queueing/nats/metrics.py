"""The metrics of NATS connections, under the names of NVCF (`docs/wire.md` §17.1)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from queueing.nats.connection import NatsConnection
from queueing.nats.login import parse_server
from queueing.publishes import register_publishes
from runtime.metrics import MetricRegistry

if TYPE_CHECKING:
    from queueing.nats.queue import JetStreamQueue

_WORKER = "nvcf_worker_service_nats_"
"""The prefix in a worker's metrics (``docs/wire.md`` §17.2)."""


def register_connection(registry: MetricRegistry, connection: NatsConnection) -> None:
    """Show the state of a gateway process's connection.

    This client never drops a message: each is handled as it is read. While it reads too slowly,
    messages wait at the server, which closes the connection in the end.
    """
    for name, help_text, read in (
        ("nats_connects", "Connections made", lambda: connection.connects),
        ("nats_event_connected", "Connections made", lambda: connection.connects),
        ("nats_event_disconnected", "Connections lost", lambda: connection.losses),
        ("nats_event_lameduck_mode", "Servers that retired", lambda: connection.lame_ducks),
        (
            "nats_event_slow_consumer",
            "Errors about reading too slowly (nats-server 2 sends none, it disconnects)",
            lambda: connection.slow_consumers,
        ),
        ("nats_slow_consumer_dropped_messages", "Messages dropped here: always 0", lambda: 0),
        ("nats_event_server_error", "Errors sent by servers", lambda: connection.refusals),
        (
            "nats_event_client_error",
            "Failed attempts to connect, failed message handlers, connections closed by the client",
            lambda: connection.failures,
        ),
        (
            "total_nats_errors",
            "Errors sent by servers, and errors of this client",
            lambda: connection.refusals + connection.failures,
        ),
        ("nats_in_bytes", "Bytes received", lambda: connection.traffic.in_bytes),
        ("nats_out_bytes", "Bytes sent", lambda: connection.traffic.out_bytes),
        ("nats_in_messages", "Messages received", lambda: connection.traffic.in_messages),
        ("nats_out_messages", "Frames sent", lambda: connection.traffic.out_frames),
    ):
        registry.counter(name, help_text).set_function(read)


def register_queue(registry: MetricRegistry, queue: "JetStreamQueue") -> None:
    """Show the results of publishes, and the requests that were lost later."""
    register_publishes(registry, queue.publishes, lambda: queue.losses, lambda: queue.republished)


def register_worker_connection(
    registry: MetricRegistry, connection: NatsConnection, servers: Iterable[str]
) -> None:
    """Show the state of a worker's connection; ``servers`` are the configured URLs.

    Some gauges could be counters; NVCF has them as gauges.
    """
    counter, gauge = registry.counter, registry.gauge
    for name, help_text, read in (
        (
            "error_total",
            "Errors sent by servers, and errors of this client",
            lambda: connection.refusals + connection.failures,
        ),
        ("disconnect_total", "Connections lost", lambda: connection.losses),
        ("reconnect_total", "Connections made after the first", lambda: _reconnects(connection)),
        ("lame_duck_total", "Servers that retired", lambda: connection.lame_ducks),
    ):
        counter(f"{_WORKER}{name}", help_text).set_function(read)
    for name, help_text, read in (
        ("in_bytes", "Bytes received", lambda: connection.traffic.in_bytes),
        ("out_bytes", "Bytes sent", lambda: connection.traffic.out_bytes),
        ("in_msgs", "Messages received", lambda: connection.traffic.in_messages),
        ("out_msgs", "Frames sent", lambda: connection.traffic.out_frames),
        ("reconnects", "Connections made after the first", lambda: _reconnects(connection)),
    ):
        gauge(f"{_WORKER}{name}", help_text).set_function(read)
    configured = gauge(f"{_WORKER}server_fqdn", "The servers configured", ["nats_fqdn"])
    for url in servers:
        server = parse_server(url)
        # Without the user and the password that may be in the URL.
        configured.child(f"{'tls' if server.tls else 'nats'}://{server}").value = 1


def _reconnects(connection: NatsConnection) -> int:
    return max(connection.connects - 1, 0)
