"""What is counted, under the names that NVCF's dashboards and autoscaler read."""

from gateway.seen.metrics import GatewayMetrics, watch_nats
from queueing.nats.connection import Connection, ConnectionOptions
from queueing.nats.link import Traffic
from runtime.metrics import Registry
from tests.unit.gateway.invocation.test_machine import World


def lines(registry: Registry) -> list[str]:
    return registry.exposition().decode().splitlines()


def test_a_request_is_pending_under_its_method_until_it_is_over() -> None:
    registry = Registry(with_process=False)
    metrics = GatewayMetrics(registry)
    world = World()
    pending = 'axum_http_requests_pending{method="%s",endpoint="TLB"} %d'
    metrics.began(world.invocation)
    assert pending % ("POST", 1) in lines(registry)
    metrics.ended(world.invocation, world.now)
    assert pending % ("POST", 0) in lines(registry)


def test_a_method_that_nobody_knows_is_not_a_label() -> None:
    registry = Registry(with_process=False)
    metrics = GatewayMetrics(registry)
    world = World()
    world.invocation.method = b"X-0815"
    metrics.began(world.invocation)
    metrics.ended(world.invocation, world.now)
    metrics.refused(b"X-0815", 404, "UNKNOWN")
    assert not [line for line in lines(registry) if "X-0815" in line]
    assert 'axum_http_requests_total{method="OTHER",status="404",endpoint="UNKNOWN"} 1' in lines(
        registry
    )


def test_the_fate_of_the_connection_to_nats_is_shown() -> None:
    registry = Registry(with_process=False)
    connection = Connection(ConnectionOptions(servers=("nats://127.0.0.1",), name="test"))
    watch_nats(registry, connection)
    connection.connects, connection.losses = 3, 2
    connection.lame_ducks, connection.refusals = 1, 4
    connection._carried = Traffic(10, 20, 3, 5)
    shown = [line for line in lines(registry) if not line.startswith("#")]
    assert shown == [
        "nats_connects 3",
        "nats_event_connected 3",
        "nats_event_disconnected 2",
        "nats_event_lameduck_mode 1",
        "nats_event_server_error 4",
        "total_nats_errors 4",
        "nats_in_bytes 10",
        "nats_out_bytes 20",
        "nats_in_messages 3",
        "nats_out_messages 5",
    ]
