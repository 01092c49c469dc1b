"""How results of publishes are shown."""

from queueing.publishes import PublishStatus, publish_counter, register_publishes
from runtime.metrics import MetricRegistry


def test_results_losses_and_repetitions_are_shown() -> None:
    registry, counter = MetricRegistry(with_process=False), publish_counter()
    register_publishes(registry, counter, lambda: 3, lambda: 4)
    counter.child("rq_local_v", PublishStatus.QUEUE_FULL).value += 2
    shown = [line for line in registry.exposition().decode().splitlines() if line[0] != "#"]
    assert shown == [
        'nats_jetstream_publish{stream="rq_local_v",status="QueueFull"} 2',
        "gateway_queue_losses_total 3",
        "gateway_queue_republished_total 4",
    ]
