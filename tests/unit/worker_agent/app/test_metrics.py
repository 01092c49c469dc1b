"""What the agent counts, with times that the test tells."""

from runtime.metrics import MetricRegistry
from tests.support.job_bench import JSON, Bench
from worker_agent.app.metrics import BusyTime, Metrics
from worker_agent.job.machine import Job
from worker_agent.slots import Slots


class Clock:
    now = 0.0


class Counted:
    """The metrics of an agent."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.metrics = Metrics(MetricRegistry(with_process=False), lambda: self.clock.now)

    def value(self, name: str) -> float:
        wanted = f"nvcf_worker_service_{name} "
        (line,) = [
            line
            for line in self.metrics.registry.exposition().decode().splitlines()
            if line.startswith(wanted)
        ]
        return float(line.removeprefix(wanted))

    def start(self, leased_at: float) -> Job:
        bench = Bench().begin()
        bench.job.lease.deliveries = 1
        bench.job.leased_at = leased_at
        self.metrics.started(bench.job)
        return bench.job

    def free(self, job: Job, freed_at: float) -> None:
        job.freed_at = freed_at
        self.metrics.freed(job)

    def end(self, job: Job, now: float) -> None:
        job.post_answered(200)
        self.metrics.ended(job, now)


def test_the_time_of_a_request_is_divided_by_its_arrival_at_the_inference_server() -> None:
    counted = Counted()
    job = counted.start(leased_at=100.0)
    job.sent(Bench().call, 100.5)  # type: ignore[arg-type]
    job.response_whole(200, JSON, 2, b"{}")
    counted.free(job, 102.5)
    counted.end(job, 102.75)
    assert counted.value("pre_inference_seconds_total") == 0.5
    assert counted.value("inference_request_time_seconds_total") == 2.25
    assert counted.value("request_latency_seconds_sum") == 2.75
    assert counted.value("response_bytes_total") == 2


def test_a_request_that_never_reached_the_inference_server_spent_no_time_there() -> None:
    counted = Counted()
    job = counted.start(leased_at=100.0)
    job.unreachable()
    counted.free(job, 103.0)
    counted.end(job, 103.0)
    assert counted.value("pre_inference_seconds_total") == 3.0
    assert counted.value("inference_request_time_seconds_total") == 0.0


def test_a_slot_is_busy_from_the_lease_on_and_not_only_when_its_request_is_over() -> None:
    counted = Counted()
    busy = "worker_thread_busy_seconds_total"
    first = counted.start(leased_at=100.0)
    counted.clock.now = 110.0
    assert counted.value(busy) == 10.0
    counted.start(leased_at=110.0)
    counted.clock.now = 111.0
    assert counted.value(busy) == 12.0
    counted.free(first, 111.0)
    counted.clock.now = 115.0
    assert counted.value(busy) == 16.0


def test_busy_time_never_goes_back_whatever_the_clock_has_behind_the_point() -> None:
    busy = BusyTime()
    told = 0.0
    now = 1e6 / 3
    for step in range(3000):
        now += 1 / 7 if step % 3 else 0.0
        busy.change(1 if step % 5 != 4 else -4, now)
        assert busy.seconds(now) >= told
        now += 1e-4
        told = busy.seconds(now)


def test_no_slots_are_shown_before_work_is_asked_for() -> None:
    counted = Counted()
    assert counted.value("worker_thread_count_total") == 0
    slots = Slots(8, 1)
    counted.metrics.watch_slots(slots)
    assert counted.value("worker_thread_count_total") == 8
    slots.resize(3, 1)
    assert counted.value("worker_thread_count_total") == 3


class Open:
    """Channels to gateway processes."""

    links_lost = 2

    def __len__(self) -> int:
        return 3


def test_requests_are_counted_by_the_way_that_they_came() -> None:
    counted = Counted()
    counted.metrics.watch_channels(Open())
    counted.start(leased_at=1.0)
    job = Bench().begin().job
    job.envelope.channel_call = 1
    counted.metrics.started(job)
    counted.start(leased_at=2.0)
    shown = counted.metrics.registry.exposition().decode().splitlines()
    for line in (
        'worker_dispatched_total{dispatch="direct"} 1',
        'worker_dispatched_total{dispatch="queued"} 2',
        "worker_channels 3",
        "worker_channel_losses_total 2",
    ):
        assert line in shown
