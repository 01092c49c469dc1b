"""POST attach: a worker delivers one response (`spec/invocation.md` §5, RFC 9112 §4).

The body of the POST is an HTTP/1.1 response without transfer coding: head, then body bytes to the
end. It is answered 200 only when the client has taken the whole response or is gone, so the worker
knows when its slot and its lease are free.
"""

from gateway.attach import PATH
from gateway.errors import BadRequest, ForwardedError, problem_for
from gateway.invocation.machine import Invocation
from http1.stream import Headers, ResponseWriter
from wire.http1 import HeadError, InnerHeadParser
from wire.problem import instance_of

_NO_HEADERS: Headers = []


class AttachPost:
    """One POST. A `http1.stream.RequestStream` and the `WorkerPost` of its invocation."""

    __slots__ = (
        "_invocation",
        "_is_answered",
        "_is_complete",
        "_left",
        "_parser",
        "_worker",
    )

    def __init__(
        self, invocation: Invocation, worker: ResponseWriter, body_bytes: int | None
    ) -> None:
        """``body_bytes`` is the length of the POST, ``None`` when it is not known."""
        self._invocation = invocation
        self._worker = worker
        self._left = body_bytes
        self._parser: InnerHeadParser | None = InnerHeadParser()
        self._is_answered = False
        self._is_complete = False

    # The worker's side

    def request_data(self, data: bytes) -> None:
        """Next bytes of the POST."""
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
            invocation.worker_failed(error.status, str(error))
            return
        left, head = self._left, parser.head
        if rest is None or head is None:
            if left is not None:
                self._left = left - len(data)
            return
        self._parser = None
        if left is not None:
            left -= len(data) - len(rest)
        invocation.response_head(head.status, head.headers, head.body_bytes, left)
        if rest:
            invocation.response_data(rest)

    def first_part_end(self) -> None:
        """The head may be incomplete still; more comes."""

    def request_end(self) -> None:
        """The worker has sent everything."""
        self._is_complete = True
        if self._is_answered:
            return
        if self._parser is not None:
            self._invocation.worker_failed(400, "the response head is incomplete")
        else:
            self._invocation.response_end()

    def request_broken(self) -> None:
        """The worker's connection broke."""
        if not self._is_answered:
            self._is_answered = True
            self._invocation.response_broken()

    def pause_writing(self) -> None:
        """Our answer has no body."""

    def resume_writing(self) -> None:
        """Our answer has no body."""

    # The invocation's side

    def pause_reading(self) -> None:
        """Read no more of the response for now."""
        if not self._is_complete:
            self._worker.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading the response."""
        if not self._is_complete:
            self._worker.resume_reading()

    def taken(self) -> None:
        """The client has everything: 200."""
        self._answer_ok()

    def dismiss(self) -> None:
        """Nobody waits for the response: 200 before its end, so that the worker stops."""
        self._answer_ok()

    def refuse(self, status: int, detail: str) -> None:
        """What the worker sent is no response: a problem of ``status``."""
        if self._is_answered:
            return
        self._is_answered = True
        error = ForwardedError(detail, status=status, kind=BadRequest.kind)
        status, headers, body = problem_for(
            error, instance_of(PATH), self._invocation.request_id, id_header=False
        )
        self._worker.send_head(status, headers, len(body))
        self._worker.send_data(body)
        self._worker.send_end()

    def _answer_ok(self) -> None:
        if self._is_answered:
            return
        self._is_answered = True
        self._worker.send_head(200, _NO_HEADERS, 0)
        self._worker.send_end()
