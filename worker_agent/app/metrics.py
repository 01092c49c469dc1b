"""What is counted (``spec/worker.md`` §7.1; names as there, ``worker_…`` where it has none)."""

from collections.abc import Callable

from runtime.metrics import Registry
from worker_agent.job.machine import Job
from worker_agent.job.ports import Outcome

_LATENCY_BUCKETS_S = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    1.0,
    5.0,
    10.0,
    30.0,
    100.0,
    500.0,
    1000.0,
    5000.0,
)


class Metrics:
    """The agent's metrics; the `worker_agent.pull.Seen`."""

    def __init__(self, registry: Registry) -> None:
        prefix = "nvcf_worker_service_"
        self.registry = registry
        self._requests = registry.counter(f"{prefix}request_total", "Requests started").child()
        responses = registry.counter(
            f"{prefix}response_total",
            "Requests ended: 0 when a response was delivered, 500 when the worker failed",
            ["error_code"],
        )
        self._delivered = responses.child("0")
        self._failed = responses.child("500")
        self._latency = registry.histogram(
            f"{prefix}request_latency_seconds", "From lease to end", _LATENCY_BUCKETS_S
        ).child()
        self._health = registry.counter(
            f"{prefix}healthcheck_total", "Probes of the inference server", ["result"]
        )
        self._slots = registry.gauge(
            f"{prefix}worker_thread_count_total", "Requests that may run at the same time"
        )
        self._running = registry.gauge("worker_running_requests", "Requests that are not over")
        outcomes = registry.counter("worker_outcome_total", "Requests ended, by how", ["outcome"])
        self._outcomes = {outcome: outcomes.child(outcome.name.lower()) for outcome in Outcome}
        self._redelivered = registry.counter(
            "worker_redelivered_total", "Requests started that had been delivered before"
        ).child()
        self._rejected = registry.counter(
            "worker_rejected_total", "Envelopes that nobody can serve"
        ).child()

    def watch(self, slots: int, running: Callable[[], float]) -> None:
        """Show the configured concurrency and how many requests are running."""
        self._slots.set(slots)
        self._running.set_function(running)

    @property
    def requests(self) -> float:
        """Requests started so far."""
        return self._requests.value

    def started(self, deliveries: int) -> None:
        """A job begins."""
        self._requests.value += 1
        if deliveries > 1:
            self._redelivered.value += 1

    def ended(self, job: Job, now: float) -> None:
        """A job is over."""
        outcome = job.outcome
        if outcome is None:
            raise AssertionError("a job ended without an outcome")
        self._outcomes[outcome].value += 1
        self._latency.observe(now - job.leased_at)
        if outcome is Outcome.ANSWERED or outcome is Outcome.UNWANTED:
            self._delivered.value += 1
        elif outcome is Outcome.FAILED or outcome is Outcome.UNDELIVERED:
            self._failed.value += 1

    def rejected(self) -> None:
        """An envelope was taken out of the queue unserved."""
        self._rejected.value += 1

    def probed(self, *, is_healthy: bool) -> None:
        """The inference server was asked."""
        self._health.child("success" if is_healthy else "failure").value += 1
