"""What is counted, under the names that NVCF's dashboards and autoscaler read."""

from gateway.telemetry.metrics import GatewayMetrics, watch_nats, watch_queue
from queueing.nats.connection import Connection, ConnectionOptions
from queueing.nats.publishes import PublishStatus
from queueing.nats.queue import JetStreamQueue
from queueing.nats.transport import Traffic
from runtime.metrics import Registry
from tests.support.invocation_world import World


def lines(registry: Registry) -> list[str]:
    return registry.exposition().decode().splitlines()


def test_a_request_is_pending_under_its_method_until_it_is_over() -> None:
    registry = Registry(with_process=False)
    metrics = GatewayMetrics(registry)
    world = World()
    pending = 'axum_http_requests_pending{method="%s",endpoint="TLB"} %d'
    metrics.record_start(world.invocation)
    assert pending % ("POST", 1) in lines(registry)
    metrics.record_end(world.invocation, world.now)
    assert pending % ("POST", 0) in lines(registry)


def test_a_method_that_nobody_knows_is_not_a_label() -> None:
    registry = Registry(with_process=False)
    metrics = GatewayMetrics(registry)
    world = World()
    world.invocation.method = b"X-0815"
    metrics.record_start(world.invocation)
    metrics.record_end(world.invocation, world.now)
    metrics.record_refusal(b"X-0815", 404, "UNKNOWN")
    assert not [line for line in lines(registry) if "X-0815" in line]
    assert 'axum_http_requests_total{method="OTHER",status="404",endpoint="UNKNOWN"} 1' in lines(
        registry
    )


def test_the_bytes_of_answers_are_summed_by_method_and_status() -> None:
    registry = Registry(with_process=False)
    metrics = GatewayMetrics(registry)
    for size in (1000, 24):
        world = World().publish().attach()
        world.head()
        world.invocation.response_data(bytes(size))
        world.invocation.response_end()
        metrics.record_start(world.invocation)
        metrics.record_end(world.invocation, world.now)
    labels = 'method="POST",status="200",endpoint="TLB"'
    shown = lines(registry)
    assert "# TYPE axum_http_response_body_size summary" in shown
    assert f"axum_http_response_body_size_sum{{{labels}}} 1024" in shown
    assert f"axum_http_response_body_size_count{{{labels}}} 2" in shown


async def test_publishes_are_shown_as_the_queue_counts_them() -> None:
    registry = Registry(with_process=False)
    connection = Connection(ConnectionOptions(servers=("nats://127.0.0.1",), name="test"))
    queue = JetStreamQueue(connection, region="local", process=1)
    watch_queue(registry, queue)
    queue.publishes.child("rq_local_v", PublishStatus.QUEUE_FULL).value += 2
    assert 'nats_jetstream_publish{stream="rq_local_v",status="QueueFull"} 2' in lines(registry)
    assert "gateway_queue_losses_total 0" in lines(registry)


def test_the_fate_of_the_connection_to_nats_is_shown() -> None:
    registry = Registry(with_process=False)
    connection = Connection(ConnectionOptions(servers=("nats://127.0.0.1",), name="test"))
    watch_nats(registry, connection)
    connection.connects, connection.losses = 3, 2
    connection.lame_ducks, connection.refusals = 1, 4
    connection.slow_consumers, connection.failures = 1, 7
    connection._carried = Traffic(10, 20, 3, 5)
    shown = [line for line in lines(registry) if not line.startswith("#")]
    assert shown == [
        "nats_connects 3",
        "nats_event_connected 3",
        "nats_event_disconnected 2",
        "nats_event_lameduck_mode 1",
        "nats_event_slow_consumer 1",
        "nats_slow_consumer_dropped_messages 0",
        "nats_event_server_error 4",
        "nats_event_client_error 7",
        "total_nats_errors 11",
        "nats_in_bytes 10",
        "nats_out_bytes 20",
        "nats_in_messages 3",
        "nats_out_messages 5",
    ]
