"""What is answered to bytes that never become a request."""

from gateway.exchange import Headers
from wire.http1 import encode_response_head
from wire.problem import PROBLEM_JSON, problem


class Refusal(Exception):
    """The peer's bytes are no request that we take; the connection ends with this answer.

    ``status`` is 400, 408, 414, 417, 431, 500, 501, 503 or 505, ``kind`` the last part of the
    problem's type, ``detail`` one sentence for people that repeats nothing the peer sent.
    """

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail

    def document(self) -> tuple[Headers, bytes]:
        """Return the headers and the body of the answer."""
        body = problem(self.status, self.kind, self.detail)
        headers = [(b"content-type", PROBLEM_JSON)]
        if self.status == 503:
            headers.append((b"retry-after", b"1"))
        return headers, body


def encode_refusal(refusal: Refusal, date_line: bytes) -> bytes:
    """Return the whole HTTP/1.1 answer, with which the connection closes."""
    headers, body = refusal.document()
    framing = b"%bcontent-length: %d\r\nconnection: close\r\n" % (date_line, len(body))
    return encode_response_head(refusal.status, headers, framing) + body


def malformed(detail: str) -> Refusal:
    """Return the 400 for bytes outside the grammar."""
    return Refusal(400, "malformed-request", detail)
