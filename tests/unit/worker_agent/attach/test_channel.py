"""How a worker delivers responses over a channel, and what it keeps for a break."""

from collections.abc import Callable

import pytest

from tests.support.job_bench import Bench
from tests.support.links import RecordedLink
from wire.channel import MAX_RESPONSE_BYTES, CallFrame, Kind, Reason, encode_call, encode_count
from worker_agent.attach.channel import MAX_UNCONFIRMED_BYTES, AgentChannel

HEAD_BYTES = 13


class RecordedCalls:
    """The runner."""

    slots = 4
    cancelled: tuple[str, ...] = ()

    def offered(self) -> int:
        return self.slots

    def on_call(self, channel: AgentChannel, number: int, call: CallFrame) -> None:
        """It runs."""

    def on_cancel(self, request_id: str) -> None:
        self.cancelled += (request_id,)


class Worker:
    """A worker with one channel."""

    def __init__(self) -> None:
        self.link = RecordedLink()
        self.calls = RecordedCalls()
        self.breaks = 0
        self.channel = AgentChannel(b"http://10.0.0.1:8090", self.calls, self._lost)
        self.channel.linked(self.link, "key", is_resumed=False)

    def _lost(self, channel: AgentChannel) -> None:
        self.breaks += 1

    def deliver(self, body: bytes = b"ok") -> Bench:
        """Deliver the response to a request of the queue, if the channel takes it."""
        bench = Bench().forward()
        bench.job.response_whole(200, [], len(body), body)
        if self.channel.takes(bench.job):
            self.channel.respond(bench.job, 1000)
            bench.script.append("taken")
        return bench

    def call(self, number: int) -> None:
        frame = encode_call(number, b"r" * 36, 0, b"", b"", has_rest=False, confirmed=0)
        assert frame is not None
        self.channel.on_frame(Kind.CALL, number, frame[HEAD_BYTES:])

    def confirm(self, count: int, last_call: int = 0) -> None:
        frame = encode_count(Kind.CONFIRM, count, last_call)
        self.channel.on_frame(Kind.CONFIRM, last_call, frame[HEAD_BYTES:])

    def break_link(self) -> None:
        self.channel.link_lost(self.link)

    def open_again(self) -> None:
        self.link = RecordedLink()
        self.channel.linked(self.link, "key", is_resumed=True)


def test_the_lease_of_a_queued_request_ends_when_its_response_is_confirmed() -> None:
    worker = Worker()
    first, second = worker.deliver(), worker.deliver()
    assert worker.link.kinds == [Kind.QUEUED_RESPONSE] * 2
    assert "lease.ack" not in first.script
    worker.confirm(1)
    assert first.script.count("lease.ack") == 1
    assert "lease.ack" not in second.script
    worker.confirm(2)
    worker.confirm(2)
    assert second.script.count("lease.ack") == 1
    assert not worker.channel.is_in_use()


def test_what_is_not_confirmed_is_sent_again_after_a_break() -> None:
    worker = Worker()
    first, second = worker.deliver(), worker.deliver()
    worker.break_link()
    assert worker.breaks == 1
    worker.open_again()
    assert worker.link.frames == []
    worker.confirm(1)
    assert "lease.ack" in first.script
    assert worker.link.kinds == [Kind.QUEUED_RESPONSE, Kind.RUNNING]
    worker.confirm(2)
    assert second.script.count("lease.ack") == 1


def test_a_call_that_is_given_back_without_a_connection_is_no_lost_run() -> None:
    worker = Worker()
    worker.call(1)
    worker.call(2)
    worker.break_link()
    worker.channel.give_back(1, Reason.HANDED_BACK)
    worker.open_again()
    # Not before the gateway process has named its last call.
    worker.channel.give_back(2, Reason.HANDED_BACK)
    assert worker.link.frames == []
    worker.confirm(0, last_call=2)
    assert worker.link.kinds == [Kind.BUSY, Kind.BUSY, Kind.RUNNING]
    assert worker.link.frames[0] == (Kind.BUSY, 1, bytes((Reason.HANDED_BACK,)))
    assert worker.link.frames[2] == (Kind.RUNNING, 2, b"")


def test_responses_are_posted_when_the_channel_is_gone_for_good() -> None:
    worker = Worker()
    bench = worker.deliver()
    worker.channel.running[1] = "running"
    worker.break_link()
    bench.take()
    running, jobs = worker.channel.lose()
    assert (running, jobs) == (["running"], [bench.job])
    jobs[0].post_broken()
    assert bench.take() == ["attach.deliver"]
    assert not worker.channel.is_in_use()


def _break(worker: Worker) -> None:
    worker.break_link()


def _pause(worker: Worker) -> None:
    worker.link.is_writing_paused = True


def _resume(worker: Worker) -> None:
    worker.break_link()
    worker.open_again()


def _fill(worker: Worker) -> None:
    for _ in range(MAX_UNCONFIRMED_BYTES // 30_000 + 1):
        worker.deliver(bytes(30_000))


@pytest.mark.parametrize("trouble", [_break, _pause, _resume, _fill])
def test_a_channel_in_trouble_leaves_queued_responses_to_post_attach(
    trouble: Callable[[Worker], None],
) -> None:
    worker = Worker()
    trouble(worker)
    assert "taken" not in worker.deliver().script


def test_a_long_response_is_posted() -> None:
    assert "taken" in Worker().deliver(bytes(MAX_RESPONSE_BYTES - 100)).script
    assert "taken" not in Worker().deliver(bytes(MAX_RESPONSE_BYTES)).script


def test_the_response_to_a_call_waits_for_the_connection() -> None:
    worker = Worker()
    bench = Bench().forward()
    bench.job.envelope.channel_call = 1
    bench.job.envelope.response_token = "key"
    bench.job.response_whole(200, [], 2, b"ok")
    worker.break_link()
    assert worker.channel.takes(bench.job)
    worker.channel.respond(bench.job, 1000)
    # The gateway process tells what becomes of the call: nothing has to wait for it.
    assert "registry.finished" in bench.script
    worker.open_again()
    worker.confirm(0)
    assert worker.link.kinds == [Kind.RESPONSE, Kind.RUNNING]


def test_a_gateway_process_that_confirms_nothing_is_noticed() -> None:
    worker = Worker()
    channel = worker.channel
    assert channel.silent_s(10.0) == 0.0
    worker.deliver()
    assert channel.silent_s(11.0) == 1.0
    worker.deliver()
    assert channel.silent_s(15.0) == 5.0
    worker.confirm(1)
    assert channel.silent_s(16.0) == 0.0
    assert channel.silent_s(18.0) == 2.0
    worker.confirm(2)
    assert channel.silent_s(20.0) == 0.0
