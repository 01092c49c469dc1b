"""The gateway's metrics: NVCF's names (`docs/wire.md` §17.1), and histograms from 1 ms up."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from gateway.domain.model import FunctionVersion
from gateway.invocation.collection import UploadSpace
from gateway.invocation.machine import CLIENT_GONE_STATUS, Invocation
from gateway.invocation.states import Outcome
from queueing.interface import FunctionQueue
from runtime.logs import LineWriter
from runtime.loop_turns import LoopTurns
from runtime.metrics import (
    CounterChild,
    GaugeChild,
    HistogramChild,
    MetricRegistry,
    Reading,
    ScrapedCounter,
    ScrapedGauge,
    SummaryChild,
)

_HTTP_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 1000)
_FUNCTION_BUCKETS_S = (0.5, 1, 5, 10, 30, 60, 300, 600, 1800)
_FINE_BUCKETS_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.2, 0.3, 0.5, 0.75),
    *(1, 2, 3, 5, 10, 30, 60),
)
_HOST_ROUTED = "TLB"
_NOT_ERRORS = frozenset(
    {
        Outcome.ANSWERED,
        Outcome.CLIENT_GONE,
        Outcome.CANCELLED,
        Outcome.INFERENCE_LOST,
        Outcome.INFERENCE_INVALID,
        Outcome.WORKER_FAILED,
    }
)
"""Outcomes that ``app_invocation_error`` does not count: the client left, or got the response that
a worker delivered."""
_METHODS = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT"}
)
_OTHER_METHOD = b"OTHER"


class DispatchCounts(Protocol):
    """What the channels of a process have counted: see `gateway.attach.channels`."""

    direct: int
    busy: int
    late: int
    links_lost: int

    def __len__(self) -> int:
        """Return how many channels there are."""

    def running(self) -> dict[str, int]:
        """Return how many calls workers have over channels, by version."""

    def slots(self) -> Iterable[tuple[str, int]]:
        """Yield the free slots of which workers have told, by version."""


class RecordedBytes(Protocol):
    """What recordings take, in bytes: see `gateway.requests.recording`."""

    memory_bytes: int
    spool_bytes: int


class DetachedCounts(Protocol):
    """What is counted of detached calls: see `gateway.requests.book`."""

    running: int
    unsettled: int
    stored: int
    not_stored: int

    @property
    def space(self) -> RecordedBytes: ...


class _VersionMeters:
    """The series of one function version and account."""

    __slots__ = ("first_byte", "latency", "queue_wait", "requests", "total")

    def __init__(
        self,
        requests: CounterChild,
        latency: HistogramChild,
        queue_wait: HistogramChild,
        first_byte: HistogramChild,
        total: HistogramChild,
    ) -> None:
        self.requests = requests
        self.latency = latency
        self.queue_wait = queue_wait
        self.first_byte = first_byte
        self.total = total


_ExchangeMeters = tuple[CounterChild, HistogramChild, SummaryChild]
"""The series of one method, status and endpoint: requests, duration, size of the response body."""


class GatewayMetrics:
    """Records invocations: one call at the start of each, and one at its end."""

    def __init__(self, registry: MetricRegistry) -> None:
        version = ("function_id", "function_version_id")
        self._registry = registry
        self._http = registry.counter(
            "axum_http_requests_total", "HTTP requests", ("method", "status", "endpoint")
        )
        self._http_duration = registry.histogram(
            "axum_http_requests_duration_seconds",
            "From request head to response end",
            _HTTP_BUCKETS_S,
            ("method", "status", "endpoint"),
        )
        self._http_body_size = registry.summary(
            "axum_http_response_body_size",
            "Bytes of response bodies",
            ("method", "status", "endpoint"),
        )
        self._all_pending = registry.gauge(
            "axum_http_requests_pending", "HTTP requests in progress", ("method", "endpoint")
        )
        self._pending: dict[bytes, GaugeChild] = {
            method: self._all_pending.child(method.decode(), _HOST_ROUTED)
            for method in sorted({*_METHODS, _OTHER_METHOD})
        }
        self._requests = registry.counter(
            "function_request", "Invocations accepted", (*version, "nca_id")
        )
        self._latency = registry.histogram(
            "function_request_latency",
            "Seconds from request head to response end",
            _FUNCTION_BUCKETS_S,
            version,
        )
        self._errors = registry.counter(
            "app_invocation_error",
            "Invocations that the gateway ended with an error",
            ("http_status_code", "function_id"),
        )
        self._errors.child("499", "")
        self._outcomes = registry.counter(
            "gateway_invocations_total", "Invocations ended", ("outcome",)
        )
        self._refusals = registry.counter(
            "gateway_refusals_total",
            "Requests refused or left before they were invocations, and errors of the API",
            ("endpoint", "reason"),
        )
        self._overloaded = registry.counter(
            "gateway_overload_refusals_total",
            "Calls refused because they could not be reached within their poll window",
            version,
        )
        self._uploads = registry.gauge(
            "gateway_upload_bytes", "Bytes of request bodies that the process holds", ("where",)
        )
        self._queue_wait = registry.histogram(
            "gateway_queue_wait_seconds",
            "From the offer to workers to a worker's lease",
            _FINE_BUCKETS_S,
            version,
        )
        self._first_byte = registry.histogram(
            "gateway_time_to_first_byte_seconds",
            "From request head to response head",
            _FINE_BUCKETS_S,
            version,
        )
        self._total = registry.histogram(
            "gateway_invocation_seconds",
            "From request head to response end",
            _FINE_BUCKETS_S,
            version,
        )
        self._versions: dict[tuple[str, str], _VersionMeters] = {}
        self._function_of: dict[str, str] = {}
        self._exchanges: dict[tuple[bytes, int, str], _ExchangeMeters] = {}
        self._ends: dict[Outcome, CounterChild] = {
            outcome: self._outcomes.child(outcome.value) for outcome in Outcome
        }

    def watch_queue(self, queue: FunctionQueue) -> None:
        """Show what waits of the process's requests."""

        def labels(version_id: str) -> tuple[str, str]:
            return self._function_of.get(version_id, ""), version_id

        def depths() -> Iterator[Reading]:
            return ((labels(one.version_id), one.depth) for one in queue.waiting())

        def waits() -> Iterator[Reading]:
            return ((labels(one.version_id), one.oldest_s) for one in queue.waiting())

        version = ("function_id", "function_version_id")
        self._registry.add(
            ScrapedGauge(
                "gateway_queue_depth",
                "Requests of this process that wait for a worker",
                version,
                depths,
            )
        )
        self._registry.add(
            ScrapedGauge(
                "gateway_queue_oldest_wait_seconds",
                "How long the first of them has waited",
                version,
                waits,
                merge=max,
            )
        )

    def watch_dispatch(self, channels: DispatchCounts, queued: Callable[[], int]) -> None:
        """Show by which way calls go to workers; ``queued`` counts those that went to the queue."""
        registry = self._registry

        def ways() -> Iterator[Reading]:
            yield ("direct",), channels.direct
            yield ("queued",), queued()

        def ends() -> Iterator[Reading]:
            yield ("busy",), channels.busy
            yield ("late",), channels.late

        def by_version(counts: Iterable[tuple[str, int]]) -> Iterator[Reading]:
            return (
                ((self._function_of.get(version_id, ""), version_id), count)
                for version_id, count in counts
            )

        registry.add(
            ScrapedCounter(
                "gateway_dispatched_total",
                "Calls sent to workers, over channels (direct) or through the queue",
                ("dispatch",),
                ways,
            )
        )
        registry.add(
            ScrapedCounter(
                "gateway_channel_refusals_total",
                "Calls that a worker got over a channel and handed back, or dropped as late",
                ("reason",),
                ends,
            )
        )
        registry.counter(
            "gateway_channel_losses_total", "Connections of channels that ended"
        ).set_function(lambda: channels.links_lost)
        registry.gauge("gateway_channels", "Channels of workers").set_function(
            lambda: len(channels)
        )
        version = ("function_id", "function_version_id")
        for name, help_text, read in (
            (
                "gateway_channel_calls",
                "Calls that workers have over channels",
                lambda: by_version(channels.running().items()),
            ),
            (
                "gateway_channel_free_slots",
                "Free slots of which workers have told",
                lambda: by_version(channels.slots()),
            ),
        ):
            registry.add(ScrapedGauge(name, help_text, version, read))

    def watch_turns(self, turns: LoopTurns) -> None:
        """Show the longest turn of the event loop."""
        self._registry.gauge(
            "gateway_loop_turn_longest_seconds",
            "Longest turn of the event loop in the last one to two minutes",
        ).set_function(turns.longest_s)

    def watch_log(self, writer: LineWriter) -> None:
        """Show how many lines of the access log were dropped because nothing reads them."""
        self._registry.counter(
            "gateway_log_lines_dropped_total", "Lines of the access log that were not written"
        ).set_function(lambda: writer.dropped)

    def watch_uploads(self, space: UploadSpace) -> None:
        """Show how much of request bodies the process holds, in memory and in files."""
        self._uploads.child("memory").set_function(lambda: space.memory_bytes)
        self._uploads.child("spool").set_function(lambda: space.spool_bytes)

    def watch_detached(self, detached: DetachedCounts) -> None:
        """Show the detached calls of the process, and what their responses take."""
        registry = self._registry
        calls = registry.gauge(
            "gateway_detached_calls",
            "Detached calls that the process holds: running, or over and not stored yet",
            ("state",),
        )
        calls.child("running").set_function(lambda: detached.running)
        calls.child("unsettled").set_function(lambda: detached.unsettled)
        recorded = registry.gauge(
            "gateway_detached_bytes", "Bytes of responses that the process records", ("where",)
        )
        recorded.child("memory").set_function(lambda: detached.space.memory_bytes)
        recorded.child("spool").set_function(lambda: detached.space.spool_bytes)
        registry.counter(
            "gateway_responses_stored_total", "Responses of detached calls that were stored"
        ).set_function(lambda: detached.stored)
        registry.counter(
            "gateway_responses_lost_total",
            "Responses of detached calls that the object store did not take",
        ).set_function(lambda: detached.not_stored)

    def watch_keyed(self, decisions: Mapping[str, int]) -> None:
        """Show what became of calls with an Idempotency-Key, by what was decided."""

        def decided() -> Iterator[Reading]:
            return (((decision,), count) for decision, count in decisions.items())

        self._registry.add(
            ScrapedCounter(
                "gateway_keyed_calls_total",
                "Calls with an Idempotency-Key, by what became of them",
                ("decision",),
                decided,
            )
        )

    def watch_websockets(self, live: Callable[[], Iterable[Invocation]]) -> None:
        """Show how many WebSockets are open, of the invocations in ``live``."""

        def opened() -> Iterator[Reading]:
            counts: dict[tuple[str, str], int] = {}
            for invocation in live():
                if invocation.status == _SWITCHING:
                    version = invocation.version
                    labels = (version.function_id, version.version_id)
                    counts[labels] = counts.get(labels, 0) + 1
            return iter(counts.items())

        self._registry.add(
            ScrapedGauge(
                "gateway_websockets",
                "WebSockets that are open",
                ("function_id", "function_version_id"),
                opened,
            )
        )

    def record_start(self, invocation: Invocation) -> None:
        """Record that an invocation was accepted."""
        self._pending_of(invocation).value += 1
        self._meters(invocation).requests.value += 1

    def record_end(self, invocation: Invocation, now: float) -> None:
        """Record that an invocation ended at ``now`` (loop time); its outcome and times are set."""
        self._pending_of(invocation).value -= 1
        meters = self._meters(invocation)
        received_at = invocation.received_at
        total_s = now - received_at
        meters.total.observe(total_s)
        meters.latency.observe(total_s)
        if invocation.attached_at:
            meters.queue_wait.observe(queue_wait_s(invocation))
        if invocation.head_at:
            meters.first_byte.observe(invocation.head_at - received_at)
        outcome = invocation.outcome
        if outcome is not None:
            self._ends[outcome].value += 1
            if outcome is not Outcome.ANSWERED and outcome not in _NOT_ERRORS:
                self._errors.child(
                    str(invocation.status), invocation.version.function_id
                ).value += 1
        route = invocation.route
        count, duration, body_size = self._exchange(invocation.method, invocation.status, route)
        if not route:
            # The exchanges of a polled call are counted one by one.
            count.value += 1
        duration.observe(total_s)
        body_size.count += 1
        body_size.sum += invocation.response_bytes

    def record_refusal(self, method: bytes, status: int, endpoint: str, reason: str = "") -> None:
        """Record the response to a request that did not become an invocation.

        ``reason`` is the word of its problem document, empty if it is none.
        """
        if reason:
            self._refusals.child(endpoint, reason).value += 1
        text = method if method in _METHODS else _OTHER_METHOD
        self._http.child(text.decode(), str(status), endpoint).value += 1
        if reason and endpoint == _HOST_ROUTED and status != CLIENT_GONE_STATUS:
            self._errors.child(str(status), "").value += 1

    def record_overload(self, version: FunctionVersion) -> None:
        """Record that a call was refused because too many others wait."""
        self._overloaded.child(version.function_id, version.version_id).value += 1

    def _pending_of(self, invocation: Invocation) -> GaugeChild:
        pending = self._pending
        method = invocation.method
        if method not in pending:
            method = _OTHER_METHOD
        if invocation.route:
            return self._all_pending.child(method.decode(), invocation.route)
        return pending[method]

    def _meters(self, invocation: Invocation) -> _VersionMeters:
        version = invocation.version
        key = (version.version_id, invocation.account)
        meters = self._versions.get(key)
        if meters is None:
            labels = (version.function_id, version.version_id)
            meters = _VersionMeters(
                self._requests.child(*labels, invocation.account),
                self._latency.child(*labels),
                self._queue_wait.child(*labels),
                self._first_byte.child(*labels),
                self._total.child(*labels),
            )
            if len(self._versions) < _MAX_CACHED_VERSIONS:
                self._versions[key] = meters
                self._function_of[version.version_id] = version.function_id
        return meters

    def _exchange(self, method: bytes, status: int, route: str) -> _ExchangeMeters:
        key = (method if method in _METHODS else _OTHER_METHOD, status, route)
        children = self._exchanges.get(key)
        if children is None:
            labels = (key[0].decode(), str(status), route or _HOST_ROUTED)
            children = self._exchanges[key] = (
                self._http.child(*labels),
                self._http_duration.child(*labels),
                self._http_body_size.child(*labels),
            )
        return children


_SWITCHING = 101
_MAX_CACHED_VERSIONS = 100_000
"""Cached pairs of version and account; the series of further ones are looked up each time."""


def queue_wait_s(invocation: Invocation) -> float:
    """Return the seconds from the request's offer to workers to its lease by one.

    Without ``worker_s``, the age of the lease that the worker reports, the time of the attach call
    is taken for that of the lease.
    """
    waited_s = invocation.attached_at - invocation.offered_at
    if invocation.worker_s > 0.0:
        return max(waited_s - invocation.worker_s, 0.0)
    return waited_s
