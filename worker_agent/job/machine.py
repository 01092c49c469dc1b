"""One job as a state machine: the table in `worker_agent.job.states`, carried out.

Pure: no I/O, no clock, no task. Each public method reports one event; time comes as an argument.
Effects are calls on ports. Set the state first and call ports last: a write may call
`pause_writing` before it returns, so an event can arrive inside an effect.
"""

from math import inf

from http1.stream import NO_TRAILERS, Defect, Failure, Headers, RequestWriter
from queueing.interface import Lease
from wire.decoded_envelope import Envelope
from wire.headers import NVCF_FAULT, forwardable, forwardable_interim, forwardable_trailers
from wire.http1 import (
    BODILESS_STATUSES,
    MAX_INNER_HEAD_BYTES,
    MAX_INNER_HEADERS,
    MAX_INTERIM_BYTES,
    MAX_INTERIM_HEADS,
    encode_lines,
    encode_response_head,
    parse_trailers,
)
from worker_agent.job.context import Context, Post, Rest
from worker_agent.job.failures import (
    INTERNAL,
    RUN_TIMEOUT,
    Fault,
    fault_of,
    grpc_response,
    grpc_trailers,
    problem_response,
)
from worker_agent.job.locations import with_outer_locations
from worker_agent.job.modes import Mode
from worker_agent.job.request import (
    Outgoing,
    RequestError,
    build_request,
    is_grpc_call,
    is_rerunnable,
)
from worker_agent.job.states import (
    DELIVERING,
    DONE,
    FORWARDING,
    OPENING,
    STREAMING,
    Event,
    Outcome,
    State,
    impossible,
)
from worker_agent.job.websocket import NOT_FROM_SERVER, SWITCHING, Upgrade, agreed_headers

_MAX_KNOWN_HEADS = 64
_MAX_KNOWN_HEAD_BYTES = 4096
_known_heads: dict[int, tuple[Headers, int, int | None, bytes]] = {}
"""Heads by the identity of their headers: those that repeat are parsed once, so they are shared
(`http1.client.response_head.read_head`)."""
_known_trailers: dict[int, tuple[Headers, bytes]] = {}
"""The same for trailers."""
MAX_TRAILER_BYTES = 16_000
"""The most trailers of a response: with what the agent adds, gateways take 16,384 bytes."""
_LARGE_TRAILERS = Defect("trailers", "The trailers are larger than 16,000 bytes")
_UNACCEPTABLE = Defect("unacceptable_head", "No gateway accepts the head")


UNRUN_AGAIN_S = 1.0
"""A request that is run once and was not begun is delivered again after this time: its gateway is
told meanwhile."""


class Job:
    """One leased request; the `worker_agent.job.context.InferenceCallbacks` of its request.

    ``leased_at``, ``sent_at`` (when the inference server last got the request), ``head_at`` (when
    the head of a streamed response came), ``body_at`` (when a body that the agent fetched had been
    passed on) and ``freed_at`` (when the inference server was done) are loop time in seconds, 0.0
    until they are known. ``fetches_body``: a part of the body comes from the gateway. ``left_s`` is
    what was left of the poll window at the lease, infinite if that is not known. ``response`` is
    the whole inner response while it is being delivered, empty when it was streamed, and
    ``trailers`` are the header lines of its trailers. ``status`` is
    the response's, 0 before its head; ``fault`` says what failed, if the response is a problem
    document of this agent. ``response_bytes`` counts the body from the inference server. ``defect``
    is what made its response invalid. ``is_polled``: the client was told to ask again, and only
    this job has its response.
    """

    __slots__ = (
        "_context",
        "_holds_slot",
        "_inference",
        "_interim_bytes",
        "_interim_left",
        "_is_broken_off",
        "_is_last_run",
        "_is_lease_ended",
        "_is_posted",
        "_is_redelivered",
        "_is_retried",
        "_is_unsized",
        "_post",
        "_request",
        "_rest",
        "_rest_left",
        "_start_by",
        "body_at",
        "defect",
        "envelope",
        "fault",
        "fetches_body",
        "freed_at",
        "head_at",
        "is_polled",
        "lease",
        "leased_at",
        "left_s",
        "outcome",
        "request_id",
        "response",
        "response_bytes",
        "sent_at",
        "state",
        "status",
        "trailers",
    )

    def __init__(
        self,
        context: "Context[Job]",
        lease: Lease,
        envelope: Envelope,
        leased_at: float,
        *,
        is_last_run: bool = False,
    ) -> None:
        """``is_last_run``: if the inference server breaks it off, nobody runs it again."""
        self._context = context
        self._inference: RequestWriter | None = None
        self._post: Post | None = None
        self._rest: Rest | None = None
        self._rest_left: int | None = 0
        self._request: Outgoing | None = None
        self._holds_slot = True
        self._is_broken_off = self._is_unsized = self.is_polled = False
        self._is_last_run = is_last_run
        self._is_lease_ended = False
        self._is_posted = False
        self._interim_left = MAX_INTERIM_HEADS
        self._interim_bytes = 0
        self.fault = b""
        self._is_retried = False
        self._is_redelivered = False
        self.lease = lease
        self.envelope = envelope
        self.leased_at = leased_at
        self.sent_at = self.body_at = self.head_at = self.freed_at = self._start_by = 0.0
        self.fetches_body = False
        self.left_s = inf
        self.request_id = envelope.request_id
        self.state = OPENING
        self.status = 0
        self.response_bytes = 0
        self.response = self.trailers = b""
        self.outcome: Outcome | None = None
        self.defect: Defect | None = None

    def __repr__(self) -> str:
        outcome = f" {self.outcome.name.lower()}" if self.outcome is not None else ""
        return f"<Job {self.request_id} {self.state.name}{outcome}>"

    def begin(self, now_ns: int) -> None:
        """Send the request to the inference server; ``now_ns`` is Unix time in nanoseconds."""
        if self.state is not OPENING:
            raise impossible(self.state, Event.BEGIN)
        try:
            request = self._request = build_request(
                self.envelope, self._context.platform_headers, now_ns
            )
        except RequestError:
            self._fail(INTERNAL)
            return
        if request.mode and self._context.special is not None:
            self._context = self._context.special(self, request)
            if request.mode is Mode.COMPAT:
                self._begin_compat(request)
                return
        gate, leased_at = self._context.gate, self.leased_at
        if self.envelope.requested_at_ns and (not request.has_rest or self.lease.deliveries == 1):
            # Otherwise the end of the window is not known, because it stands still while a worker
            # waits for the client's body: then only the gateway's withdrawal counts.
            self.left_s = left_s = request.left_s
            offset = gate.offset
            if request.window_s - left_s < offset.youngest_s:
                offset.saw_age(request.window_s - left_s)
        slack_s = gate.slack_s(self.left_s, request.window_s, leased_at, self.lease.followers)
        if slack_s is None:
            self._finish(Outcome.LATE)
            return
        self._start_by = leased_at + slack_s
        if request.run_s:
            self._bound_run(request)
        # A body that flows through cannot be sent twice, so it must not meet a stale connection.
        self._context.inference.open(request, self, is_fresh=request.has_rest)

    def _begin_compat(self, request: Outgoing) -> None:
        """Start whatever its window, unless it is over: the client can be told to ask again."""
        is_dated = self.envelope.requested_at_ns > 0
        if is_dated and request.left_s + self._context.gate.offset.seconds < 0.0:
            self._fail(INTERNAL)
            return
        self._start_by = inf
        if request.run_s:
            self._bound_run(request)
        self._context.inference.open(request, self, is_fresh=request.has_rest)

    def _bound_run(self, request: Outgoing) -> None:
        self._context.registry.bounded(self.request_id, self.leased_at + request.run_s)

    # The inference server

    def failed(self, fault: Fault) -> None:
        """What the request or its response needs beside the inference server cannot be had."""
        if self.state is OPENING or self.state is FORWARDING:
            self._fail(fault)

    def may_send(self, now: float) -> bool:
        """Return whether the request is still to be sent, now that a connection is open.

        It can have been cancelled before. If its window ends too soon, it ends here.
        """
        request = self._request
        if self.state is not OPENING or request is None:
            return False
        if self.lease.is_over() and not self.is_polled:
            return False
        if now <= self._start_by or self._is_in_time(request, now):
            return True
        self._finish(Outcome.LATE)
        return False

    def sent(self, writer: RequestWriter, now: float) -> None:
        """The head and the envelope's part of the body were written at ``now``."""
        request = self._request
        if self.state is not OPENING or request is None:
            raise impossible(self.state, Event.SENT)
        self.state = FORWARDING
        self._inference = writer
        self.sent_at = now
        if request.has_rest and request.upgrade is None:
            self.fetches_body = True
            # It stands still while the gateway waits for the client's bytes.
            self.left_s = inf
            # Only now: the gateway hands the rest out once, and a connection had to be found first.
            announced = request.body_bytes
            self._rest_left = None if announced is None else announced - len(request.body)
            self._rest = self._context.attach.fetch(self)

    def sent_again(self, writer: RequestWriter | None) -> None:
        """Another request for the response was written.

        `None`: the one before has ended, and there is no response to pass on yet.
        """
        if self.state is FORWARDING:
            self._inference = writer
        else:
            self._check_late(Event.SENT_AGAIN, FORWARDING)

    def unreachable(self) -> None:
        """No connection to the inference server could be opened."""
        if self.state is not OPENING:
            return
        if self.is_polled:
            self._fail(fault_of(Failure.UNREACHABLE))
        else:
            self._finish(Outcome.HANDED_BACK)

    def response_interim(self, status: int, headers: Headers) -> None:
        """An interim response has come, and the client is to get it.

        What is more than a gateway takes is dropped.
        """
        if self.state is not FORWARDING:
            self._check_late(Event.RESPONSE_INTERIM, FORWARDING)
            return
        kept = with_outer_locations(
            forwardable_interim(headers), self.envelope, self._context.platform_headers
        )
        head = encode_response_head(status, kept, b"")
        interim_bytes = self._interim_bytes + len(head)
        is_too_much = interim_bytes > MAX_INTERIM_BYTES or len(kept) > MAX_INNER_HEADERS
        if not self._interim_left or is_too_much:
            return
        self._interim_left -= 1
        self._interim_bytes = interim_bytes
        if self._post is None:
            self._post = self._context.attach.stream(self, head, None)
        else:
            self._post.send_data(head)

    def response_whole(
        self, status: int, headers: Headers, body_bytes: int | None, body: bytes
    ) -> None:
        """The inference server's response arrived at once."""
        if self.state is not FORWARDING:
            self._check_late(Event.RESPONSE_WHOLE, FORWARDING)
            return
        inference, self._inference = self._inference, None
        if inference is not None and inference.trailers:
            self.trailers = _trailer_lines(inference.trailers)
            if len(self.trailers) > MAX_TRAILER_BYTES:
                self._fail_invalid(_LARGE_TRAILERS)
                return
        headers = with_outer_locations(headers, self.envelope, self._context.platform_headers)
        length = len(body) if body else body_bytes
        # Trailers come after chunks, which have no announced length.
        head = inner_head(status, headers, None if self.trailers else length)
        if head is None:
            self._fail_invalid(_UNACCEPTABLE)
            return
        self.status = status
        self.response_bytes = len(body)
        self.response = head + body
        self._deliver()

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """The response's head is complete; its body follows."""
        if self.state is not FORWARDING or self._request is None:
            self._check_late(Event.RESPONSE_HEAD, FORWARDING)
            return
        if status == SWITCHING and self._request.upgrade is not None:
            self._open_tunnel(self._request.upgrade, headers)
            return
        headers = with_outer_locations(headers, self.envelope, self._context.platform_headers)
        head = inner_head(status, headers, body_bytes)
        if head is None:
            self._fail_invalid(_UNACCEPTABLE)
            return
        self.state = STREAMING
        self.status = status
        total_bytes: int | None = len(head)
        if not self._request.is_head and status not in BODILESS_STATUSES:
            total_bytes = None if body_bytes is None else len(head) + body_bytes
        self._is_unsized = total_bytes is None
        self._context.registry.responding(self.request_id)
        if body_bytes is None and self._inference is not None:
            self._inference.pass_chunks(self.response_chunk)
        if self._post is None:
            self._post = self._context.attach.stream(self, head, total_bytes)
            return
        self._post.send_data(head)
        if self._is_posted:
            self._end_lease()

    def _open_tunnel(self, upgrade: Upgrade, headers: Headers) -> None:
        """The inference server has agreed to a WebSocket: let bytes pass in both directions."""
        agreed = agreed_headers(upgrade, headers)
        if isinstance(agreed, Defect):
            self._fail_invalid(agreed)
            return
        head = _encoded_head(200, agreed, b"")
        if head is None:
            self._fail_invalid(_UNACCEPTABLE)
            return
        self.state = STREAMING
        self.status = SWITCHING
        self._context.registry.responding(self.request_id)
        self._rest_left = None
        self._rest = self._context.attach.fetch(self)
        if self._post is None:
            self._post = self._context.attach.stream(self, head, None)
            return
        self._post.send_data(head)
        if self._is_posted:
            self._end_lease()

    def response_data(self, data: bytes) -> None:
        """The next bytes of the response, forwarded as they are: SSE events pass here."""
        if self._post is not None and self.state is STREAMING:
            self.response_bytes += len(data)
            self._post.send_data(data)
        else:
            self._check_late(Event.RESPONSE_DATA, STREAMING)

    def response_chunk(self, chunk: bytes, size: int) -> None:
        """The next ``size`` bytes of the response are one chunk: an event, usually."""
        if self._post is not None and self.state is STREAMING:
            self.response_bytes += size
            self._post.send_chunk(chunk, size)
        else:
            self._check_late(Event.RESPONSE_CHUNK, STREAMING)

    def response_end(self) -> None:
        """The response is complete."""
        if self.state is not STREAMING:
            self._check_late(Event.RESPONSE_END, STREAMING)
            return
        inference, self._inference = self._inference, None
        trailers = NO_TRAILERS if inference is None else inference.trailers
        if trailers and len(_trailer_lines(trailers)) > MAX_TRAILER_BYTES:
            self._break_off(fault_of(Failure.INVALID, _LARGE_TRAILERS))
            return
        self.state = DELIVERING
        post, self._post = self._post, None
        self._end_upload()
        if post is not None:
            post.send_end(forwardable_trailers(trailers) if trailers else trailers)
        self._leave()

    def response_broken(
        self, failure: Failure, *, is_stale: bool, defect: Defect | None = None
    ) -> None:
        """The connection to the inference server broke, or brings what is not HTTP."""
        if failure is Failure.INVALID:
            self.defect = defect
        else:
            self._inference = None
        if self.state is FORWARDING:
            request = self._request
            if request is None:
                raise AssertionError("a response to no request")
            if self.lease.is_over() and not self.is_polled:
                self._finish(Outcome.LAPSED)
                return
            if is_stale and not self._is_retried and self._rest is None:
                # The server closed an idle connection just before the request: it has seen none
                # of it, so the function does not run twice.
                self._is_retried = True
                self.state = OPENING
                self._context.inference.open(request, self, is_fresh=True)
                return
            if failure is not Failure.INVALID:
                self._context.inference.broke()
                is_last = self._is_last_run or self.is_polled
                if not is_last and is_rerunnable(self.envelope):
                    self._finish(Outcome.HANDED_BACK)
                    return
            self._fail(fault_of(failure, defect))
        elif self.state is STREAMING:
            self._break_off(fault_of(failure, defect))
        else:
            self._check_late(Event.RESPONSE_BROKEN, FORWARDING)

    def discarded(self) -> None:
        """The inference server is done with the request that the job left."""
        self._check_late(Event.DISCARDED, DELIVERING)
        self._free()

    def pause_writing(self) -> None:
        """The inference server reads the request slower than the client sends it."""
        if self._rest is not None:
            self._rest.pause_reading()

    def resume_writing(self) -> None:
        """The inference server has caught up."""
        if self._rest is not None:
            self._rest.resume_reading()

    # The gateway: the rest of the request body

    def rest_data(self, data: bytes) -> None:
        """The next bytes of the request's body."""
        if self._rest is None or self._inference is None:
            return
        left = self._rest_left
        if left is not None:
            self._rest_left = left = left - len(data)
            if left < 0:
                # More than the announced length would start another request (RFC 9112 §11.2).
                self.rest_broken()
                return
        self._inference.send_data(data)

    def rest_end(self) -> None:
        """The request's body is complete."""
        if self._rest is None or self._inference is None:
            return
        if self._rest_left:
            self.rest_broken()
            return
        self._rest = None
        self._context.registry.uploaded(self.request_id)
        self._inference.send_end()

    def rest_broken(self) -> None:
        """The rest of the body cannot be fetched: its sender left, or the gateway refused."""
        if self._rest is None:
            return
        if self.state is STREAMING:
            self._break_off(INTERNAL)
        elif self.lease.is_over() and not self.is_polled:
            # Another worker may have it by now, and the rest with it.
            self._finish(Outcome.LAPSED)
        else:
            self._fail(INTERNAL)

    # The gateway: the response

    def post_pause_writing(self) -> None:
        """The gateway reads slower than the inference server writes."""
        if self._inference is not None:
            self._inference.pause_reading()

    def post_resume_writing(self) -> None:
        """The gateway has caught up."""
        if self._inference is not None:
            self._inference.resume_reading()

    def posted(self) -> None:
        """What waited for the POST was written.

        If the response head was, nobody else may run this from now on.
        """
        if self.state is FORWARDING:
            self._is_posted = True
        else:
            self._check_late(Event.POSTED, FORWARDING)
            self._end_lease()
            if self._is_broken_off and self.state is STREAMING:
                self._finish(Outcome.FAILED)

    def postponed(self) -> None:
        """The client was told to ask again: nobody else may run this from now on."""
        self.is_polled = True

    def post_answered(self, status: int) -> None:
        """The gateway responded to the POST; before its end this means that no client waits."""
        if self.state is DELIVERING:
            if status != 200:
                self._finish(Outcome.UNWANTED)
            else:
                self._finish(Outcome.FAILED if self.fault else Outcome.ANSWERED)
        elif self.state is STREAMING or self.state is FORWARDING:
            self._finish(Outcome.UNWANTED)
        else:
            self._check_late(Event.POST_ANSWERED, FORWARDING)

    def post_broken(self, *, is_unread: bool = False) -> None:
        """The connection to the gateway broke, or could not be opened.

        ``is_unread``: the gateway had announced that it would not read the POST.
        """
        if self.state is DELIVERING and self.response and (is_unread or not self._is_redelivered):
            # Harmless even if the first POST arrived: its token admits one response head.
            self._is_redelivered = self._is_redelivered or not is_unread
            self._context.attach.deliver(self)
        elif self.state is DELIVERING or self.state is STREAMING:
            self._finish(Outcome.UNDELIVERED)
        elif self.state is FORWARDING:
            # The response gets a POST of its own. No more interim ones are worth one.
            self._post = None
            self._is_posted = False
            self._interim_left = 0
            self.post_resume_writing()
        else:
            self._check_late(Event.POST_BROKEN, FORWARDING)

    # The queue and the agent

    def leased_again(self, lease: Lease) -> None:
        """The queue has delivered the request again, to this agent: its first lease ran out."""
        if self._is_lease_ended:
            # The broker has lost the acknowledgement.
            lease.ack()
        else:
            self.lease = lease

    def lapse(self) -> None:
        """The lease may have ended, and another worker may have the request."""
        if (self.state is OPENING or self.state is FORWARDING) and not self.is_polled:
            self._finish(Outcome.LAPSED)

    def run_ended(self) -> None:
        """The run has taken as long as its client allows."""
        if self.state is not OPENING and self.state is not FORWARDING:
            return
        if self.lease.is_over() and not self.is_polled:
            self._finish(Outcome.LAPSED)
        else:
            self._fail(RUN_TIMEOUT)

    def cancel(self) -> None:
        """The gateway withdrew the request."""
        if self.state is not DONE:
            self._finish(Outcome.CANCELLED)

    def abandon(self) -> None:
        """The agent stops now: end the lease of a request without a response with a nak."""
        if self.state is not DONE:
            # The gateway knows whether another worker can have what was fetched of the body.
            is_begun = self.state > FORWARDING or self.is_polled
            self._finish(Outcome.FAILED if is_begun else Outcome.HANDED_BACK)

    def _is_in_time(self, request: Outgoing, now: float) -> bool:
        """Return whether the window leaves time for the function, and until when it does."""
        left_s = self.left_s - (now - self.leased_at)
        slack_s = self._context.gate.slack_s(left_s, request.window_s, now, self.lease.followers)
        if slack_s is None:
            return False
        self._start_by = now + slack_s
        return True

    def _check_late(self, event: Event, first: State) -> None:
        """Raise if the job has not reached ``first`` yet; in later states ``event`` is ignored."""
        if self.state < first:
            raise impossible(self.state, event)

    def _fail(self, fault: Fault) -> None:
        """Deliver a problem document; only before a response head."""
        self.fault = fault.word
        self.status = fault.status
        self.trailers = b""
        if is_grpc_call(self.envelope):
            self.response = grpc_response(fault)
        else:
            self.response = problem_response(fault, self.request_id)
        self._deliver()

    def _fail_invalid(self, defect: Defect) -> None:
        self.defect = defect
        self._fail(fault_of(Failure.INVALID, defect))

    def _deliver(self) -> None:
        self.state = DELIVERING
        self._end_upload()
        post, self._post = self._post, None
        if post is None:
            self._context.attach.deliver(self)
        else:
            post.send_data(self.response)
            # The POST's own head, which would say so, is sent.
            post.send_end(
                [(NVCF_FAULT, self.fault)] if self.fault else parse_trailers(self.trailers)
            )
        if self._inference is None:
            self._free()
        else:
            self._leave()

    def _break_off(self, fault: Fault) -> None:
        """Let the client see a broken response, once the gateway has what came of it.

        Before that it would take the request for one that has no response, and run it again. A
        client of gRPC is told in trailers, for which there is a place if no length is announced.
        """
        post = self._post
        if post is not None and self._is_unsized and is_grpc_call(self.envelope):
            self.fault = fault.word
            self.state = DELIVERING
            self._post = None
            self._end_upload()
            post.send_end(grpc_trailers(fault))
            self._leave()
        elif self._is_lease_ended:
            self._finish(Outcome.FAILED)
        else:
            self._is_broken_off = True

    def _end_lease(self) -> None:
        if not self._is_lease_ended:
            self._is_lease_ended = True
            self.lease.ack()

    def _leave(self) -> None:
        """Give the slot back; at once, unless the inference server still works on the request."""
        inference, self._inference = self._inference, None
        if inference is None:
            self._free()
        elif self.status == SWITCHING:
            # There is nothing to wait for: no request on which the server could be working.
            inference.end()
            self._free()
        else:
            self._context.inference.discard(inference, self)

    def _free(self) -> None:
        if self._holds_slot:
            self._holds_slot = False
            self._context.registry.freed(self)

    def _end_upload(self) -> None:
        self._request = None
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.close()

    def _finish(self, outcome: Outcome) -> None:
        was_running = self.state is not DELIVERING
        self.state = DONE
        self.outcome = outcome
        post, self._post = self._post, None
        if post is not None:
            post.abort()
        if self._request is not None:
            self._end_upload()
        self.response = self.trailers = b""
        is_lease_ended, self._is_lease_ended = self._is_lease_ended, True
        if outcome is Outcome.HANDED_BACK:
            self.lease.nak(UNRUN_AGAIN_S if self.envelope.head.is_run_once else 0.0)
        elif not is_lease_ended and outcome is not Outcome.LAPSED:
            self.lease.ack()
        if was_running:
            self._leave()
        self._context.registry.finished(self.request_id)


def _trailer_lines(trailers: Headers) -> bytes:
    """Return the lines of what may be passed on of trailers."""
    known = _known_trailers.get(id(trailers))
    if known is not None and known[0] is trailers:
        return known[1]
    lines = encode_lines(forwardable_trailers(trailers))
    if len(lines) <= _MAX_KNOWN_HEAD_BYTES:
        if len(_known_trailers) >= _MAX_KNOWN_HEADS:
            _known_trailers.clear()
        _known_trailers[id(trailers)] = trailers, lines
    return lines


def inner_head(status: int, headers: Headers, body_bytes: int | None) -> bytes | None:
    """Return the head as the gateway's POST carries it, ``None`` if the gateway would refuse it."""
    known = _known_heads.get(id(headers))
    if known is not None and known[0] is headers and known[1] == status and known[2] == body_bytes:
        return known[3]
    if not 200 <= status <= 599:
        return None
    framing = b"" if body_bytes is None else b"content-length: %d\r\n" % body_bytes
    head = _encoded_head(status, forwardable(headers, NOT_FROM_SERVER), framing)
    if head is None:
        return None
    if len(head) <= _MAX_KNOWN_HEAD_BYTES:
        if len(_known_heads) >= _MAX_KNOWN_HEADS:
            _known_heads.clear()
        _known_heads[id(headers)] = headers, status, body_bytes, head
    return head


def _encoded_head(status: int, headers: Headers, framing: bytes) -> bytes | None:
    """Return an inner head with these headers, ``None`` if it is larger than one may be."""
    if len(headers) >= MAX_INNER_HEADERS:
        return None
    head = encode_response_head(status, headers, framing)
    return head if len(head) <= MAX_INNER_HEAD_BYTES else None
