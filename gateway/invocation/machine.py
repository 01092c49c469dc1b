"""The life of one invocation, from state to state (`gateway.invocation.state`).

A POST that breaks in ATTACHED goes back to QUEUED, because the queue may deliver the request again:
no response byte reached the client. Not so once a worker was handed the rest of the body. A break
in STREAMING ends the client's stream so that it is seen as broken.

Pure: no I/O, no clock of its own, no task. Each public method is one event, effects are calls on
ports: state first, port last, because a write may call `pause_writing` before it returns. Events from
outside race (deadline, client gone, worker gone, refused) and are accepted in every state; the
worker's own events are impossible out of order and say so.
"""

from gateway.domain.model import FunctionVersion
from gateway.errors import (
    BadRequest,
    Draining,
    GatewayError,
    PollTimeout,
    WorkerLost,
    problem_for,
)
from gateway.invocation.caller import Caller
from gateway.invocation.deadlines import answer_by, over_by
from gateway.invocation.headers import request_headers, trace_of, with_platform_headers
from gateway.invocation.outcome import Outcome
from gateway.invocation.ports import WorkerPost
from gateway.invocation.site import Site
from gateway.invocation.state import (
    ATTACHED,
    DONE,
    ENDING,
    QUEUED,
    RECEIVING,
    STREAMING,
    State,
)
from gateway.invocation.upload import Upload
from http1.stream import Headers, Request, ResponseWriter
from queueing.interface import QueueError, QueueFull
from wire.envelope import EnvelopeError, encode_envelope
from wire.headers import NVCF_QUEUE_POSITION
from wire.problem import instance_of

_BODILESS = (204, 304)
CLIENT_GONE_STATUS = 499
"""Counted, never sent: the client left before its response head."""


class Invocation:
    """One client's request on its way to a worker and back.

    Is a `http1.stream.RequestStream` towards the client and a `queueing.interface.Waiting` towards
    the queue. ``deadline`` is when `deadline_passed` is to be called, ``due_at`` and ``slot`` are
    for the timers that see to it. Times are of the monotonic clock, in s, 0.0 until they are known;
    ``worker_s`` is how long the worker had held its lease when it attached, -1 if it does not say.
    """

    __slots__ = (
        "_caller",
        "_client",
        "_post",
        "_request",
        "_site",
        "_target",
        "_upload",
        "attached_at",
        "deadline",
        "due_at",
        "head_at",
        "method",
        "outcome",
        "received_at",
        "request_id",
        "request_token",
        "response_bytes",
        "response_token",
        "slot",
        "state",
        "status",
        "worker_s",
    )

    def __init__(
        self,
        site: Site,
        client: ResponseWriter,
        request: Request,
        caller: Caller,
        *,
        request_id: str,
        tokens: tuple[str, str],
    ) -> None:
        """``tokens`` are the single-use tokens for the response and for the rest of the body."""
        self._site = site
        self._client = client
        self._request: Request | None = request
        # Outlives the request for the sake of a problem; no copy.
        self._target = request.target
        self._caller = caller
        self._upload = Upload(request.body_bytes)
        self._post: WorkerPost | None = None
        self.method = request.method
        self.request_id = request_id
        self.response_token, self.request_token = tokens
        self.state = RECEIVING
        self.outcome: Outcome | None = None
        self.status = 0
        self.received_at = request.received_at
        self.attached_at = 0.0
        self.head_at = 0.0
        self.worker_s = -1.0
        self.response_bytes = 0
        self.deadline = answer_by(request.received_at, caller.poll_s)
        self.due_at: float | None = None
        self.slot = -1

    @property
    def version(self) -> FunctionVersion:
        return self._caller.version

    @property
    def account(self) -> str:
        return self._caller.account

    @property
    def request_bytes(self) -> int:
        return self._upload.arrived_bytes

    # The client's side

    def request_data(self, data: bytes) -> None:
        """Next bytes of the request."""
        if self.state is DONE:
            return
        upload = self._upload
        if not upload.add(data):
            if self.state is RECEIVING:
                if upload.is_enough():
                    self._publish()
            else:
                self._client.pause_reading()

    def first_part_end(self) -> None:
        """A body of unknown length goes on beyond what has come."""
        if self.state is RECEIVING:
            self._publish()

    def request_end(self) -> None:
        """The request is complete."""
        self._upload.finish()
        if self.state is RECEIVING:
            self._publish()

    def request_broken(self) -> None:
        """The client left."""
        if self.state is DONE:
            return
        if self.head_at == 0.0:
            self.status = CLIENT_GONE_STATUS
        self._withdraw()
        self._finish(Outcome.CLIENT_GONE)

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
        request, caller, site = self._request, self._caller, self._site
        if request is None:
            raise AssertionError("published twice")
        upload = self._upload
        first_part = upload.take_first_part()
        has_rest = upload.has_rest()
        headers = request_headers(request.headers, site.region)
        try:
            envelope = encode_envelope(
                request_id=self.request_id,
                nca_id=caller.account,
                subject=caller.subject,
                requested_at_ns=site.wall_ns(),
                method=request.method,
                path=request.target,
                headers=headers,
                body=first_part,
                target_uri=site.target_uri,
                response_token=self.response_token,
                request_token=self.request_token if has_rest else None,
            )
        except EnvelopeError as error:
            self._fail(BadRequest(str(error)), Outcome.BAD_REQUEST)
            return
        self.state = QUEUED
        self._request = None
        if has_rest:
            self._client.pause_reading()
        site.queue.publish(
            caller.version.version_id, self.request_id, envelope, self, trace_of(headers)
        )

    # The queue's side

    def published(self, sequence: int) -> None:
        """The queue holds it; the position is the queue's to know."""

    def refused(self, error: QueueError) -> None:
        """It is not in the queue, or was lost from it before a worker answered."""
        if self.state is QUEUED:
            is_full = isinstance(error, QueueFull)
            self._fail(error, Outcome.QUEUE_FULL if is_full else Outcome.QUEUE_UNAVAILABLE)

    def exhausted(self) -> None:
        """Every allowed delivery was used up."""
        if self.state is QUEUED:
            self._fail(WorkerLost("No worker completed the request"), Outcome.WORKER_LOST)

    # The worker's side

    def attached(self, post: WorkerPost, now: float, worker_s: float) -> None:
        """A worker opened its POST; ``worker_s`` is its lease's age, -1 when it does not say."""
        self._expect(QUEUED)
        self.state = ATTACHED
        self.attached_at = now
        self.worker_s = worker_s
        self._post = post

    def send_rest(self, sink: ResponseWriter) -> bool:
        """A worker asks for the rest of the body by GET attach.

        False when it was handed out before: if no worker is attached, the first is lost with it.
        """
        if self._upload.was_handed_out:
            if self.state is QUEUED:
                self._rest_lost()
            return False
        sink.send_head(
            200, [(b"content-type", b"application/octet-stream")], self._upload.rest_bytes()
        )
        self._upload.attach(sink)
        self._client.resume_reading()
        return True

    def rest_pause_writing(self) -> None:
        """The worker reads slower than the client writes."""
        if self.state is not DONE:
            self._client.pause_reading()

    def rest_resume_writing(self) -> None:
        """The worker has caught up."""
        if self.state is not DONE:
            self._client.resume_reading()

    def rest_broken(self) -> None:
        """The worker's GET is over: it needs no more of the body, or its death shows elsewhere."""
        self._upload.detach()

    def response_head(
        self, status: int, headers: Headers, announced_bytes: int | None, post_bytes: int | None
    ) -> None:
        """The worker's response head is complete and valid.

        ``announced_bytes`` is the head's own content-length, ``post_bytes`` the length of what the
        POST still carries; ``None`` for what is not known.
        """
        self._expect(ATTACHED)
        body_bytes = announced_bytes
        if body_bytes is None and not (self.method == b"HEAD" or status in _BODILESS):
            body_bytes = post_bytes
        self.state = STREAMING
        self.status = status
        self.head_at = self._site.clock()
        self._site.queue.settled(self.request_id)
        self._client.send_head(
            status, with_platform_headers(headers, status, self.request_id), body_bytes
        )

    def response_data(self, data: bytes) -> None:
        """Next bytes of the response, forwarded as they are."""
        if self.state is STREAMING:
            self.response_bytes += len(data)
            self._client.send_data(data)

    def response_end(self) -> None:
        """The worker has sent everything."""
        if self.state is STREAMING:
            self.state = ENDING
            if not self._client.is_writing_paused():
                self._end()

    def response_broken(self) -> None:
        """The POST broke: back to the queue, or a visibly broken stream."""
        if self.state is ATTACHED:
            self._post = None
            if self._upload.was_handed_out:
                self._rest_lost()
            else:
                self.state = QUEUED
                self._site.desk.rearm(self)
        elif self.state is STREAMING:
            self._post = None
            self._break(Outcome.WORKER_LOST)

    def worker_failed(self, status: int, detail: str) -> None:
        """What the worker sent is no response; its token is used up, so the client is answered."""
        self._expect(ATTACHED)
        post, self._post = self._post, None
        if post is not None:
            post.refuse(status, detail)
        self._withdraw()
        self._fail(WorkerLost(f"The worker's response is invalid: {detail}"), Outcome.WORKER_LOST)

    # Time and the process

    def deadline_passed(self, now: float, position: int | None = None) -> None:
        """``deadline`` has come; ``position`` is the place in line, if it still has one."""
        if self.state is DONE:
            return
        if self.head_at == 0.0:
            self._withdraw()
            error = PollTimeout("No response within the poll window")
            if position is not None:
                error.headers.append((NVCF_QUEUE_POSITION, b"%d" % position))
            self._fail(error, Outcome.POLL_TIMEOUT)
        elif now >= over_by(self.received_at):
            self._break(Outcome.TOO_LONG)
        else:
            self.deadline = over_by(self.received_at)

    def shut_down(self) -> None:
        """The process's drain is over."""
        if self.state is DONE:
            return
        if self.head_at == 0.0:
            self._withdraw()
            self._fail(Draining("The gateway process is stopping"), Outcome.DRAINED)
        else:
            self._break(Outcome.DRAINED)

    def _rest_lost(self) -> None:
        self._withdraw()
        error = WorkerLost("The worker broke off with part of the request body")
        self._fail(error, Outcome.WORKER_LOST)

    def _withdraw(self) -> None:
        if self.state is QUEUED or self.state is ATTACHED:
            self._site.queue.withdraw(self._caller.version.version_id, self.request_id)

    def _end(self) -> None:
        self.state = DONE
        self.outcome = Outcome.ANSWERED
        post, self._post = self._post, None
        # The client first: it waits, and the bookkeeping takes as long as the rest of the turn.
        self._client.send_end()
        self._upload.break_off()
        self._site.desk.finished(self)
        if post is not None:
            post.taken()

    def _fail(self, error: GatewayError | QueueError, outcome: Outcome) -> None:
        """Answer with a problem; only before the response head."""
        status, headers, body = problem_for(
            error, instance_of(self._target), self.request_id, id_header=False
        )
        self.status = status
        self.response_bytes = len(body)
        self._finish(outcome)
        self._client.send_head(
            status, with_platform_headers(headers, status, self.request_id), len(body)
        )
        self._client.send_data(body)
        self._client.send_end()

    def _break(self, outcome: Outcome) -> None:
        self._finish(outcome)
        self._client.abort()

    def _finish(self, outcome: Outcome) -> None:
        self.state = DONE
        self.outcome = outcome
        self._request = None
        post, self._post = self._post, None
        self._upload.break_off()
        self._site.desk.finished(self)
        if post is not None:
            post.dismiss()

    def _expect(self, state: State) -> None:
        if self.state is not state:
            raise AssertionError(f"event for {state.name} in {self.state.name}")
