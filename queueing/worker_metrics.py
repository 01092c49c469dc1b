"""The metrics of a worker's queue, the same on all brokers, under the names of NVCF."""

from collections.abc import Callable

from runtime.metrics import MetricRegistry

_WORKER = "nvcf_worker_service_nats_"
"""The prefix in a worker's metrics (``docs/wire.md`` §17.2)."""
_NO_REGIONS = "none"
"""A worker serves the queue of one region."""


def register_consumer(registry: MetricRegistry, region: str, is_bound: Callable[[], bool]) -> None:
    """Show whether a worker can pull requests in ``region``."""
    for name, label, value in (
        ("connected_pri_region", "region", region),
        ("connected_sec_regions", "regions", _NO_REGIONS),
    ):
        family = registry.gauge(f"{_WORKER}{name}", "Whether requests can be pulled there", [label])
        family.child(value).set_function(lambda: int(is_bound()))
