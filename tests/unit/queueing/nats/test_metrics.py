"""What is counted of connections and queues, under the names that NVCF's dashboards read."""

from queueing.nats.connection import ConnectionOptions, NatsConnection
from queueing.nats.metrics import (
    register_connection,
    register_queue,
    register_worker_connection,
)
from queueing.nats.queue import JetStreamQueue
from queueing.nats.transport import Traffic
from queueing.publishes import PublishStatus
from queueing.worker_metrics import register_consumer
from runtime.metrics import MetricRegistry


class UsedConnection(NatsConnection):
    traffic = Traffic(10, 20, 3, 5)


def lines(registry: MetricRegistry) -> list[str]:
    return registry.exposition().decode().splitlines()


async def test_publishes_are_shown_as_the_queue_counts_them() -> None:
    registry = MetricRegistry(with_process=False)
    connection = NatsConnection(ConnectionOptions(servers=("nats://127.0.0.1",), name="test"))
    queue = JetStreamQueue(connection, region="local", process=1)
    register_queue(registry, queue)
    queue.publishes.child("rq_local_v", PublishStatus.QUEUE_FULL).value += 2
    assert 'nats_jetstream_publish{stream="rq_local_v",status="QueueFull"} 2' in lines(registry)
    assert "gateway_queue_losses_total 0" in lines(registry)


def test_the_fate_of_the_connection_to_nats_is_shown() -> None:
    registry = MetricRegistry(with_process=False)
    connection = UsedConnection(ConnectionOptions(servers=("nats://127.0.0.1",), name="test"))
    register_connection(registry, connection)
    connection.connects, connection.losses = 3, 2
    connection.lame_ducks, connection.refusals = 1, 4
    connection.slow_consumers, connection.failures = 1, 7
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


def test_the_servers_are_named_without_what_is_secret_in_their_urls() -> None:
    registry = MetricRegistry(with_process=False)
    urls = ("nats://me:secret@a.example:4333", "tls://token@b.example")
    register_worker_connection(registry, NatsConnection(ConnectionOptions(servers=urls)), urls)
    text = registry.exposition().decode()
    assert 'nats_server_fqdn{nats_fqdn="nats://a.example:4333"} 1' in text
    assert 'nats_server_fqdn{nats_fqdn="tls://b.example:4222"} 1' in text
    assert "secret" not in text
    assert "token@" not in text


def test_the_region_from_which_requests_can_be_pulled_is_shown() -> None:
    registry = MetricRegistry(with_process=False)
    prefix = "nvcf_worker_service_nats_connected_"
    is_bound = False
    register_consumer(registry, "eu", lambda: is_bound)
    assert f'{prefix}pri_region{{region="eu"}} 0' in lines(registry)
    is_bound = True
    assert f'{prefix}pri_region{{region="eu"}} 1' in lines(registry)
    assert f'{prefix}sec_regions{{regions="none"}} 1' in lines(registry)
