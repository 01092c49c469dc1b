"""Turns leases into jobs, and ends them at the queue.

The runner asks the queue for as many requests as there are free slots, keeps every job by its
request id, renews all leases at the same time, and drains. If the queue delivers a request again
while its first run still goes on (its lease ran out), the new lease joins that run. A request that
was delivered before, perhaps to another worker, is run only if the gateway process that holds its
client says so (``docs/wire.md`` §5.5).
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import Protocol

from http1.stream import Defect
from queueing.interface import Lease, PullConsumer, RunDecision
from runtime.events import emit
from runtime.tasks import spawn
from wire.channel import CallFrame, Reason
from wire.deadlines import MAX_INVOCATION_S
from wire.decoded_envelope import Envelope, EnvelopeHead, decode_call_head, decode_envelope
from wire.envelope import EnvelopeError
from worker_agent.attach.channel import AgentChannel, ChannelLease
from worker_agent.attach.channels import AgentChannels
from worker_agent.compat.call import Compat, CompatPorts
from worker_agent.job.context import Attach, Context, Inference
from worker_agent.job.machine import UNRUN_AGAIN_S, Job
from worker_agent.job.request import PlatformHeaders, window_left_s
from worker_agent.job.states import DONE, FORWARDING, OPENING, Outcome
from worker_agent.job.websocket import SWITCHING
from worker_agent.job.window import StartGate
from worker_agent.slots import Slots

MAX_JOB_S = MAX_INVOCATION_S + 5.0
"""No gateway waits longer than `MAX_INVOCATION_S`; a job that is older by a margin is cancelled."""
ASK_AGAIN_S = 1.0
"""Delay of the next delivery of a request that the gateway does not want to be run just now."""
MAX_ASK_AGAIN_S = 30.0
"""The longest such delay for a request of a gateway that does not respond; it doubles each time."""
PASS_ON_S = 0.5
PASS_ON_TIMES = 3
"""So often, and for so long, a request that the inference server broke off is left to others."""
TELL_LATE_S = 1.0
"""A client that would wait for at least so long is told that its request was dropped as late."""
MAX_REPORTING_LATE = 16
"""Reports of that on their way at the same time; the clients of further ones wait."""
_MAX_BROKE_OFF = 1024
TELL_LEASED_S = 0.05
STANDSTILL_S = 3.0
"""A call that arrives after such a standstill is given back: its gateway may have given it up."""
_MAX_KEPT_HEADS = 512
_MAX_KEPT_HEAD_BYTES = 4096
_KNOWN_ENDS = frozenset({Outcome.ANSWERED, Outcome.CANCELLED, Outcome.UNWANTED})
"""Ends of a job that its gateway process knows."""
_SKEW_S = 5.0
"""By so much the clocks of a gateway and of this machine may differ."""
_ENDED_S = 0.5
"""A request that is withdrawn so shortly before the end of its window is withdrawn for it."""
_YOUNG_NS = 4_000_000_000
"""A gateway tells its client that the queue is unavailable 5 s after an unconfirmed publish."""
_STORED_LATE_NS = 1_000_000_000
"""What was stored later than so lay in a socket. Its gateway, cut off meanwhile, may not have got
the confirmation, and may have told its client."""
_is_token = re.compile(r"[A-Za-z0-9\-._~+/]+=*").fullmatch

_log = logging.getLogger("worker.pull")


class Telemetry(Protocol):
    """Counts jobs."""

    def started(self, job: Job) -> None:
        """A job begins."""

    def freed(self, job: Job) -> None:
        """The inference server is done with a job, at `Job.freed_at`."""

    def ended(self, job: Job, now: float) -> None:
        """A job is over at ``now``, loop time in seconds."""

    def invalid(self, defect: Defect) -> None:
        """The inference server's response was invalid."""

    def rejected(self) -> None:
        """An envelope that no worker can serve was taken out of the queue."""


class JobRunner:
    """All jobs of this agent; the `worker_agent.job.context.JobRegistry`."""

    def __init__(  # noqa: PLR0913 - one argument per part
        self,
        slots: Slots,
        platform_headers: PlatformHeaders,
        telemetry: Telemetry,
        *,
        channels: AgentChannels,
        is_attachable: Callable[[bytes], bool],
        on_busy: Callable[[], object],
        compat: Compat | None = None,
    ) -> None:
        """``is_attachable`` returns whether the agent can attach to an envelope's address.

        ``channels`` bring calls that do not come from the queue. ``on_busy`` is called for a job
        that begins while no other runs. Without ``compat`` every response is passed on as it is.
        """
        self._slots = slots
        self._platform_headers = platform_headers
        self._telemetry = telemetry
        self._channels = channels
        self._is_attachable = is_attachable
        self._on_busy = on_busy
        self._compat = compat
        self._known_uri = b""
        self._context: Context[Job] | None = None
        self._gate = StartGate()
        self._queue: PullConsumer | None = None
        self._jobs: dict[str, Job] = {}
        self._run_ends: dict[str, asyncio.TimerHandle] = {}
        self._asking: dict[str, Lease] = {}
        self._untold: list[Job] = []
        self._heads: dict[bytes, EnvelopeHead] = {}
        self._awake_at = 0.0
        self._reported: set[str] = set()
        self._broke_off: dict[str, int] = {}
        self._reporting_late = 0
        self._sure_from_ns = 0
        self._loop = asyncio.get_running_loop()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @property
    def running(self) -> int:
        """Jobs that are not over."""
        return len(self._jobs)

    @property
    def busy(self) -> int:
        """Jobs that are not over, or slots in use, whichever are more."""
        return max(len(self._jobs), self._slots.running)

    def open(self, inference: Inference, attach: Attach[Job], queue: PullConsumer) -> None:
        """Begin to pull."""
        special = None
        if self._compat is not None:
            self._compat.open(CompatPorts(inference, attach, self, queue, self._gate))
            special = self._compat.special
        self._context = Context(
            inference, attach, self, self._platform_headers, self._gate, special
        )
        self._queue = queue
        queue.watch(
            self.on_standstill, self.on_loss, self.on_bound, self.renew, self._offer_changed
        )
        self._channels.start(self)
        self.sweep()
        self.resume()

    def pause(self) -> None:
        """Stop pulling; leases that still arrive are ended with a nak."""
        self._slots.is_open = False
        self._want()

    def resume(self) -> None:
        """Pull again."""
        self._slots.is_open = True
        self._want()

    def resize(self, limit: int, delivering_limit: int) -> None:
        """Run ``limit`` requests at a time from now on; running jobs are finished."""
        slots = self._slots
        is_less = limit < slots.limit
        slots.resize(limit, delivering_limit)
        if is_less and self._queue is not None:
            # Cancels open pulls, which may be for more requests than there are slots now.
            self._queue.want(0)
        self._want()

    async def wait_drained(self) -> None:
        """Wait until no job is left."""
        await self._is_empty.wait()

    def abandon_all(self) -> None:
        """End every job now."""
        for lease in self._asking.values():
            lease.nak()
        self._asking.clear()
        for job in list(self._jobs.values()):
            job.abandon()

    # The queue's callbacks

    def on_lease(self, lease: Lease, *, is_away: bool = False) -> None:
        """A request was leased to this agent; ``is_away``: from the queue of another region.

        The gateway processes of another region get no channel: they would send calls over it that
        a worker of their own has room for.
        """
        try:
            envelope = decode_envelope(lease.envelope)
        except EnvelopeError as error:
            self._reject(lease, str(error))
            return
        request_id = envelope.request_id
        if (running := self._jobs.get(request_id)) is not None and self._joins(running, lease):
            return
        context = self._context
        delay_s = PASS_ON_S if lease.deliveries > 1 and self._should_pass_on(request_id) else 0.0
        if context is None or delay_s or not self._slots.take():
            lease.nak(delay_s)
            self._want()
            return
        if envelope.stateful or not envelope.method:
            self._slots.give_back()
            self._reject(lease, "neither sessions nor whole-request streaming are served")
            return
        if not self._can_respond(envelope.target_uri, envelope.response_token):
            self._slots.give_back()
            self._reject(lease, "no address or token to respond with")
            return
        now_ns = time.time_ns()
        is_asking = request_id in self._asking
        requested_at_ns = envelope.requested_at_ns
        # Nearly all requests are young: nothing has to be read from their leases.
        is_young = now_ns - requested_at_ns < _YOUNG_NS and now_ns > self._sure_from_ns
        if (
            lease.deliveries == 1
            and not is_asking
            and not envelope.head.is_run_once
            and (is_young or _is_first_run(lease, requested_at_ns))
        ):
            self._begin(context, lease, envelope, now_ns)
            if not is_away:
                self._tell_leased(envelope, self._jobs.get(request_id))
            return
        self._asking[request_id] = lease
        if is_asking:
            self._slots.give_back()
            self._want()
        else:
            spawn(self._ask(context, envelope, lease.deliveries), "run-question")

    def _joins(self, running: Job, lease: Lease) -> bool:
        """Return whether nothing has to be begun for a lease of a request that runs already."""
        if not running.envelope.channel_call:
            running.leased_again(lease)
        else:
            # Its gateway process has given it up as a call of its channel, and published it.
            running.lapse()
            if running.state is DONE:
                return False
            lease.nak(ASK_AGAIN_S)
        self._want()
        return True

    # Calls of channels

    def offered(self) -> int:
        """Return how many calls gateway processes may send without the queue.

        None while a request waits in the queue: it is in front of every further call.
        """
        queue = self._queue
        if queue is None or not queue.is_line_empty():
            return 0
        return max(self._slots.free(), 0)

    def on_call(self, channel: AgentChannel, number: int, call: CallFrame) -> None:
        """A gateway process has sent a call."""
        context, queue = self._context, self._queue
        try:
            head = self._heads.get(call.head) or self._decode_head(call.head)
        except EnvelopeError as error:
            self._telemetry.rejected()
            emit(_log, "call.rejected", logging.WARNING, reason=str(error))
            channel.give_back(number, Reason.LOST)
            return
        # A call that waited in the socket while this process stood still may be another worker's.
        is_old = self._loop.time() - self._awake_at > STANDSTILL_S
        if (
            context is None
            or queue is None
            or is_old
            or call.request_id in self._jobs
            or not self._slots.take()
        ):
            channel.give_back(number, Reason.HANDED_BACK)
            return
        envelope = Envelope(
            head,
            call.request_id,
            call.requested_at_ns,
            call.body,
            channel.uri,
            channel.key,
            channel.key if call.has_rest else None,
            channel_call=number,
        )
        queue.taken()
        lease = ChannelLease(channel, call.request_id)
        self._begin(context, lease, envelope, time.time_ns())
        self._channels.offer_changed(self.offered())

    def given_up(self, request_ids: list[str]) -> None:
        """The gateway process is gone, or has given these calls to other workers."""
        for request_id in request_ids:
            job = self._jobs.get(request_id)
            if job is not None:
                job.lapse()

    def sweep(self) -> None:
        """Note that this process does not stand still; to be called about once a second.

        After a standstill the calls that wait in the sockets may be other workers' by now.
        """
        was_awake_at, self._awake_at = self._awake_at, self._loop.time()
        if self._awake_at - was_awake_at > STANDSTILL_S:
            self._channels.renew()

    def _decode_head(self, encoded: bytes) -> EnvelopeHead:
        """Decode the head of a call, and keep it: most calls of a client have the same."""
        head = decode_call_head(encoded)
        if len(encoded) <= _MAX_KEPT_HEAD_BYTES:
            if len(self._heads) >= _MAX_KEPT_HEADS:
                self._heads.clear()
            self._heads[encoded] = head
        return head

    def _offer_changed(self) -> None:
        self._channels.offer_changed(self.offered())

    def _tell_leased(self, envelope: Envelope, job: Job | None) -> None:
        """Tell the gateway process that a request waits no more, at once or if it runs for long.

        At once if its next call need not go through the queue.
        """
        channel = self._channels.to(envelope.target_uri)
        if channel is None:
            if envelope.channel_token:
                self._channels.hear_of(envelope)
        elif self._queue is not None and self._queue.is_line_empty():
            channel.leased(envelope.request_id)
        elif job is not None:
            if not self._untold:
                self._loop.call_later(TELL_LEASED_S, self._tell_untold)
            self._untold.append(job)

    def _tell_untold(self) -> None:
        untold, self._untold = self._untold, []
        for job in untold:
            if job.state is not DONE:
                channel = self._channels.to(job.envelope.target_uri)
                if channel is not None:
                    channel.leased(job.request_id)

    def _end_call(self, job: Job) -> None:
        """Tell the gateway process what became of a call that came over its channel."""
        if not isinstance(job.lease, ChannelLease):
            return
        number = job.envelope.channel_call
        channel = job.lease.channel
        if job.outcome in _KNOWN_ENDS:
            channel.forget(number)
        elif job.outcome is Outcome.HANDED_BACK:
            channel.give_back(number, Reason.BROKEN_OFF if job.sent_at else Reason.HANDED_BACK)
        else:
            is_late = job.outcome is Outcome.LATE
            channel.give_back(number, Reason.LATE if is_late else Reason.LOST)

    def _should_pass_on(self, request_id: str) -> bool:
        """Return whether another worker should have a request that this inference server broke off.

        A few times only: there may be no other worker.
        """
        left = self._broke_off.get(request_id, 0)
        if left:
            self._broke_off[request_id] = left - 1
        return left > 0

    def _begin(
        self,
        context: Context[Job],
        lease: Lease,
        envelope: Envelope,
        now_ns: int,
        *,
        is_last_run: bool = False,
    ) -> None:
        job = Job(context, lease, envelope, self._loop.time(), is_last_run=is_last_run)
        if not self._jobs:
            self._is_empty.clear()
            self._on_busy()
        self._jobs[job.request_id] = job
        self._telemetry.started(job)
        job.begin(now_ns)

    async def _ask(self, context: Context[Job], envelope: Envelope, deliveries: int) -> None:
        """Run a request if the gateway says so. It has a slot."""
        decision: RunDecision | None = None
        try:
            decision = await context.attach.may_run(envelope, deliveries, is_running=False)
        finally:
            lease = self._asking.pop(envelope.request_id, None)
            if lease is None or not self._decided(context, lease, envelope, decision):
                self._slots.give_back()
                self._want()

    def _decided(
        self,
        context: Context[Job],
        lease: Lease,
        envelope: Envelope,
        decision: RunDecision | None,
    ) -> bool:
        """Do what the gateway said about a request; return whether it keeps its slot."""
        now_ns = time.time_ns()
        may_run = decision is RunDecision.RERUNNABLE or decision is RunDecision.RUN
        if may_run and self._slots.is_open:
            if not lease.is_over():
                is_last_run = decision is RunDecision.RUN
                self._begin(context, lease, envelope, now_ns, is_last_run=is_last_run)
                return True
        elif decision is RunDecision.NEVER:
            lease.ack()
        elif may_run and envelope.head.is_run_once:
            lease.nak(UNRUN_AGAIN_S)
            spawn(context.attach.gave_back(envelope, lease.deliveries), "unrun-report")
        elif may_run:
            lease.nak()
        elif decision is RunDecision.LATER:
            lease.nak(ASK_AGAIN_S)
        elif window_left_s(envelope, now_ns) < -_SKEW_S:
            # Its gateway is silent, and its client would not wait any more.
            lease.ack()
        else:
            doublings = min(lease.deliveries, 10)
            lease.nak(min(ASK_AGAIN_S * (1 << doublings) / 4, MAX_ASK_AGAIN_S))
        return False

    def on_cancel(self, request_id: str) -> None:
        """The gateway withdrew a request, which may be another worker's."""
        job = self._jobs.get(request_id)
        if job is not None:
            job.cancel()
        elif (lease := self._asking.pop(request_id, None)) is not None:
            lease.ack()

    def on_bound(self) -> None:
        """The queue was bound: what it has stored before may have been delivered unknown times."""
        self._sure_from_ns = time.time_ns() + _YOUNG_NS + int(_SKEW_S * 1e9)

    def on_standstill(self) -> None:
        """This process stood still, and other workers may have its requests by now.

        What was not sent to the inference server is dropped. What was is run already: the gateway
        is asked whether another worker has begun with it.
        """
        self._asking.clear()
        forwarding = []
        for job in list(self._jobs.values()):
            if job.state is OPENING:
                job.lapse()
            elif job.state is FORWARDING:
                forwarding.append(job)
        self._report(forwarding)

    def _report(self, jobs: list[Job]) -> None:
        """Tell the gateway processes what runs here; drop what another worker has begun with."""
        by_gateway: dict[bytes, list[Job]] = {}
        for job in jobs:
            if job.envelope.channel_call or job.is_polled:
                continue
            by_gateway.setdefault(job.envelope.target_uri, []).append(job)
        for of_gateway in by_gateway.values():
            # Not one after the other: a gateway that does not respond must not hold up the others.
            spawn(self._report_to_one(of_gateway), "running-report")

    async def _report_to_one(self, jobs: list[Job]) -> None:
        context = self._context
        for job in jobs:
            if context is None or job.state > FORWARDING:
                continue
            decision = await context.attach.may_run(
                job.envelope, job.lease.deliveries, is_running=True
            )
            if decision is RunDecision.NEVER:
                job.lapse()

    def on_loss(self) -> None:
        """Tell the gateways what runs: the queue may have lost it, and they publish that again."""
        running = [
            job
            for job in self._jobs.values()
            if job.state <= FORWARDING and not job.envelope.channel_call
        ]
        self._reported = {job.request_id for job in running}
        self._report(running)

    # JobRegistry

    def bounded(self, request_id: str, ends_at: float) -> None:
        """A job may not run for longer than until ``ends_at``."""
        self._run_ends[request_id] = self._loop.call_at(ends_at, self._jobs[request_id].run_ended)

    def uploaded(self, request_id: str) -> None:
        """The body of a job, which was fetched from the gateway, is passed on."""
        self._jobs[request_id].body_at = self._loop.time()

    def responding(self, request_id: str) -> None:
        """The response head of a job has come before its body."""
        self._jobs[request_id].head_at = self._loop.time()

    def freed(self, job: Job, *, is_timed: bool = True) -> None:
        """The inference server is done with a job, which may be over."""
        self._slots.release()
        now = job.freed_at = self._loop.time()
        if is_timed and job.status and job.status != SWITCHING and not job.fault:
            began_at = job.body_at if job.fetches_body else job.sent_at
            took_s = (job.head_at or now) - began_at
            if began_at and took_s >= 0.0:
                # Not the time in which the client was still sending.
                self._gate.heads.add(took_s, now)
        self._telemetry.freed(job)
        self._want()

    def finished(self, request_id: str) -> None:
        """A job is over."""
        was_full = self._slots.finish()
        job = self._jobs.pop(request_id)
        if self._run_ends and (end := self._run_ends.pop(request_id, None)) is not None:
            end.cancel()
        self._telemetry.ended(job, self._loop.time())
        if job.envelope.channel_call:
            self._end_call(job)
        if job.defect is not None:
            self._report_invalid(job.request_id, job.defect)
        if was_full:
            self._want()
        if not self._jobs:
            self._is_empty.set()
        if job.outcome is Outcome.ANSWERED:
            late_s = (job.head_at or job.freed_at) - job.leased_at - job.left_s
            if late_s > 0.0:
                self._gate.offset.saw_accepted(late_s)
        else:
            self._learn(job)
            _log_end(job)

    def _report_invalid(self, request_id: str, defect: Defect) -> None:
        self._telemetry.invalid(defect)
        emit(
            _log,
            "response.invalid",
            logging.WARNING,
            request_id=request_id,
            reason=defect.reason,
            header=defect.header,
            detail=defect.detail,
        )

    def _report_late(self, job: Job) -> None:
        """Let the client be told now, if it would wait for long: no other worker gets the request.

        Of a further delivery, an earlier worker may still respond.
        """
        left_s = job.left_s + self._gate.offset.seconds
        if left_s < TELL_LATE_S or job.lease.deliveries > 1 or self._context is None:
            return
        if job.envelope.channel_call:
            # Its channel tells it.
            return
        if self._reporting_late < MAX_REPORTING_LATE:
            self._reporting_late += 1
            late = self._tell_late(self._context, job.envelope, job.lease.deliveries)
            spawn(late, "late-report")

    async def _tell_late(self, context: Context[Job], envelope: Envelope, deliveries: int) -> None:
        try:
            await context.attach.dropped_late(envelope, deliveries)
        finally:
            self._reporting_late -= 1

    def renew(self) -> None:
        """Renew every lease."""
        for job in self._jobs.values():
            job.lease.in_progress()
        for lease in self._asking.values():
            lease.in_progress()

    def tick(self) -> None:
        """Renew every lease, and end jobs that are too old; to be called every 10 s."""
        oldest = self._loop.time() - MAX_JOB_S
        for job in list(self._jobs.values()):
            # A WebSocket may last longer: its gateway process ends it.
            # So may a call whose clients come again and again.
            is_long = job.status == SWITCHING or job.is_polled
            if job.leased_at < oldest and job.state is not DONE and not is_long:
                job.cancel()
        self.renew()
        if self._reported:
            # The gateways take it that what no worker reports any more is lost.
            again = [
                job
                for job in map(self._jobs.get, self._reported)
                if job is not None and job.state <= FORWARDING
            ]
            self._reported = {job.request_id for job in again}
            self._report(again)

    def _learn(self, job: Job) -> None:
        """Learn from, or report, a job that is over and was not answered."""
        if job.outcome is Outcome.HANDED_BACK and job.sent_at:
            if len(self._broke_off) >= _MAX_BROKE_OFF:
                del self._broke_off[next(iter(self._broke_off))]
            self._broke_off[job.request_id] = PASS_ON_TIMES
            if not job.envelope.channel_call and self._context is not None:
                # The number of deliveries would not say so: it counts leases that began no run.
                broke_off = self._context.attach.broke_off(job.envelope, job.lease.deliveries)
                spawn(broke_off, "broken-off-report")
        elif job.outcome is Outcome.HANDED_BACK:
            if job.envelope.head.is_run_once and self._context is not None:
                gave_back = self._context.attach.gave_back(job.envelope, job.lease.deliveries)
                spawn(gave_back, "unrun-report")
        elif job.outcome is Outcome.UNDELIVERED:
            emit(_log, "response.undelivered", logging.WARNING, request_id=job.request_id)
        elif job.outcome is Outcome.LATE:
            self._report_late(job)
        elif job.outcome is Outcome.CANCELLED and job.sent_at and not job.status:
            now = self._loop.time()
            left_s = job.left_s + self._gate.offset.seconds - (now - job.leased_at)
            if left_s <= _ENDED_S:
                # It would have taken longer, nobody knows how long. Without this, a function that
                # has become slower would be broken off just before its response again and again.
                # A client that leaves before tells nothing.
                self._gate.heads.add(2.0 * (now - job.sent_at), now)

    def _want(self) -> None:
        if self._queue is None:
            return
        free = self._slots.free()
        if free > 0 or not self._slots.is_open:
            # Not for slots that are all taken: a pull that is cancelled may lose a request.
            self._queue.want(free)
        self._offer_changed()

    def _can_respond(self, attach_uri: bytes, token: str) -> bool:
        # Nearly all envelopes come from the same few gateway processes.
        if attach_uri != self._known_uri:
            if not self._is_attachable(attach_uri):
                return False
            self._known_uri = attach_uri
        return _is_token(token) is not None

    def _reject(self, lease: Lease, reason: str) -> None:
        self._telemetry.rejected()
        emit(_log, "envelope.rejected", logging.WARNING, reason=reason)
        lease.term()
        self._want()


def _is_first_run(lease: Lease, requested_at_ns: int) -> bool:
    """Return whether a first delivery is one, of a request whose client waits.

    A publish can lie in a socket while the broker is paused or cut off, until after its client was
    told that it failed. A request that only waited in the queue was stored at once.
    """
    stored_late_ns = lease.stored_at_ns() - requested_at_ns if requested_at_ns > 0 else 0
    return stored_late_ns < _STORED_LATE_NS and lease.is_first_known()


def _log_end(job: Job) -> None:
    outcome = job.outcome.name.lower() if job.outcome is not None else ""
    emit(
        _log,
        "job.ended",
        logging.DEBUG,
        request_id=job.request_id,
        outcome=outcome,
        deliveries=job.lease.deliveries,
        status=job.status,
        fault=job.fault.decode(),
    )
