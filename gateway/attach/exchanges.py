"""The two attach calls of a worker (`docs/wire.md` §5).

POST delivers one response. Its body is an HTTP/1.1 response without transfer coding: head, then
body bytes to the end (RFC 9112 §4). It is answered 200 only when the client has the whole response
or is gone, so the worker knows when its slot and its lease are free. GET fetches the rest of a
request body, the part that was not in the envelope. SSE events pass `AttachPost.request_data` as
body bytes; they are not parsed.
"""

from collections.abc import Callable, Sequence

from gateway.attach.faults import FAULTS, PROBLEM_STATUS, outcome_of_document
from gateway.errors import BadRequest
from gateway.invocation.machine import Invocation
from http1.stream import NO_TRAILERS, Headers, NullRequestStream, ResponseWriter
from wire.headers import CONTENT_TYPE, NVCF_FAULT, forwardable_trailers
from wire.http1 import BODILESS_STATUSES, HeadError, InnerHead, InnerHeadParser
from wire.problem import instance_of, problem_response
from wire.worker_api import ATTACH_PATH

_NO_HEADERS: Headers = []


class AttachPost(NullRequestStream):
    """One POST. A `http1.stream.RequestStream` and the `WorkerPost` of its invocation."""

    __slots__ = (
        "_clock",
        "_invocation",
        "_is_answered",
        "_is_complete",
        "_left",
        "_parser",
        "_trailers",
        "_worker",
    )

    def __init__(
        self,
        invocation: Invocation,
        worker: ResponseWriter,
        body_bytes: int | None,
        clock: Callable[[], float],
    ) -> None:
        """``body_bytes`` is the length of the POST's body, ``None`` when it is not known."""
        self._invocation = invocation
        self._worker = worker
        self._clock = clock
        self._left = body_bytes
        self._parser: InnerHeadParser | None = InnerHeadParser()
        self._is_answered = False
        self._is_complete = False
        self._trailers = NO_TRAILERS

    # The worker's side

    def request_data(self, data: bytes) -> None:
        """The next bytes of the POST's body."""
        if self._is_answered:
            return
        invocation = self._invocation
        parser = self._parser
        if parser is None:
            invocation.response_data(data)
            return
        try:
            rest = parser.feed(data)
        except HeadError as error:
            invocation.response_invalid(error.status, str(error))
            return
        if parser.interim and not self._pass_interim(parser.interim):
            return
        left, head = self._left, parser.head
        if rest is None or head is None:
            self._count(len(data))
            return
        self._parser = None
        if left is None:
            self._worker.pass_chunks(invocation.response_chunk)
        else:
            left -= len(data) - len(rest)
        invocation.response_head(head.status, head.headers, head.body_bytes, left, self._clock())
        if rest and head.status == PROBLEM_STATUS and not invocation.instance:
            # Another make of worker, which does not say so in a header.
            invocation.completion = outcome_of_document(head.headers, rest)
        if left and (invocation.method == b"HEAD" or head.status in BODILESS_STATUSES):
            # NVCF's worker announces the body that a response to HEAD leaves out, and closes the
            # connection in place of it. Nothing is missing.
            invocation.response_end()
        elif rest:
            invocation.response_data(rest)

    def _count(self, head_bytes: int) -> None:
        """Count bytes of an incomplete head."""
        if self._left is not None:
            self._left -= head_bytes

    def _pass_interim(self, heads: Sequence[InnerHead]) -> bool:
        """Report interim responses; ``False`` if the invocation ends meanwhile."""
        for head in heads:
            self._invocation.response_interim(head.status, head.headers)
        return not self._is_answered

    def request_trailers(self, trailers: Headers) -> None:
        """The trailers of the POST's body are the response's; the worker adds one of its own."""
        for name, value in trailers:
            if name == NVCF_FAULT and value in FAULTS:
                self._invocation.completion = FAULTS[value]
        self._trailers = forwardable_trailers(trailers)

    def request_end(self) -> None:
        """The worker has sent everything."""
        self._is_complete = True
        if self._is_answered:
            return
        if self._parser is not None:
            self._invocation.response_invalid(400, "the response head is incomplete")
        else:
            self._invocation.response_end(self._trailers)

    def request_broken(self) -> None:
        """The worker's connection broke."""
        if not self._is_answered:
            self._is_answered = True
            self._invocation.response_broken()

    # The invocation

    def pause_reading(self) -> None:
        """Stop reading the response."""
        if not self._is_complete:
            self._worker.pause_reading()

    def resume_reading(self) -> None:
        """Read the response again."""
        if not self._is_complete:
            self._worker.resume_reading()

    def release(self) -> None:
        """Respond 200. Before the end of the POST it tells the worker to stop."""
        if self._is_answered:
            return
        self._is_answered = True
        self._worker.send_head(200, _NO_HEADERS, 0)
        self._worker.send_end()

    def refuse(self, status: int, detail: str) -> None:
        """Respond with a problem of ``status``: the worker did not send a valid response."""
        if self._is_answered:
            return
        self._is_answered = True
        headers, body = problem_response(
            status,
            BadRequest.kind,
            detail,
            instance=instance_of(ATTACH_PATH),
            request_id=self._invocation.request_id,
            id_header=False,
        )
        self._worker.send_head(status, headers, len(body))
        self._worker.send_data(body)
        self._worker.send_end()


class AttachGet(NullRequestStream):
    """One GET. A `http1.stream.RequestStream` and the `WorkerGet` of its invocation.

    The invocation writes the body straight to the worker's connection.
    """

    __slots__ = ("_invocation", "_worker", "is_upgraded")

    def __init__(
        self, invocation: Invocation, worker: ResponseWriter, *, is_upgraded: bool = False
    ) -> None:
        self._invocation = invocation
        self._worker = worker
        self.is_upgraded = is_upgraded

    def accept(self, rest_bytes: int | None) -> ResponseWriter:
        """Send the response head and return the writer for the body."""
        self._worker.send_head(200, [(CONTENT_TYPE, b"application/octet-stream")], rest_bytes)
        return self._worker

    def request_broken(self) -> None:
        """The worker needs no more of the body, or died."""
        self._invocation.rest_broken()

    def pause_writing(self) -> None:
        """The worker reads slower than the client writes."""
        self._invocation.rest_pause_writing()

    def resume_writing(self) -> None:
        """The worker has caught up."""
        self._invocation.rest_resume_writing()
