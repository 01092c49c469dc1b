"""One invocation as a state machine: the table in `gateway.invocation.states`, carried out.

Pure: no I/O, no clock, no task. Each public method reports one event; time comes as an argument, or
from the context's clock where an event of the client starts or stops the poll window. Effects are
calls on ports. Set the state first and call ports last: a write may call `pause_writing` before it
returns, so an event can arrive inside an effect.

The poll window counts from when the call is offered to workers, and stands still while a worker
waits for what the client sends of its body: see `_flow` and `_wait_for_worker`.
"""

from gateway.domain.model import FunctionVersion
from gateway.errors import (
    BadRequest,
    BodyTooLarge,
    Draining,
    GatewayError,
    PollTimeout,
    UploadTimeout,
    WorkerLost,
    grpc_error_for,
    problem_for,
)
from gateway.invocation.bounds import PhaseBounds
from gateway.invocation.context import CallChannel, Context, Ticket, WorkerGet, WorkerPost
from gateway.invocation.headers import (
    NEVER_AGAIN,
    correlation_of,
    id_lines,
    outer_headers,
    request_headers,
    source_headers,
    with_platform_headers,
)
from gateway.invocation.states import (
    ATTACHED,
    DONE,
    ENDING,
    EXPIRED,
    QUEUED,
    RECEIVING,
    SENT,
    STREAMING,
    Event,
    Outcome,
    end_deadline,
    head_deadline,
    impossible,
)
from gateway.invocation.upload import Upload, smaller_limit
from gateway.routing.admission import Caller, CallPlan
from gateway.routing.cross_origin import PageAccess
from http1.stream import NO_TRAILERS, EncodedHead, Headers, Request, ResponseWriter
from queueing.interface import QueueError, QueueFull, RunDecision
from wire.envelope import EnvelopeError, encode_call_head, encode_envelope
from wire.grpc import DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE, encode_error
from wire.headers import (
    NVCF_POLL_SECONDS,
    NVCF_QUEUE_POSITION,
    NVCF_RUN_SECONDS,
    forwardable_interim,
)
from wire.http1 import BODILESS_STATUSES, InnerHead
from wire.problem import instance_of

CLIENT_GONE_STATUS = 499
"""Counted, never sent: the client left before its response head."""
_BROKEN = {
    Outcome.WORKER_LOST: (UNAVAILABLE, "The worker was lost while it responded"),
    Outcome.DRAINED: (UNAVAILABLE, "The gateway process is stopping"),
    Outcome.TOO_LONG: (DEADLINE_EXCEEDED, "The call has lasted for as long as a call may"),
    Outcome.RUN_TIMEOUT: (DEADLINE_EXCEEDED, "The call has run for as long as it allows"),
    Outcome.BAD_REQUEST: (RESOURCE_EXHAUSTED, "The body is too large"),
}
"""What a gRPC client is told at the end of a response that breaks off."""
_AT_ONCE_S = 0.05
"""A body that arrived within this time of its head came with it: no time is corrected."""
_WITH_WORKER = "the call was with a worker"
_TOO_LATE = "the call waited in line until too little time was left to begin with it"
_LOOK_AGAIN_S = 0.1
"""Time between two looks at a call whose window stands still with nothing left: the most by which
its end can be noticed late."""


_SentCall = tuple[int, bytes, bytes, bool]
"""A call that was sent over a channel: its number, head and first part to publish it if its worker
is lost, and whether the worker has to come for the rest of the body."""


def _where(position: int | None) -> str:
    """Return where a call was at the end of its window, for people."""
    if position is None:
        return "the call waited in line, or a worker had just got it"
    if position:
        return f"the call waited in line, at position {position} in the end"
    return _WITH_WORKER


class Invocation:
    """One client's request on its way to a worker and back.

    A `http1.stream.RequestStream` towards the client and `queueing.interface.PublishCallbacks`
    towards the queue. ``deadline`` is when `deadline_passed` must be called; ``due_at`` and
    ``slot`` belong to the timers that call it. Times are of the monotonic clock in seconds, 0.0
    until they are known. ``offered_at`` is when the call was offered to workers: ``received_at``
    unless its body came later. ``leased_at`` is when a worker said that it has the call from the
    queue; most are over before one does. ``worker_s`` is how long the worker had held its lease
    when it attached, -1 if it did not say; ``has_waited_for_client`` whether the window ever stood
    still because a worker waited for the client's body, which ``worker_s`` then includes.
    ``request_token`` is None unless a worker has to fetch the rest of the body. ``caller`` says who
    invokes what, ``target`` is the path and query as the client sent them: those of the request,
    unless it is set before the first event. ``source`` is the client, whose address is
    ``source.address``. ``page_access`` is set before the first event if a web page makes the call,
    or may. ``bounds`` are those of its ``Cancel-After``, if it has one: times besides the poll
    window, with events of their own.

    For the access line: ``is_direct``: a worker got the call over a channel, and not from the
    queue. ``deliveries`` is how often the request was delivered, as far as workers have told.
    ``instance`` is the id of the instance that has the call or attached last, empty if not known.
    ``completion`` is the outcome if the response comes to its end: not ANSWERED if the worker says
    that it is a problem document of its own. ``detached`` is how the call outlives its connection,
    empty if it does not. ``trace`` and ``caller_request_id`` are the client's
    ``traceparent`` and ``x-request-id``, known once the call is offered or over.

    ``was_broken_off``: a worker that leased it has said that its inference server broke it off.
    """

    route = ""
    """The polling route that the client called, as in metrics: only of polled calls."""

    __slots__ = (
        "_channel",
        "_channel_deliveries",
        "_client",
        "_context",
        "_deliveries",
        "_left_s",
        "_max_body_bytes",
        "_plan",
        "_post",
        "_request",
        "_requested_at_ns",
        "_runs",
        "_sent",
        "_upload",
        "_was_dropped",
        "attached_at",
        "bounds",
        "caller",
        "caller_request_id",
        "completion",
        "deadline",
        "deliveries",
        "detached",
        "due_at",
        "has_waited_for_client",
        "head_at",
        "instance",
        "is_direct",
        "leased_at",
        "method",
        "offered_at",
        "outcome",
        "page_access",
        "received_at",
        "request_id",
        "request_token",
        "response_bytes",
        "response_token",
        "slot",
        "source",
        "state",
        "status",
        "target",
        "trace",
        "was_broken_off",
        "worker_s",
    )

    def __init__(  # noqa: PLR0913 - what makes an invocation
        self,
        context: "Context[Invocation]",
        client: ResponseWriter,
        request: Request,
        caller: Caller,
        ticket: Ticket,
        plan: CallPlan | None = None,
        *,
        is_grpc: bool = False,
    ) -> None:
        """``plan`` is what calls with the same head have in common, if it is known.

        ``is_grpc``: the client speaks gRPC. Its body is a stream of messages, which goes on to the
        worker as it comes, and errors are gRPC's.
        """
        self._plan = plan
        self._context = context
        self._client = client
        self._request: Request | None = request
        # A problem document needs the path after the request itself was let go.
        self.target = request.target
        self.caller = caller
        self._upload = Upload(request.body_bytes, context.uploads)
        # An announced length is checked at once: only a body of unknown length can grow too large.
        self._max_body_bytes = (
            smaller_limit(context.max_body_bytes, caller.version.max_body_bytes)
            if request.body_bytes is None
            else 0
        )
        self._left_s: float | None = None
        self._post: WorkerPost | None = None
        # While a worker has the call over a channel: to publish it if that worker is lost.
        self._channel: CallChannel | None = None
        self._sent: _SentCall | None = None
        self._runs = self._deliveries = self._channel_deliveries = 0
        self.is_direct = False
        self._upload.flows = is_grpc
        # That of the last worker which was told to run the request again, or to go on with it.
        self._was_dropped = self.was_broken_off = False
        self.deliveries = 0
        self.method = request.method
        self.source = request.source
        self.trace = self.caller_request_id = self.instance = b""
        self.request_id, self._requested_at_ns = ticket
        self.response_token = self.detached = ""
        self.request_token: str | None = None
        self.state = RECEIVING
        self.outcome: Outcome | None = None
        self.page_access: PageAccess | None = None
        self.status = 0
        self.received_at = request.received_at
        self.offered_at = request.received_at
        self.leased_at = self.attached_at = self.head_at = 0.0
        self.worker_s = -1.0
        self.has_waited_for_client = False
        self.response_bytes = 0
        bounds = caller.bounds
        self.bounds = None if bounds is None else PhaseBounds(bounds, self.request_id)
        self.deadline = head_deadline(request.received_at, caller.poll_s)
        self.due_at: float | None = None
        self.slot = -1

    def __repr__(self) -> str:
        outcome = f" {self.outcome.value}" if self.outcome is not None else ""
        return f"<Invocation {self.request_id} {self.state.name}{outcome}>"

    @property
    def run_token(self) -> str:
        """The token with which workers ask whether to run it."""
        return self.response_token

    @property
    def is_grpc(self) -> bool:
        """Whether the client speaks gRPC."""
        return self._upload.flows

    @property
    def version(self) -> FunctionVersion:
        return self.caller.version

    @property
    def poll_s(self) -> int:
        """The caller's poll window in seconds."""
        return self.caller.poll_s

    @property
    def account(self) -> str:
        return self.caller.account

    @property
    def request_bytes(self) -> int:
        """Bytes of the request body that have arrived."""
        return self._upload.arrived_bytes

    # The client

    def body_too_large(self, max_bytes: int) -> None:
        """The announced length of the request's body is above ``max_bytes``."""
        if self.state is not RECEIVING:
            raise impossible(self.state, Event.BODY_TOO_LARGE)
        self._fail(BodyTooLarge.above(max_bytes), Outcome.BAD_REQUEST)

    def request_data(self, data: bytes) -> None:
        """The next bytes of the request body arrived."""
        if self.state is DONE:
            return
        upload = self._upload
        is_held = not upload.add(data)
        if self._max_body_bytes and upload.arrived_bytes > self._max_body_bytes:
            self._refuse_body()
        elif self.state is RECEIVING:
            if upload.is_collectable():
                upload.collect(self)
            if upload.is_ready():
                self._publish()
            elif upload.is_behind():
                self._client.pause_reading()
        elif is_held:
            # No worker fetches the body yet: what the client sends must stay in its socket.
            self._client.pause_reading()

    def first_part_end(self) -> None:
        """All that came with the head is delivered; the body, of unknown length, goes on."""
        if self.state is RECEIVING and not self._upload.is_collected():
            self._publish()

    def request_trailers(self, trailers: Headers) -> None:
        """The request's trailers are dropped: an envelope has no place for them."""

    def request_end(self) -> None:
        """The request is complete."""
        self._upload.finish()
        if self.state is RECEIVING:
            if self._upload.is_ready():
                self._publish()
        elif self._left_s is not None:
            self._wait_for_worker()

    def request_broken(self) -> None:
        """The client left, or its connection broke."""
        self.cancelled(Outcome.CLIENT_GONE)

    def cancelled(self, outcome: Outcome = Outcome.CANCELLED) -> None:
        """Nobody wants the response of a detached call any more, or it cannot be kept."""
        if self.state is DONE:
            return
        if self.head_at == 0.0:
            self.status = CLIENT_GONE_STATUS
        self._withdraw()
        self._finish(outcome)

    def pause_writing(self) -> None:
        """The client reads slower than the worker writes."""
        if self._post is not None and self.state is STREAMING:
            self._post.pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self.state is STREAMING and self._post is not None:
            self._post.resume_reading()
        elif self.state is ENDING:
            self._end()

    def _publish(self) -> None:
        request, context = self._request, self._context
        if request is None:
            raise AssertionError("published twice")
        upload = self._upload
        first_part = upload.take_first_part()
        if request.body_bytes != 0:
            self._open_window(context.clock() - self.received_at)
        try:
            fields = self._fields(request)
        except EnvelopeError as error:
            self._fail(BadRequest(str(error)), Outcome.BAD_REQUEST)
            return
        head = fields + source_headers(self.source)
        # An invocation may wait for an hour: it must not hold the whole head for so long.
        self._request = None
        has_rest = upload.has_rest()
        if has_rest:
            self._client.pause_reading()
        if self.bounds is not None:
            self.bounds.offered(self.offered_at)
            context.registry.bounded(self.bounds)
        if not self._send(head, first_part, has_rest=has_rest):
            self._enqueue(head, first_part, has_rest=has_rest)

    def _fields(self, request: Request) -> bytes:
        """Return the envelope's fields that depend on the head alone. Raises `EnvelopeError`."""
        plan = self._plan
        if plan is not None and plan.fields:
            self.trace, self.caller_request_id = plan.trace, plan.caller_request_id
            return plan.fields
        caller = self.caller
        self.trace, self.caller_request_id = correlation_of(request)
        fields = encode_call_head(
            nca_id=caller.account,
            subject=caller.subject,
            method=request.method,
            path=request.target,
            headers=self._envelope_headers(request),
        )
        if plan is not None:
            plan.trace, plan.caller_request_id = self.trace, self.caller_request_id
            plan.fields = fields
        return fields

    def _envelope_headers(self, request: Request) -> Headers:
        """Return the request's headers as the envelope has them."""
        caller = self.caller
        headers = request_headers(
            request.headers,
            self._context.region,
            allows_rerun=caller.version.allows_rerun,
            passes_interim=caller.version.passes_interim,
        )
        if self.is_grpc:
            # The window is that of its deadline.
            headers = [header for header in headers if header[0] != NVCF_POLL_SECONDS]
            headers.append((NVCF_POLL_SECONDS, b"%d" % caller.poll_s))
        if self.bounds is not None and self.bounds.run_s is not None:
            headers.append((NVCF_RUN_SECONDS, b"%d" % self.bounds.run_s))
        return headers

    def _send(self, head: bytes, first_part: bytes, *, has_rest: bool) -> bool:
        """Send the call to a worker with a free slot, if nobody is in front of it."""
        context, version = self._context, self.caller.version
        version_id, channels = version.version_id, context.channels
        if (
            channels is None
            or not channels.has_free(version_id, version.capacity)
            or context.queue.has_waiting(version_id)
        ):
            return False
        channel = channels.send(
            self, version_id, self._requested_at_ns, head, first_part, has_rest=has_rest
        )
        if channel is None:
            return False
        self.state = SENT
        self.is_direct = True
        self._channel, self._sent = channel, (channel.sent, head, first_part, has_rest)
        self.instance = channel.instance
        if self.bounds is not None:
            # A worker gets the call at this moment.
            self.bounds.runs(context.clock())
            context.registry.bounded(self.bounds)
        return True

    def _enqueue(self, head: bytes, first_part: bytes, *, has_rest: bool) -> None:
        """Publish the call."""
        context, version_id = self._context, self.caller.version.version_id
        registry, channels = context.registry, context.channels
        self.is_direct = False
        self.response_token = registry.issue_response_token(self.request_id)
        if has_rest:
            self.request_token = registry.issue_request_token(self.request_id)
        try:
            envelope = encode_envelope(
                head,
                request_id=self.request_id,
                requested_at_ns=self._requested_at_ns,
                body=first_part,
                target_uri=context.attach_uri,
                response_token=self.response_token,
                request_token=self.request_token,
                channel_token=""
                if channels is None
                else channels.token(self.request_id, version_id),
            )
        except EnvelopeError as error:
            self._fail(BadRequest(str(error)), Outcome.BAD_REQUEST)
            return
        self.state = QUEUED
        # For good: it may wait for an hour, and a thousand others with it.
        self._requested_at_ns = 0
        context.queue.publish(
            version_id, self.request_id, envelope, self, self.trace, runs=self._runs
        )

    def _open_window(self, late_s: float) -> None:
        """Let the poll window begin now, ``late_s`` after the head: the body took so long."""
        if late_s < _AT_ONCE_S:
            return
        self.offered_at += late_s
        self._requested_at_ns += int(late_s * 1e9)
        latest = end_deadline(self.received_at)
        self.deadline = min(head_deadline(self.offered_at, self.caller.poll_s), latest)
        self.due_at = self.deadline

    def _refuse_body(self) -> None:
        """Fail because the body, of unknown length, has become larger than it may be."""
        self._withdraw()
        if self.head_at == 0.0:
            self._fail(BodyTooLarge.above(self._max_body_bytes), Outcome.BAD_REQUEST)
        else:
            self._break(Outcome.BAD_REQUEST)

    # The file that takes a long body while it is collected

    def spool_written(self, *, is_written: bool) -> None:
        """A write has ended; if it failed, the call is offered with what was collected so far."""
        upload = self._upload
        upload.spool_written(is_written=is_written)
        if self.state is RECEIVING:
            if upload.is_ready():
                self._publish()
            elif not upload.is_behind():
                self._client.resume_reading()

    def spool_read(self, data: bytes) -> None:
        """A read has ended; ``data`` is empty if it failed, and the worker's GET breaks off."""
        self._upload.spool_read(data)
        self._flow()

    # The queue

    def publish_failed(self, error: QueueError) -> None:
        """The queue did not take the request, or lost it, or is gone."""
        # Once a worker is attached, the queue's loss does not matter: the response is on its way.
        if self.state is QUEUED or self.state is RECEIVING or self.state is SENT:
            if self.state is SENT:
                # Not because of the queue: its version is not deployed any more.
                self._withdraw()
            is_full = isinstance(error, QueueFull)
            self._fail(error, Outcome.QUEUE_FULL if is_full else Outcome.QUEUE_UNAVAILABLE)

    def undeliverable(self) -> None:
        """Every allowed delivery was used up."""
        if self.state is QUEUED:
            self._fail(WorkerLost("No worker completed the request"), Outcome.WORKER_LOST)

    # A channel

    def leased(self, instance: bytes, now: float) -> None:
        """A worker says that it has leased the call; ``instance`` is the id of its instance."""
        if self.state is QUEUED:
            self.leased_at = now
            self.instance = instance

    def handed_back(self, *, was_run: bool, was_sent: bool) -> None:
        """The worker that had the call over a channel does not complete it: it goes to the queue.

        ``was_run``: the worker was lost, and may have run it, which counts as a run. ``was_sent``:
        an inference server may have got it, and the next one that breaks off is the last.
        """
        if self.state is not SENT:
            # Its POST is open, and tells what becomes of the call.
            self._channel = None
            return
        sent = self._sent
        self._channel = self._sent = None
        self.instance = b""
        if sent is None:
            raise AssertionError("handed back what was not sent")
        _, head, first_part, _ = sent
        if was_run:
            self._runs += 1
        if was_sent:
            self.deliveries = self._channel_deliveries = 1
            head += NEVER_AGAIN
        if self._upload.is_lost():
            self._fail_without_rest()
        else:
            self._waits_again()
            self._enqueue(head, first_part, has_rest=self._upload.has_rest())

    def responded(  # noqa: PLR0913 - what a channel brings of one response
        self,
        head: InnerHead,
        encoded: EncodedHead | None,
        body: bytes,
        now: float,
        worker_s: float,
        instance: bytes,
        completion: Outcome,
        trailers: Headers = NO_TRAILERS,
    ) -> None:
        """The worker's whole response came over a channel.

        ``encoded`` is the head as every client gets it, if that is known. The other arguments are
        as in `attached` and `response_head`.
        """
        if self.state is not SENT and self.state is not QUEUED:
            return
        self._channel = None
        self._take(now, worker_s, instance)
        self.completion = completion
        self.response_bytes = len(body)
        status, announced = head.status, head.body_bytes
        if trailers:
            announced = None
        elif announced is None and not (self.method == b"HEAD" or status in BODILESS_STATUSES):
            announced = len(body)
        if encoded is None or self.page_access is not None:
            self.state = ENDING
            self._respond(status, head.headers, announced, now)
            if self.state is ENDING and body:
                self._client.send_data(body)
            if trailers:
                self._client.add_trailers(trailers)
            if self.state is ENDING and not self._client.is_writing_paused():
                self._end()
            return
        self.status = status
        self.head_at = now
        if not self.is_direct:
            self._context.queue.answered(self.request_id)
        self._sent = None
        self.state = DONE
        self.outcome = completion
        # The client first: it waits, and the bookkeeping takes as long as the rest of the turn.
        lines = id_lines(encoded, self.request_id)
        self._client.send_whole(encoded, lines, announced, body, trailers)
        self._upload.abort()
        self._context.registry.finished(self.request_id)

    # A worker that got the request again

    def run_requested(self, deliveries: int, *, is_running: bool) -> RunDecision:
        """A worker asks whether to run the request, or to go on with it.

        ``deliveries`` counts those of the queue, this worker's included. Nothing is run again once
        the client has the response head.
        """
        if self.state is not QUEUED and self.state is not ATTACHED:
            return RunDecision.NEVER
        queue = self._context.queue
        if is_running:
            if deliveries < self._deliveries:
                return RunDecision.NEVER
            self._count_deliveries(deliveries)
            queue.started(self.request_id)
            return RunDecision.RUN
        if self.state is ATTACHED:
            return RunDecision.LATER
        if self._upload.is_lost():
            self._fail_without_rest()
            return RunDecision.NEVER
        decision = queue.may_run(self.request_id, deliveries)
        if decision is RunDecision.RUN:
            self._count_deliveries(deliveries)
            # It is another worker than the last one, and does not say which.
            self.instance = b""
        return decision

    def _count_deliveries(self, deliveries: int) -> None:
        """Take the queue's count of deliveries; one over a channel came before."""
        if deliveries > self._deliveries:
            self.leased_at = self._context.clock()
        self._deliveries = deliveries
        self.deliveries = self._channel_deliveries + deliveries

    def dropped_late(self, deliveries: int) -> None:
        """A worker dropped a delivery of the request, because it would be late.

        If it was the first one, it took the request out of the queue, and nobody else has it. Its
        report may come after another worker was told to run the request, or has attached.
        """
        is_only_one = deliveries == 1 and not self._deliveries and self.attached_at == 0.0
        if self.state is SENT or (self.state is QUEUED and is_only_one):
            self._channel = self._sent = None
            self._was_dropped = True
            self._expire()

    # The worker's GET: the rest of the request body

    def rest_requested(self, get: WorkerGet) -> bool:
        """A worker asks for the rest of the body. Return False if it cannot have it.

        A second GET while no POST is open means that the queue delivered the request again, so the
        worker which made the first is lost. It gets a body that was collected as a whole from the
        beginning; of another one, what the first worker got is not kept.
        """
        if self.state is RECEIVING or self.state is DONE:
            raise impossible(self.state, Event.REST_REQUESTED)
        upload = self._upload
        if self.state is EXPIRED:
            return False
        if upload.was_handed_out:
            if self.state is not QUEUED:
                return False
            if upload.is_lost():
                self._fail_without_rest()
                return False
        upload.attach(get.accept(upload.rest_bytes()))
        if self.head_at:
            self._forget_channel()
        self._flow()
        return True

    def rest_pause_writing(self) -> None:
        """The worker reads the body slower than the client sends it."""
        if self.state is not DONE:
            self._upload.pause()
            self._client.pause_reading()
            self._wait_for_worker()

    def rest_resume_writing(self) -> None:
        """The worker has caught up."""
        if self.state is not DONE:
            self._upload.resume()
            self._flow()

    def rest_broken(self) -> None:
        """The worker's GET is over: it needs no more of the body, or it died.

        Its death shows on its POST, or as the end of its lease.
        """
        self._upload.detach()
        self._wait_for_worker()

    def _flow(self) -> None:
        """Read the client if a worker waits for its body: for so long the window stands still."""
        if self.state is DONE or not self._upload.is_flowing():
            return
        if self._left_s is None:
            self._left_s = self.deadline - self._context.clock()
            self.has_waited_for_client = True
        self._client.resume_reading()

    def _wait_for_worker(self) -> None:
        """Let the poll window go on: no worker waits for the client any more."""
        left_s, self._left_s = self._left_s, None
        if left_s is not None and self.head_at == 0.0:
            latest = end_deadline(self.received_at)
            self.deadline = self.due_at = min(self._context.clock() + left_s, latest)

    # The worker's POST: the response

    def attached(
        self, post: WorkerPost, now: float, worker_s: float, instance: bytes = b""
    ) -> None:
        """A worker opened its POST; ``worker_s`` is its lease's age, -1 if it does not say.

        ``instance`` is the id of its instance, empty if it does not say.
        """
        if self.state is not QUEUED and self.state is not SENT:
            raise impossible(self.state, Event.ATTACHED)
        self.state = ATTACHED
        self._take(now, worker_s, instance)
        self.completion = Outcome.ANSWERED
        self._post = post

    def _take(self, now: float, worker_s: float, instance: bytes) -> None:
        """Remember which worker responds."""
        self.attached_at = now
        self.worker_s = worker_s
        self.instance = instance
        if not self._deliveries:
            self.deliveries += 1
        if self.bounds is not None and not self.is_direct:
            self.bounds.runs(now - max(worker_s, 0.0))
            self._context.registry.bounded(self.bounds)

    def response_interim(self, status: int, headers: Headers) -> None:
        """The worker sends an interim response (1xx), which is no response head.

        It is dropped unless the function version passes such on. The poll window runs on, and the
        request may be run again as before.
        """
        if self.state is ATTACHED:
            if self.version.passes_interim:
                kept = outer_headers(
                    forwardable_interim(headers), self.source, self.version.inference_port
                )
                self._client.send_interim(status, kept)
        elif self.state is not DONE:
            raise impossible(self.state, Event.RESPONSE_INTERIM)

    def response_head(
        self,
        status: int,
        headers: Headers,
        announced_bytes: int | None,
        post_bytes: int | None,
        now: float,
    ) -> None:
        """The worker's response head is complete and valid.

        ``announced_bytes`` is the head's own content-length, ``post_bytes`` how many bytes of the
        POST follow the head; ``None`` for what is not known.
        """
        if self.state is not ATTACHED:
            raise impossible(self.state, Event.RESPONSE_HEAD)
        body_bytes = announced_bytes
        if body_bytes is None and not (self.method == b"HEAD" or status in BODILESS_STATUSES):
            # The length of the POST gives the client a content-length in place of chunks.
            body_bytes = post_bytes
        self._leave_channel()
        self.state = STREAMING
        self._respond(status, headers, body_bytes, now)

    def _leave_channel(self) -> None:
        """The response has begun by POST attach: only a GET may still need the channel."""
        if self._sent is not None:
            number, _, _, owes_rest = self._sent
            self._sent = number, b"", b"", owes_rest
            if not owes_rest or self._upload.was_handed_out:
                self._forget_channel()

    def _forget_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None and self._sent is not None:
            channel.forget(self._sent[0])

    def _respond(self, status: int, headers: Headers, body_bytes: int | None, now: float) -> None:
        """Send the response head to the client."""
        self.status = status
        self.head_at = now
        if not self.is_direct:
            # The queue must not fail the request any more: its client is getting a response.
            self._context.queue.answered(self.request_id)
        elif self._channel is None:
            self._sent = None
        self._upload.respond()
        if self._post is not None and self.version.passes_interim:
            self._pause_if_slow(self._post)
        headers = outer_headers(headers, self.source, self.version.inference_port)
        headers = with_platform_headers(headers, status, self.request_id)
        if self.page_access is not None:
            headers = self.page_access.of_forwarded(status, headers)
        self._client.send_head(status, headers, body_bytes)

    def _pause_if_slow(self, post: WorkerPost) -> None:
        """Pause ``post`` if the interim responses before its head were too much for the client."""
        if self._client.is_writing_paused():
            post.pause_reading()

    def response_data(self, data: bytes) -> None:
        """The next bytes of the response, forwarded as they are: SSE events pass here."""
        if self.state is STREAMING:
            self.response_bytes += len(data)
            self._client.send_data(data)
        elif self.state is not DONE:
            raise impossible(self.state, Event.RESPONSE_DATA)

    def response_chunk(self, chunk: bytes, size: int) -> None:
        """The next ``size`` bytes of the response are one chunk: an event, usually."""
        if self.state is STREAMING:
            self.response_bytes += size
            self._client.send_chunk(chunk, size)
        elif self.state is not DONE:
            raise impossible(self.state, Event.RESPONSE_CHUNK)

    def response_end(self, trailers: Headers = NO_TRAILERS) -> None:
        """The worker has sent the whole response, which ends with ``trailers``."""
        if self.state is STREAMING:
            self.state = ENDING
            if trailers:
                self._client.add_trailers(trailers)
            # The worker's 200 frees its slot, so it must wait until the client has read enough.
            if not self._client.is_writing_paused():
                self._end()
        elif self.state is not DONE:
            raise impossible(self.state, Event.RESPONSE_END)

    def response_broken(self) -> None:
        """The POST broke: back to the queue, or a visibly broken stream."""
        if self.state is ATTACHED and self.is_direct:
            self._post = None
            self.state = SENT
            if self._channel is None:
                self.handed_back(was_run=True, was_sent=True)
        elif self.state is ATTACHED:
            self._post = None
            if self._upload.is_lost():
                self._fail_without_rest()
            else:
                self.state = QUEUED
                self._waits_again()
                self._context.registry.renew_response_token(self.request_id)
        elif self.state is STREAMING:
            self._post = None
            self._break(Outcome.WORKER_LOST)
        elif self.state is not ENDING and self.state is not DONE:
            raise impossible(self.state, Event.RESPONSE_BROKEN)

    def response_invalid(self, status: int, detail: str) -> None:
        """The worker did not send a valid response head; ``status`` is for the worker.

        The request is not delivered again: the function would run twice for the same result.
        """
        if self.state is not ATTACHED:
            raise impossible(self.state, Event.RESPONSE_INVALID)
        post, self._post = self._post, None
        if post is not None:
            post.refuse(status, detail)
        self._withdraw()
        self._fail(WorkerLost(f"The worker's response is invalid: {detail}"), Outcome.WORKER_LOST)

    # A worker that is asked for the response to a polled call

    def poll_failed(self, number: int) -> None:
        """No worker took question ``number``. Only polled calls ask."""

    # Time and the process

    def deadline_passed(self, now: float, retry_after_s: int) -> None:
        """``deadline`` has passed; ``retry_after_s`` is when a client may try again."""
        if self.state is DONE or self.state is EXPIRED or now < self.deadline:
            # It may have moved since it passed.
            return
        latest = end_deadline(self.received_at)
        if self._is_uploading():
            if now >= latest:
                self._withdraw()
                self._fail(UploadTimeout(), Outcome.TOO_LONG)
                return
            left_s = self.caller.poll_s if self._left_s is None else self._left_s
            # The window stands still: this is only when to look again. Its end cannot come before,
            # but for `_LOOK_AGAIN_S`: the timers notice no deadline that has become earlier.
            self.deadline = min(now + max(left_s, _LOOK_AGAIN_S), latest)
        elif self.state is QUEUED:
            self._expire()
        elif self.head_at == 0.0:
            self._withdraw()
            error = PollTimeout.of(self.caller.poll_s, _WITH_WORKER, retry_after_s)
            self._fail(error, Outcome.POLL_TIMEOUT)
        elif now >= latest:
            self._break(Outcome.TOO_LONG)
        else:
            # Set only now, because most invocations are over before their first deadline.
            self.deadline = latest

    def bound_passed(self, now: float) -> None:
        """The time that ``Cancel-After`` allows for the phase, or for the whole call, is over."""
        bounds = self.bounds
        if bounds is None or self.state in {DONE, EXPIRED, RECEIVING} or now < bounds.ends_at:
            return
        if self.state is QUEUED and not bounds.is_running:
            if bounds.is_whole_over(now):
                bounds.has_ended = True
                self._expire()
            else:
                # A worker may have it.
                self._context.registry.wait_over(self.request_id)
        elif self.head_at:
            self._break(Outcome.RUN_TIMEOUT)
        else:
            self._withdraw()
            self._fail(bounds.run_error(now), Outcome.RUN_TIMEOUT)

    def lease_known(self, position: int | None, now: float) -> None:
        """A queued call whose wait is over has this position; `None`: that is not known."""
        bounds = self.bounds
        if bounds is None or self.state is not QUEUED or now < bounds.ends_at:
            return
        if position:
            bounds.has_ended = True
            self._expire()
            return
        if position is None:
            bounds.is_unknown(now)
        else:
            # Its worker knows since when, and ends it.
            bounds.runs(now)
        self._context.registry.bounded(bounds)

    def _waits_again(self) -> None:
        """The worker that had the call does not complete it."""
        self.leased_at = 0.0
        if self.bounds is not None:
            self.bounds.waits(self._context.clock())
            self._context.registry.bounded(self.bounds)

    def _expire(self) -> None:
        self.state = EXPIRED
        self._context.registry.expired(self.request_id)

    def _is_uploading(self) -> bool:
        """Return whether the response head waits for what the client sends of its body."""
        return self.head_at == 0.0 and (self.state is RECEIVING or self._left_s is not None)

    def position_known(self, position: int | None, retry_after_s: int) -> None:
        """The request, now withdrawn, had this position; 0: a worker has it, None: not known."""
        if self.state is EXPIRED:
            if self.bounds is not None and self.bounds.has_ended:
                self._fail_bounded(self.bounds, position, retry_after_s)
                return
            where = _TOO_LATE if self._was_dropped else _where(position)
            error = PollTimeout.of(self.caller.poll_s, where, retry_after_s)
            if position:
                error.headers.append((NVCF_QUEUE_POSITION, b"%d" % position))
            self._fail(error, Outcome.POLL_TIMEOUT)

    def _fail_bounded(self, bounds: PhaseBounds, position: int | None, retry_after_s: int) -> None:
        """Fail because the wait, or the call as a whole, took as long as its client allows."""
        if position == 0 and bounds.is_whole_over(bounds.ends_at):
            self._fail(bounds.run_error(bounds.ends_at), Outcome.RUN_TIMEOUT)
            return
        error = bounds.queue_error(retry_after_s)
        if position:
            error.headers.append((NVCF_QUEUE_POSITION, b"%d" % position))
        self._fail(error, Outcome.QUEUE_TIMEOUT)

    def shut_down(self) -> None:
        """The process stops: its drain is over."""
        if self.state is DONE:
            return
        if self.head_at == 0.0:
            self._withdraw()
            self._fail(Draining("The gateway process is stopping"), Outcome.DRAINED)
        else:
            self._break(Outcome.DRAINED)

    def _fail_without_rest(self) -> None:
        """Fail because the worker that had the rest of the body is lost, and the rest with it."""
        self._withdraw()
        error = WorkerLost("The worker broke off with part of the request body")
        self._fail(error, Outcome.WORKER_LOST)

    def _withdraw(self) -> None:
        """Take the request out of the queue and tell workers to stop, if it can be there."""
        channel, self._channel = self._channel, None
        if channel is not None and self._sent is not None:
            channel.cancel(self._sent[0])
        elif self.state is QUEUED or (self.state is ATTACHED and not self.is_direct):
            self._context.queue.withdraw(self.caller.version.version_id, self.request_id)

    def _end(self) -> None:
        self.state = DONE
        self.outcome = self.completion
        self._forget_channel()
        post, self._post = self._post, None
        # The client first: it waits, and the bookkeeping takes as long as the rest of the turn.
        self._client.send_end()
        self._upload.abort()
        self._context.registry.finished(self.request_id)
        if post is not None:
            post.release()

    def _fail(self, error: GatewayError | QueueError, outcome: Outcome) -> None:
        """Respond with a problem document; only before the response head."""
        if self.is_grpc:
            self._fail_grpc(error, outcome)
            return
        status, headers, body = problem_for(
            error, instance_of(self.target), self.request_id, id_header=False
        )
        self.status = status
        self.response_bytes = len(body)
        self._finish(outcome)
        headers = with_platform_headers(headers, status, self.request_id)
        if self.page_access is not None:
            headers = self.page_access.of_own_response(headers)
        self._client.send_head(status, headers, len(body))
        self._client.send_data(body)
        self._client.send_end()

    def _fail_grpc(self, error: GatewayError | QueueError, outcome: Outcome) -> None:
        self.status, headers = grpc_error_for(error)
        self._finish(outcome)
        self._client.send_head(200, with_platform_headers(headers, 200, self.request_id), 0)
        self._client.send_end()

    def _break(self, outcome: Outcome) -> None:
        """End the response so that the client sees a broken stream; only after its head."""
        self._finish(outcome)
        if self.is_grpc:
            self._client.add_trailers(encode_error(*_BROKEN[outcome]))
            self._client.send_end()
        else:
            self._client.abort()

    def _finish(self, outcome: Outcome) -> None:
        self.state = DONE
        self.outcome = outcome
        self._forget_channel()
        if self._request is not None:
            self.trace, self.caller_request_id = correlation_of(self._request)
            self._request = None
        post, self._post = self._post, None
        self._upload.abort()
        self._context.registry.finished(self.request_id)
        if post is not None:
            post.release()
