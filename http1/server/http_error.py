"""Errors in the bytes of a peer, and the error responses for them."""

from http1.stream import Headers
from wire.http1 import encode_response_head
from wire.problem import instance_of, problem_response


class HttpError(Exception):
    """The peer's bytes are not a request that the server accepts.

    The server sends this error as a problem document and closes the connection. ``status`` is 400,
    408, 414, 417, 431, 500, 501, 503 or 505, ``kind`` the last part of the problem's type,
    ``detail`` one sentence for people that repeats nothing the peer sent. ``target`` is the request
    target if the head names one, ``to_head`` whether its method is HEAD; for an error after the
    head the connection knows both.
    """

    def __init__(self, status: int, kind: str, detail: str, target: bytes = b"") -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.target = target
        self.to_head = False

    def response(self, target: bytes, request_id: str) -> tuple[Headers, bytes]:
        """Return headers and body of the error response.

        If ``target`` is empty (none could be read), the document has no ``instance``. No other
        problem document of the gateway lacks it.
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


def encode_error_response(
    error: HttpError, target: bytes, request_id: str, date_line: bytes, *, to_head: bool
) -> bytes:
    """Return the whole HTTP/1.1 response; it announces that the connection closes.

    ``to_head``: without its body (RFC 9110 §9.3.2).
    """
    headers, body = error.response(target, request_id)
    framing = b"%bcontent-length: %d\r\nconnection: close\r\n" % (date_line, len(body))
    head = encode_response_head(error.status, headers, framing)
    return head if to_head else head + body


def bad_request(detail: str) -> HttpError:
    """Return the 400 for bytes outside the grammar."""
    return HttpError(400, "malformed-request", detail)


def request_timeout() -> HttpError:
    """Return the 408 for a request that did not arrive in time."""
    return HttpError(408, "request-timeout", "The request did not arrive in time")


def internal_error() -> HttpError:
    """Return the 500 for an exception while a request was dispatched or delivered."""
    return HttpError(500, "internal-error", "The gateway failed to serve the request")
