"""The life of one leased request inside the agent.

    OPENING     a connection to the inference server is being found
    FORWARDING  the request is on its way or there; no response head yet
    ANSWERING   the response streams to the gateway piece by piece
    DELIVERING  the whole response was handed over; the gateway has not confirmed it
    DONE        over: lease ended, outcome set, nothing is called any more

A response that arrives at once skips ANSWERING. The slot is free as soon as the inference server
has nothing more to do (DELIVERING); the lease is acknowledged when all is over, whatever came of
it, because the gateway's tokens are single-use: a second run could not be delivered.

Pure: no I/O, no clock, no task. Each public method is one event, effects are calls on ports: state
first, port last. The inference server, the gateway and the queue speak independently of one
another, so each event is accepted in every state and means nothing once the job is past it.
"""

from enum import IntEnum

from http1.stream import Failure, Headers
from queueing.interface import Lease
from wire.envelope import Envelope
from wire.headers import forwardable
from wire.http1 import MAX_INNER_HEAD_BYTES, MAX_INNER_HEADERS, encode_response_head
from worker_agent.job.failures import INTERNAL, PROBLEM_STATUS, Fault, fault_of, problem_answer
from worker_agent.job.ports import Attach, Call, Desk, Inference, Outcome, Post, Rest
from worker_agent.job.request import Identity, Outgoing, RequestError, outgoing


class State(IntEnum):
    """Where the job is."""

    OPENING = 1
    FORWARDING = 2
    ANSWERING = 3
    DELIVERING = 4
    DONE = 5


OPENING = State.OPENING
FORWARDING = State.FORWARDING
ANSWERING = State.ANSWERING
DELIVERING = State.DELIVERING
DONE = State.DONE

_BODILESS = frozenset({204, 304})


class Site:
    """Where all jobs of one agent work."""

    __slots__ = ("attach", "desk", "identity", "inference")

    def __init__(
        self, inference: Inference, attach: Attach, desk: Desk, identity: Identity
    ) -> None:
        self.inference = inference
        self.attach = attach
        self.desk = desk
        self.identity = identity


class Job:
    """One leased request: an `ResponseStream` towards the inference server.

    ``leased_at``, ``sent_at`` (when the inference server last got it) and ``freed_at`` (when that
    was done) are loop time in seconds, 0.0 until they are known. ``answer`` is the complete inner
    response while it is being delivered, empty when it was streamed. ``status`` is the response's,
    0 before its head; ``response_bytes`` counts the body that the inference server sent.
    """

    __slots__ = (
        "_call",
        "_is_problem",
        "_is_redelivered",
        "_is_retried",
        "_post",
        "_request",
        "_rest",
        "_rest_left",
        "_site",
        "answer",
        "envelope",
        "freed_at",
        "lease",
        "leased_at",
        "outcome",
        "request_id",
        "response_bytes",
        "sent_at",
        "state",
        "status",
    )

    def __init__(self, site: Site, lease: Lease, envelope: Envelope, leased_at: float) -> None:
        self._site = site
        self._call: Call | None = None
        self._post: Post | None = None
        self._rest: Rest | None = None
        self._rest_left: int | None = 0
        self._request: Outgoing | None = None
        self._is_problem = False
        self._is_retried = False
        self._is_redelivered = False
        self.lease = lease
        self.envelope = envelope
        self.leased_at = leased_at
        self.sent_at = self.freed_at = 0.0
        self.request_id = envelope.request_id
        self.state = OPENING
        self.status = 0
        self.response_bytes = 0
        self.answer = b""
        self.outcome: Outcome | None = None

    def begin(self, now_ns: int) -> None:
        """Start; ``now_ns`` is wall time in nanoseconds."""
        try:
            request = self._request = outgoing(self.envelope, self._site.identity, now_ns)
        except RequestError:
            self._fail(INTERNAL)
            return
        # A body that flows through cannot be sent twice, so it must not meet a stale connection.
        self._site.inference.open(self, is_fresh=request.has_rest)

    # The inference server

    def opened(self, call: Call) -> Outgoing | None:
        """A connection is there. Returns what to send on it, ``None`` if it is no longer wanted."""
        request = self._request
        if self.state is not OPENING or request is None:
            return None
        self.state = FORWARDING
        self._call = call
        return request

    def sent(self) -> None:
        """The head and the envelope's part of the body are on their way."""
        request = self._request
        if self.state is not FORWARDING or request is None or not request.has_rest:
            return
        announced = request.body_bytes
        self._rest_left = None if announced is None else announced - len(request.body)
        self._rest = self._site.attach.fetch(self)

    def unreachable(self) -> None:
        """No connection to the inference server could be had."""
        if self.state is OPENING:
            self._fail(fault_of(Failure.UNREACHABLE))

    def response_whole(
        self, status: int, headers: Headers, body_bytes: int | None, body: bytes
    ) -> None:
        """The inference server's response arrived at once."""
        if self.state is not FORWARDING:
            return
        head = _inner_head(status, headers, len(body) if body else body_bytes)
        if head is None:
            self._refuse()
            return
        self.status = status
        self.response_bytes = len(body)
        self.answer = head + body
        self._deliver()

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """The response's head, body to follow."""
        if self.state is not FORWARDING or self._request is None:
            return
        head = _inner_head(status, headers, body_bytes)
        if head is None:
            self._refuse()
            return
        self.state = ANSWERING
        self.status = status
        total_bytes = len(head)
        if not self._request.is_head and status not in _BODILESS:
            total_bytes = -1 if body_bytes is None else total_bytes + body_bytes
        self._post = self._site.attach.stream(self, head, total_bytes if total_bytes >= 0 else None)

    def response_data(self, data: bytes) -> None:
        """Next bytes of the response."""
        if self._post is not None:
            self.response_bytes += len(data)
            self._post.send_data(data)

    def response_end(self) -> None:
        """The response is complete."""
        if self.state is not ANSWERING:
            return
        self.state = DELIVERING
        self._call = None
        post, self._post = self._post, None
        self._end_upload()
        if post is not None:
            post.send_end()
        self._site.desk.freed(self)

    def response_broken(self, failure: Failure, *, is_stale: bool) -> None:
        """The connection to the inference server broke."""
        self._call = None
        if self.state is FORWARDING:
            if is_stale and not self._is_retried and self._rest is None:
                self._is_retried = True
                self.state = OPENING
                self._site.inference.open(self, is_fresh=True)
            else:
                self._fail(fault_of(failure))
        elif self.state is ANSWERING:
            self._finish(Outcome.FAILED)

    def pause_writing(self) -> None:
        """The inference server reads the request slower than the client sends it."""
        if self._rest is not None:
            self._rest.pause_reading()

    def resume_writing(self) -> None:
        """The inference server has caught up."""
        if self._rest is not None:
            self._rest.resume_reading()

    # The gateway: the rest of the request

    def rest_data(self, data: bytes) -> None:
        """Next bytes of the request's body."""
        if self._rest is None or self._call is None:
            return
        left = self._rest_left
        if left is not None:
            self._rest_left = left = left - len(data)
            if left < 0:
                self.rest_broken()
                return
        self._call.send_data(data)

    def rest_end(self) -> None:
        """The request's body is complete."""
        if self._rest is None or self._call is None:
            return
        if self._rest_left:
            self.rest_broken()
            return
        self._rest = None
        self._call.send_end()

    def rest_broken(self) -> None:
        """The rest of the body cannot be had: its sender left, or the gateway refused."""
        if self._rest is None:
            return
        if self.state is ANSWERING:
            self._finish(Outcome.FAILED)
        else:
            self._fail(INTERNAL)

    # The gateway: the response

    def post_pause_writing(self) -> None:
        """The gateway reads slower than the inference server writes."""
        if self._call is not None:
            self._call.pause_reading()

    def post_resume_writing(self) -> None:
        """The gateway has caught up."""
        if self._call is not None:
            self._call.resume_reading()

    def post_answered(self, status: int) -> None:
        """The gateway answered the POST; before its end this means that nobody waits any more."""
        if self.state is DELIVERING:
            if status != 200:
                self._finish(Outcome.UNWANTED)
            else:
                self._finish(Outcome.FAILED if self._is_problem else Outcome.ANSWERED)
        elif self.state is ANSWERING:
            self._finish(Outcome.UNWANTED)

    def post_broken(self, *, is_unread: bool = False) -> None:
        """The connection to the gateway broke, or could not be had.

        ``is_unread``: the gateway had announced that it would not read the POST.
        """
        if self.state is DELIVERING and self.answer and (is_unread or not self._is_redelivered):
            # Harmless even if the first POST arrived: its token admits one response head.
            self._is_redelivered = self._is_redelivered or not is_unread
            self._site.attach.deliver(self)
        elif self.state is DELIVERING or self.state is ANSWERING:
            self._finish(Outcome.UNDELIVERED)

    # The queue and the agent

    def cancel(self) -> None:
        """The gateway withdrew the request."""
        if self.state is not DONE:
            self._finish(Outcome.CANCELLED)

    def abandon(self) -> None:
        """The agent must stop now: without an answer yet, the request is another worker's."""
        if self.state is not DONE:
            is_begun = self.state > FORWARDING or self._rest is not None
            self._finish(Outcome.FAILED if is_begun else Outcome.HANDED_BACK)

    def _refuse(self) -> None:
        """The response cannot be passed on as it is."""
        self._fail(fault_of(Failure.INVALID))

    def _fail(self, fault: Fault) -> None:
        """Deliver a problem document; only before a response head."""
        call, self._call = self._call, None
        if call is not None:
            call.close()
        self._is_problem = True
        self.status = PROBLEM_STATUS
        self.answer = problem_answer(fault, self.request_id)
        self._deliver()

    def _deliver(self) -> None:
        self.state = DELIVERING
        self._call = None
        self._end_upload()
        self._site.attach.deliver(self)
        self._site.desk.freed(self)

    def _end_upload(self) -> None:
        self._request = None
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.close()

    def _finish(self, outcome: Outcome) -> None:
        was_running = self.state is not DELIVERING
        self.state = DONE
        self.outcome = outcome
        call, self._call = self._call, None
        post, self._post = self._post, None
        if call is not None:
            call.close()
        if post is not None:
            post.abort()
        self._end_upload()
        self.answer = b""
        if outcome is Outcome.HANDED_BACK:
            self.lease.nak()
        else:
            self.lease.ack()
        if was_running:
            self._site.desk.freed(self)
        self._site.desk.finished(self)


def _inner_head(status: int, headers: Headers, body_bytes: int | None) -> bytes | None:
    """Return the response's head as it goes to the gateway, ``None`` when it cannot go.

    Hop-by-hop headers stay here; the gateway takes 200 to 599 and a limited head.
    """
    if not 200 <= status <= 599:
        return None
    kept = forwardable(headers)
    if len(kept) >= MAX_INNER_HEADERS:
        return None
    framing = b"" if body_bytes is None else b"content-length: %d\r\n" % body_bytes
    head = encode_response_head(status, kept, framing)
    return head if len(head) <= MAX_INNER_HEAD_BYTES else None
