"""The metrics of connections to Redis; those of queues are the same on all brokers."""

from queueing.publishes import register_publishes
from queueing.redis.connection import RedisConnection
from queueing.redis.queue import RedisQueue
from runtime.metrics import MetricRegistry


def register_connection(registry: MetricRegistry, connection: RedisConnection, prefix: str) -> None:
    """Show the state of a process's connection; ``prefix`` begins the names."""
    for name, help_text, read in (
        ("connects", "Connections made to masters", lambda: connection.connects),
        ("losses", "Connections lost", lambda: connection.losses),
        ("failures", "Failed attempts to connect", lambda: connection.failures),
        ("errors", "Error replies", lambda: connection.errors),
        ("in_bytes", "Bytes received", lambda: connection.traffic[0]),
        ("out_bytes", "Bytes sent", lambda: connection.traffic[1]),
        ("replies", "Replies received", lambda: connection.traffic[2]),
        ("commands", "Commands sent", lambda: connection.traffic[3]),
    ):
        registry.counter(f"{prefix}_{name}_total", help_text).set_function(read)


def register_queue(registry: MetricRegistry, queue: RedisQueue) -> None:
    """Show the results of publishes, and the requests that were lost later."""
    register_publishes(registry, queue.publishes, lambda: queue.losses, lambda: queue.republished)
