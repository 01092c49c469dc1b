"""The metrics of a worker's queue, the same on all brokers, under the names of NVCF."""

from collections.abc import Callable, Sequence

from runtime.metrics import MetricRegistry

_WORKER = "nvcf_worker_service_nats_"
"""The prefix in a worker's metrics (``docs/wire.md`` §17.2)."""
_NO_REGIONS = "none"


def register_consumer(
    registry: MetricRegistry,
    region: str,
    is_bound: Callable[[], bool],
    others: Sequence[str] = (),
    are_others_bound: Callable[[], bool] | None = None,
) -> None:
    """Show whether a worker can pull requests in ``region``, and whether in all ``others``."""
    for name, label, value, read in (
        ("connected_pri_region", "region", region, is_bound),
        (
            "connected_sec_regions",
            "regions",
            ",".join(sorted(others)) or _NO_REGIONS,
            are_others_bound or is_bound,
        ),
    ):
        family = registry.gauge(f"{_WORKER}{name}", "Whether requests can be pulled there", [label])
        family.child(value).set_function(_as_number(read))


def _as_number(read: Callable[[], bool]) -> Callable[[], float]:
    return lambda: int(read())
