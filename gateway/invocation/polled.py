"""An invocation whose worker may take several responses to complete it (`docs/wire.md` §24.3).

A call over NVCF's polling routes goes to the inference path of its version, in the mode in which
NVCF's worker rewrites responses. A 202 of the worker is not its response: it says how far the call
has come, and the worker is asked for the response at once, by an envelope that it gets on a subject
of the request. So the result is here as soon as it exists, whether a client polls or not. Its
events and states are those of `gateway.invocation.states`.
"""

from typing import NamedTuple, Protocol

from gateway.errors import PollTimeout, WorkerLost, WorkerSilent
from gateway.invocation.context import Context, Ticket, WorkerPost
from gateway.invocation.headers import correlation_of, polled_headers, source_headers
from gateway.invocation.machine import Invocation
from gateway.invocation.states import (
    ATTACHED,
    DONE,
    PENDING,
    QUEUED,
    SENT,
    Event,
    Outcome,
    end_deadline,
    head_deadline,
    impossible,
)
from gateway.routing.admission import Caller
from http1.stream import NO_TRAILERS, EncodedHead, Headers, Request, ResponseWriter
from queueing.interface import RunDecision
from wire.deadlines import RESPONSE_GRACE_S
from wire.envelope import encode_call_head, encode_envelope
from wire.headers import CONTENT_TYPE, NVCF_PERCENT_COMPLETE
from wire.http1 import InnerHead, chunk_data

POLL_S = 60
"""The window of each question to a worker: by its end it responds, with 202 if need be.

So a worker that is lost is noticed within about that time, if nothing else tells of it.
"""
MAX_PARTIAL_BYTES = 32_768
"""Largest body of a 202 that is kept for clients; of a larger one only the percentage is."""
_RESPONSE_S = POLL_S + RESPONSE_GRACE_S + 8.0
"""Time from a question to the worker's POST; then the worker counts as lost."""
_BODY_S = 30.0
"""Time in which the body of a 202 has to be complete."""
_QUICK_S = 0.5
"""A 202 that comes so soon after its question makes the next one wait, ever longer."""
_FIRST_PAUSE_S = 0.05
_MAX_PAUSE_S = 1.0
_WITH_WORKER = "a worker had not completed it"
_MAX_PERCENT_DIGITS = 3


class CallProgress(NamedTuple):
    """How far a call has come: per cent, if known, and a body with its content type, if any."""

    percent: int | None = None
    content_type: bytes = b""
    body: bytes = b""


class ProgressWriter(ResponseWriter, Protocol):
    """The client of a polled call."""

    def show_progress(self, progress: CallProgress) -> None:
        """The worker has told how far the call has come."""


class PolledInvocation(Invocation):
    """One call over the polling routes.

    ``more_fields`` are further encoded fields of its envelope (`wire.envelope`).
    """

    __slots__ = (
        "_asked_at",
        "_look_at",
        "_more_fields",
        "_partial",
        "_partial_type",
        "_percent",
        "_poll_head",
        "_polls",
        "_quick",
        "_run_token",
        "_ticket_ns",
        "_viewer",
        "_was_asked",
        "route",
    )

    def __init__(
        self,
        context: Context[Invocation],
        client: ProgressWriter,
        request: Request,
        caller: Caller,
        ticket: Ticket,
        more_fields: bytes = b"",
    ) -> None:
        super().__init__(context, client, request, caller, ticket)
        self.route = ""
        self._viewer = client
        self._more_fields = more_fields
        self._ticket_ns = ticket.requested_at_ns
        self._poll_head = b""
        self._partial: bytearray | None = None
        self._partial_type = b""
        self._percent: int | None = None
        self._polls = self._quick = 0
        self._asked_at = self._look_at = 0.0
        self._was_asked = False
        self._run_token = ""

    @property
    def run_token(self) -> str:
        """The token of its envelope in the queue: each question to a worker has another one."""
        return self._run_token or self.response_token

    # The envelope

    def _envelope_headers(self, request: Request) -> Headers:
        return polled_headers(
            request.headers,
            self._context.region,
            self.caller.poll_s,
            allows_rerun=self.caller.version.allows_rerun,
            run_s=None if self.bounds is None else self.bounds.run_s,
        )

    def _fields(self, request: Request) -> bytes:
        caller = self.caller
        self.trace, self.caller_request_id = correlation_of(request)
        path = caller.version.inference_path.encode()
        asked = polled_headers(
            [header for header in request.headers if not header[0].startswith(b"content-")],
            self._context.region,
            POLL_S,
            allows_rerun=True,
        )
        # The worker asks the inference server again in some modes, as for the same client.
        self._poll_head = encode_call_head(
            nca_id=caller.account, subject=caller.subject, method=b"GET", path=path, headers=asked
        ) + source_headers(self.source)
        fields = encode_call_head(
            nca_id=caller.account,
            subject=caller.subject,
            method=request.method,
            path=path,
            headers=self._envelope_headers(request),
        )
        more, self._more_fields = self._more_fields, b""
        return fields + more

    # A 202, and the questions after it

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
        """The worker's whole response came over a channel; it may be a 202."""
        is_awaited = self.state is PENDING and self._was_asked and self._post is None
        if is_awaited:
            # It is as good as one to the request itself.
            self.state = QUEUED
        if self.state is not SENT and self.state is not QUEUED:
            return
        if head.status != 202:
            super().responded(head, encoded, body, now, worker_s, instance, completion, trailers)
            return
        self._channel = self._sent = None
        self._take(now, worker_s, instance)
        self._begin_partial(head.headers)
        self._add_partial(body)
        self._pend(now)

    def response_head(
        self,
        status: int,
        headers: Headers,
        announced_bytes: int | None,
        post_bytes: int | None,
        now: float,
    ) -> None:
        """The worker's response head is complete; a 202 is none for the client."""
        if status != 202:
            super().response_head(status, headers, announced_bytes, post_bytes, now)
            return
        if self.state is not ATTACHED:
            raise impossible(self.state, Event.RESPONSE_HEAD)
        self._leave_channel()
        self.state = PENDING
        self._begin_partial(headers)
        self._was_asked = True
        self._look(now, now + _BODY_S)

    def response_data(self, data: bytes) -> None:
        """The next bytes of the response, or of a 202."""
        if self.state is PENDING:
            self._add_partial(data)
        else:
            super().response_data(data)

    def response_chunk(self, chunk: bytes, size: int) -> None:
        """The next ``size`` bytes of the response, or of a 202, are one chunk."""
        if self.state is PENDING:
            self._add_partial(chunk_data(chunk, size))
        else:
            super().response_chunk(chunk, size)

    def response_end(self, trailers: Headers = NO_TRAILERS) -> None:
        """The worker has sent the whole response, or a whole 202."""
        if self.state is not PENDING:
            super().response_end(trailers)
            return
        post, self._post = self._post, None
        self._pend(self._context.clock())
        if post is not None:
            post.release()

    def response_broken(self) -> None:
        """The POST broke. After the first 202 the worker is asked again: it may still be there."""
        if self.state is PENDING or (self.state is ATTACHED and self._polls):
            self._post = None
            self._partial = None
            self._pend(self._context.clock())
        else:
            super().response_broken()

    def attached(
        self, post: WorkerPost, now: float, worker_s: float, instance: bytes = b""
    ) -> None:
        """A worker opened its POST, perhaps because it was asked for the response."""
        if self.state is not PENDING:
            super().attached(post, now, worker_s, instance)
            return
        self.state = ATTACHED
        self.completion = Outcome.ANSWERED
        before, self._post = self._post, post
        self.deadline = self._final_deadline()
        if before is not None:
            before.release()

    def poll_failed(self, number: int) -> None:
        """No worker took question ``number``: the one that had the call is lost."""
        if self.state is PENDING and self._post is None and number == self._polls:
            self._withdraw()
            self._fail(WorkerSilent(), Outcome.WORKER_LOST)

    def undeliverable(self) -> None:
        """Every allowed delivery was used up."""
        if self.state is PENDING:
            self._fail_lost()
        else:
            super().undeliverable()

    def run_requested(self, deliveries: int, *, is_running: bool) -> RunDecision:
        """A worker asks whether to run the request, or to go on with it."""
        if not self._polls and self.state is not PENDING:
            return super().run_requested(deliveries, is_running=is_running)
        if self.state is DONE or self.head_at:
            return RunDecision.NEVER
        if is_running:
            if deliveries < self._deliveries:
                return RunDecision.NEVER
            self._count_deliveries(deliveries)
            self._context.queue.started(self.request_id)
            return RunDecision.RUN
        if self.state is PENDING:
            # The queue has delivered it again, so the worker that sent the 202 is lost.
            self._fail_lost()
        return RunDecision.NEVER

    def deadline_passed(self, now: float, retry_after_s: int) -> None:
        """``deadline`` has passed: a question is due, a worker is silent, or the time is over."""
        if self.state is not PENDING:
            super().deadline_passed(now, retry_after_s)
        elif now >= self._final_deadline():
            self._withdraw()
            error = PollTimeout.of(self.caller.poll_s, _WITH_WORKER, retry_after_s)
            self._fail(error, Outcome.POLL_TIMEOUT)
        elif now < self._look_at:
            self._look(now, self._look_at)
        elif self._was_asked:
            self._fail_lost()
        else:
            self._ask(now)

    def _begin_partial(self, headers: Headers) -> None:
        values = dict(headers)
        self._percent = percent_of(values.get(NVCF_PERCENT_COMPLETE))
        self._partial_type = values.get(CONTENT_TYPE, b"")
        self._partial = bytearray()

    def _add_partial(self, data: bytes) -> None:
        if self._partial is not None:
            self._partial += data
            if len(self._partial) > MAX_PARTIAL_BYTES:
                self._partial = None

    def _pend(self, now: float) -> None:
        """Tell the client how far the call is, and ask the worker for the response."""
        self.state = PENDING
        self._was_asked = False
        is_quick = self._polls > 0 and now - self._asked_at < _QUICK_S
        self._quick = self._quick + 1 if is_quick else 0
        partial, self._partial = self._partial, None
        progress = CallProgress(self._percent, self._partial_type, bytes(partial or b""))
        if self._quick:
            pause_s = min(_FIRST_PAUSE_S * 2.0 ** min(self._quick, 10), _MAX_PAUSE_S)
            self._look(now, now + pause_s)
        else:
            self._ask(now)
        self._viewer.show_progress(progress)

    def _ask(self, now: float) -> None:
        """Ask the worker for the response."""
        context = self._context
        if not self._polls:
            self._run_token = self.response_token
        self._polls += 1
        self._was_asked = True
        self._asked_at = now
        self._look(now, now + _RESPONSE_S)
        self.response_token = context.registry.issue_poll_token(self.request_id)
        envelope = encode_envelope(
            self._poll_head,
            request_id=self.request_id,
            requested_at_ns=self._ticket_ns + int((now - self.received_at) * 1e9),
            body=b"",
            target_uri=context.attach_uri,
            response_token=self.response_token,
            request_token=None,
        )
        context.registry.poll_worker(self.request_id, self._polls, envelope)

    def _look(self, now: float, at: float) -> None:
        """Let the deadline be at ``at``, or at that of the response if it is earlier."""
        self._look_at = at
        earlier = self.due_at is None or at < self.due_at
        self.deadline = max(min(at, self._final_deadline()), now)
        if earlier:
            self._context.registry.moved_earlier(self.request_id)

    def _final_deadline(self) -> float:
        latest = end_deadline(self.received_at)
        return min(head_deadline(self.offered_at, self.caller.poll_s), latest)

    def _fail_lost(self) -> None:
        self._withdraw()
        self._fail(WorkerLost("The worker that had the request is lost"), Outcome.WORKER_LOST)

    def _withdraw(self) -> None:
        """Take the request out of the queue and tell workers to stop, if it can be there."""
        if self.head_at == 0.0 and (self.state is PENDING or self._polls):
            self._context.queue.withdraw(self.caller.version.version_id, self.request_id)
        else:
            super()._withdraw()


def percent_of(value: bytes | None) -> int | None:
    """Return the percentage in ``Nvcf-Percent-Complete``, `None` if it is none from 0 to 100."""
    if value is None or not value.isdigit() or len(value) > _MAX_PERCENT_DIGITS:
        return None
    percent = int(value)
    return percent if percent <= 100 else None
