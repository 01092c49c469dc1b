"""What can go wrong with a request, and the one place that turns it into an answer.

    GatewayError
        ClientFault      Unauthenticated 401 · Forbidden 403 · FunctionNotFound 404 · NotFound 404
                         NotInvocable 400 · BadRequest 400 · MethodNotAllowed 405 · Conflict 409
                         BodyTooLarge 413 · UnsupportedMediaType 415 · QueueFullError 429
        PlatformFault    WorkerLost 502 · QueueUnavailableError 503 · StoreUnavailable 503
                         Draining 503 · PollTimeout 504

The class is the answer: ``status``, ``kind`` (the end of the problem's URN) and ``reason`` (for
programs that branch on it) are class attributes; an instance adds ``detail`` for people, and may
add headers and further members of the document. Sources: `spec/invocation.md` §8 and
`spec/control-plane.md` §1.0.
"""

from wire.errors import WireError
from wire.problem import PROBLEM_JSON, problem

Headers = list[tuple[bytes, bytes]]


class GatewayError(Exception):
    """A failure with a known answer.

    ``headers`` go with the answer and may be appended to; ``members`` are extra members of the
    document. ``detail`` is read by strangers: never put a credential or a rejected value there.
    """

    status = 500
    kind = "internal-error"
    reason = ""
    summary = "The gateway failed"
    """What ``detail`` is when none is given."""
    always: tuple[tuple[bytes, bytes], ...] = ()
    """Headers that every answer of this class carries."""

    def __init__(self, detail: str = "", headers: Headers | None = None, **members: str) -> None:
        super().__init__(detail or self.summary)
        self.detail = detail or self.summary
        self.headers: Headers = [*self.always, *headers] if headers else list(self.always)
        self.members = members


class ClientFault(GatewayError):
    """The caller can do something about it."""

    status = 400
    kind = "bad-request"
    summary = "The request is not valid"


class PlatformFault(GatewayError):
    """The caller can only try again."""


class BadRequest(ClientFault):
    """The request says something that cannot be."""


class Unauthenticated(ClientFault):
    """No credential, or none that is valid. The answer does not tell which."""

    status = 401
    kind = "unauthorized"
    summary = "The request has no valid credential"
    always = ((b"www-authenticate", b"Bearer"),)


class Forbidden(ClientFault):
    """A valid credential that does not allow this."""

    status = 403
    kind = "forbidden"
    summary = "The credential does not allow this"


class NotFound(ClientFault):
    """No such resource or path."""

    status = 404
    kind = "not-found"
    summary = "There is nothing at this path"


class FunctionNotFound(NotFound):
    """Unknown function or version, one the caller may not see, or one that is not deployed."""

    summary = "The function is not found"


class NotInvocable(ClientFault):
    """The function is there and has no instance that can serve."""

    summary = "The function cannot be invoked"


class MethodNotAllowed(ClientFault):
    """The path exists, with other methods. Give ``allow`` among the headers (RFC 9110 §15.5.6)."""

    status = 405
    kind = "method-not-allowed"
    summary = "The method is not allowed here"


class Conflict(ClientFault):
    """Somebody else changed the same thing at the same time, or it is there already."""

    status = 409
    kind = "conflict"
    summary = "It was changed by somebody else in between: read it again"


class BodyTooLarge(ClientFault):
    """More body than this path takes."""

    status = 413
    kind = "content-too-large"
    summary = "The body is too large"


class UnsupportedMediaType(ClientFault):
    """The body is of a kind that this path does not take."""

    status = 415
    kind = "unsupported-media-type"
    summary = "The body must be application/json"


class QueueFullError(ClientFault):
    """The function's queue holds as many requests as it may."""

    status = 429
    kind = "queue-full"
    reason = "queue_full"
    summary = "The function's queue is full"
    always = ((b"retry-after", b"1"),)


class WorkerLost(PlatformFault):
    """No worker could complete the request."""

    status = 502
    kind = "worker-lost"
    reason = "worker_lost"
    summary = "No worker completed the request"


class QueueUnavailableError(PlatformFault):
    """The broker cannot be reached or did not take the request."""

    status = 503
    kind = "queue-unavailable"
    reason = "queue_unavailable"
    summary = "The function's queue cannot be reached"
    always = ((b"retry-after", b"1"),)


class StoreUnavailable(PlatformFault):
    """Functions, keys and deployments can neither be read nor changed now."""

    status = 503
    kind = "store-unavailable"
    reason = "store_unavailable"
    summary = "The store cannot be reached"
    always = ((b"retry-after", b"1"),)


class Draining(PlatformFault):
    """This process is stopping; another one will serve."""

    status = 503
    kind = "draining"
    reason = "draining"
    summary = "The gateway process is stopping"
    always = ((b"retry-after", b"1"),)


class PollTimeout(PlatformFault):
    """No response head within the caller's poll window."""

    status = 504
    kind = "poll-timeout"
    reason = "poll_timeout"
    summary = "No response within the poll window"


_WIRE_KINDS = {400: "bad-request", 431: "request-header-fields-too-large"}


def problem_for(error: Exception, instance: str, request_id: str) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of the answer to ``error``.

    ``instance`` as from `instance_of`. Anything but a `GatewayError` or `WireError` becomes a 500
    that tells nothing of its cause: log it where it is caught.
    """
    if isinstance(error, GatewayError):
        status, headers = error.status, [*error.headers, (b"content-type", PROBLEM_JSON)]
        kind, detail, reason, members = error.kind, error.detail, error.reason, error.members
    else:
        headers, reason, members = [(b"content-type", PROBLEM_JSON)], "", {}
        if isinstance(error, WireError):
            status, detail = error.status, str(error)
            kind = _WIRE_KINDS.get(status, "bad-request")
        else:
            status, kind, detail = 500, GatewayError.kind, GatewayError.summary
    body = problem(
        status, kind, detail, instance=instance, request_id=request_id, reason=reason, **members
    )
    return status, headers, body
