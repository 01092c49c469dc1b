"""The worker's metrics (``docs/wire.md`` §17.2; names as there, ``worker_…`` where it has none).

Two sums of seconds divide the time of all requests: before a request is sent to the inference
server, which may need a new connection, and from then on until its response is delivered. The third
sum, after that, is always 0. A slot is busy until the inference server has responded. The metrics
of the queue's broker are registered by `queueing.open`.
"""

from collections.abc import Callable
from typing import Protocol

from http1.stream import Defect
from runtime.loop_turns import LoopTurns
from runtime.metrics import MetricRegistry, ScrapedCounter
from runtime.version import show_version
from worker_agent.job.machine import Job
from worker_agent.job.states import Outcome
from worker_agent.slots import Slots

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
_MAX_INVALID = 64
_PREFIX = "nvcf_worker_service_"


class ChannelCounts(Protocol):
    """What the channels of an agent have counted: see `worker_agent.attach.channels`."""

    links_lost: int

    def __len__(self) -> int:
        """Return how many channels there are."""


class BusyTime:
    """Seconds of slots in use, summed over the slots; grows while a slot is in use."""

    __slots__ = ("_busy", "_counted_until", "_seconds")

    def __init__(self) -> None:
        self._busy = 0
        self._seconds = 0.0
        self._counted_until = 0.0

    def change(self, by: int, now: float) -> None:
        """Count ``by`` further slots as in use from ``now`` on."""
        self._seconds += self._busy * (now - self._counted_until)
        self._counted_until = now
        self._busy += by

    def seconds(self, now: float) -> float:
        """Return the sum up to ``now``."""
        return self._seconds + self._busy * (now - self._counted_until)


class Metrics:
    """The agent's metrics; the `worker_agent.runner.Telemetry`."""

    def __init__(self, registry: MetricRegistry, clock: Callable[[], float]) -> None:
        """``clock`` is loop time."""
        prefix = _PREFIX
        self.registry = registry
        show_version(registry, "worker")
        self._requests = registry.counter(f"{prefix}request_total", "Requests started").child()
        self._direct = 0
        responses = registry.counter(
            f"{prefix}response_total",
            "Requests ended, by code: 0 if a response was delivered, 500 if the worker failed",
            ["error_code"],
        )
        self._delivered = responses.child("0")
        self._failed = responses.child("500")
        self._latency = registry.histogram(
            f"{prefix}request_latency_seconds",
            "Seconds from the lease of a request to its end",
            _LATENCY_BUCKETS_S,
        ).child()
        self._response_bytes = registry.counter(
            f"{prefix}response_bytes_total", "Bytes of the inference server's response bodies"
        ).child()
        self._pre_s = registry.counter(
            f"{prefix}pre_inference_seconds_total",
            "Seconds from the lease of a request until it was sent to the inference server",
        ).child()
        self._inference_s = registry.counter(
            f"{prefix}inference_request_time_seconds_total",
            "Seconds from sending a request to the inference server to its delivered response",
        ).child()
        registry.counter(
            f"{prefix}post_inference_seconds_total",
            "Seconds after the delivery of the response: always 0",
        ).child()
        probes = registry.counter(
            f"{prefix}healthcheck_total", "Probes of the inference server", ["result"]
        )
        self._healthy, self._unhealthy = probes.child("success"), probes.child("failure")
        self._slots = registry.gauge(
            f"{prefix}worker_thread_count_total",
            "Requests that may run at the same time; 0 until requests are pulled",
        )
        busy = self._busy = BusyTime()
        registry.counter(
            f"{prefix}worker_thread_busy_seconds_total",
            "Seconds for which slots were in use, summed over the slots",
        ).set_function(lambda: busy.seconds(clock()))
        self._running = registry.gauge("worker_running_requests", "Requests that have not ended")
        outcomes = registry.counter(
            "worker_outcome_total", "Requests ended, by outcome", ["outcome"]
        )
        self._outcomes = {outcome: outcomes.child(outcome.name.lower()) for outcome in Outcome}
        self._redelivered = registry.counter(
            "worker_redelivered_total", "Requests started that had been delivered before"
        ).child()
        self._rejected = registry.counter(
            "worker_rejected_total", "Envelopes that no worker can process"
        ).child()
        self._invalid = registry.counter(
            "worker_invalid_responses_total",
            "Responses of the inference server that are not valid HTTP, by reason and header name",
            ["reason", "header"],
            max_children=_MAX_INVALID,
        )

    def watch_jobs(self, running: Callable[[], float]) -> None:
        """Show how many requests are running."""
        self._running.set_function(running)

    def watch_slots(self, slots: Slots) -> None:
        """Show for how many slots requests are pulled, and how many of them are busy and free."""
        self._slots.set_function(lambda: slots.limit)
        states = self.registry.gauge("worker_slots", "Slots of this worker", ["state"])
        states.child("busy").set_function(lambda: slots.running)
        states.child("free").set_function(lambda: max(slots.free(), 0))

    def watch_channels(self, channels: ChannelCounts) -> None:
        """Show the channels to gateway processes, and what comes over them."""
        registry = self.registry
        registry.gauge("worker_channels", "Channels to gateway processes").set_function(
            lambda: len(channels)
        )
        registry.counter(
            "worker_channel_losses_total", "Connections of channels that ended"
        ).set_function(lambda: channels.links_lost)
        registry.add(
            ScrapedCounter(
                "worker_dispatched_total",
                "Requests started, that came over channels (direct) or from the queue",
                ("dispatch",),
                lambda: (
                    (("direct",), self._direct),
                    (("queued",), self._requests.value - self._direct),
                ),
            )
        )

    def watch_turns(self, turns: LoopTurns) -> None:
        """Show the longest turn of the event loop."""
        self.registry.gauge(
            "worker_loop_turn_longest_seconds",
            "Longest turn of the event loop in the last one to two minutes",
        ).set_function(turns.longest_s)

    def watch_renewal(self, is_failing: Callable[[], bool]) -> None:
        """Show whether the renewal of token and broker login is failing."""
        self.registry.gauge(
            f"{_PREFIX}token_refresh_failure_total",
            "1 while the renewal of the worker's token fails",
            ["token_type"],
        ).child("worker").set_function(lambda: int(is_failing()))

    @property
    def requests(self) -> float:
        """Requests started so far."""
        return self._requests.value

    @property
    def responses(self) -> float:
        """Responses of the inference server that were delivered so far."""
        return self._delivered.value

    def started(self, job: Job) -> None:
        """Count a job that begins."""
        self._requests.value += 1
        if job.envelope.channel_call:
            self._direct += 1
        self._busy.change(1, job.leased_at)
        if job.lease.deliveries > 1:
            self._redelivered.value += 1

    def freed(self, job: Job) -> None:
        """Count a slot as free: the inference server is done with a job."""
        self._busy.change(-1, job.freed_at)

    def ended(self, job: Job, now: float) -> None:
        """Count a job that has ended, and its times."""
        outcome = job.outcome
        if outcome is None:
            raise AssertionError("a job ended without an outcome")
        self._outcomes[outcome].value += 1
        leased_at = job.leased_at
        self._latency.observe(now - leased_at)
        sent_at = job.sent_at or now
        self._pre_s.value += sent_at - leased_at
        self._inference_s.value += now - sent_at
        self._response_bytes.value += job.response_bytes
        if outcome is Outcome.ANSWERED or outcome is Outcome.UNWANTED:
            self._delivered.value += 1
        elif outcome is Outcome.FAILED or outcome is Outcome.UNDELIVERED:
            self._failed.value += 1

    def rejected(self) -> None:
        """Count an envelope that was removed from the queue unprocessed."""
        self._rejected.value += 1

    def invalid(self, defect: Defect) -> None:
        """Count an invalid response of the inference server."""
        self._invalid.child(defect.reason, defect.header).value += 1

    def probed(self, is_healthy: bool) -> None:
        """Count a health probe of the inference server."""
        (self._healthy if is_healthy else self._unhealthy).value += 1
