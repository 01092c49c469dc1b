"""What is answered to bytes that never become a request."""

from http1.stream import Headers
from wire.http1 import encode_response_head
from wire.problem import instance_of, problem_response


class Refusal(Exception):
    """The peer's bytes are no request that we take; the connection ends with this answer.

    ``status`` is 400, 408, 414, 417, 431, 500, 501, 503 or 505, ``kind`` the last part of the
    problem's type, ``detail`` one sentence for people that repeats nothing the peer sent.
    ``target`` is what a refused head asked for; what is refused later, its connection knows.
    """

    def __init__(self, status: int, kind: str, detail: str, target: bytes = b"") -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.target = target

    def document(self, target: bytes, request_id: str) -> tuple[Headers, bytes]:
        """Return the headers and the body of the answer.

        ``target`` is what was asked for. It is empty where no target could be read, and the
        document has no ``instance`` then: only there, of all documents that the gateway makes.
        """
        headers, body = problem_response(
            self.status,
            self.kind,
            self.detail,
            instance=instance_of(target),
            request_id=request_id,
        )
        if self.status == 503:
            headers.append((b"retry-after", b"1"))
        return headers, body


def encode_refusal(refusal: Refusal, target: bytes, request_id: str, date_line: bytes) -> bytes:
    """Return the whole HTTP/1.1 answer, with which the connection closes."""
    headers, body = refusal.document(target, request_id)
    framing = b"%bcontent-length: %d\r\nconnection: close\r\n" % (date_line, len(body))
    return encode_response_head(refusal.status, headers, framing) + body


def malformed(detail: str) -> Refusal:
    """Return the 400 for bytes outside the grammar."""
    return Refusal(400, "malformed-request", detail)


def late(target: bytes) -> Refusal:
    """Return the 408 for a request of which not enough has come."""
    return Refusal(408, "request-timeout", "The request did not arrive in time", target)


def failed() -> Refusal:
    """Return the 500 for a request on which something unforeseen happened."""
    return Refusal(500, "internal-error", "The gateway failed to serve the request")
