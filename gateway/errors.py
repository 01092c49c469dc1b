"""The gateway's errors, and the one map from an error to its HTTP response.

    GatewayError 500
        ClientFault      Unauthenticated 401 · Forbidden 403 · NotFound 404 · FunctionNotFound 404
                         ModelNotFound 404 · BadRequest 400 · AmbiguousName 400
                         MethodNotAllowed 405 · Conflict 409 · RateLimited 429
                         UploadTimeout 408 · Gone 410 · BodyTooLarge 413 · UnsupportedMediaType 415
                         KeyReused 422 · UpgradeRequired 426 · TooManyKeys 429
        PlatformFault    WorkerLost 502 · OutcomeUnknown 502 · WorkerSilent 504
                         StoreUnavailable 503 · TooManyBodies 503 · TooManyTransfers 503
                         Starting 503 · Draining 503 · PollTimeout 504 · Overloaded 429
                         QueueTimeout 504 · RunTimeout 504
                         in `gateway.auth.jwt` IssuerUnavailable 503
        ForwardedError   the status that another process gave

The class determines the response: ``status``, ``kind`` (the end of the problem's URN) and
``reason`` (for programs that branch on it) are class attributes. An instance adds ``detail`` for
people, and may add headers and members of the document. `problem_for` also maps the errors of the
packages below the gateway: `queueing.interface.QueueError` (429, 503) and `wire.errors.WireError`.
Sources: `docs/wire.md` §7.1 and `docs/wire.md` §9.3.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

from queueing.interface import QueueError, QueueFull
from wire.errors import WireError
from wire.grpc import CONTENT, encode_error, status_of
from wire.headers import CONTENT_TYPE, X_RATELIMIT_LIMIT, X_RATELIMIT_REMAINING, X_RATELIMIT_RESET
from wire.problem import NO_RETRY, problem_response

Headers = list[tuple[bytes, bytes]]

_RETRY_SOON = ((b"retry-after", b"1"),)


class GatewayError(Exception):
    """A failure with a defined response.

    ``headers`` are sent with the response and may be appended to; ``members`` are extra members of
    the document. ``detail`` is sent to callers: it must not contain a credential or a rejected
    value. ``str(error)`` is the cause, for logs.
    """

    status = 500
    kind = "internal-error"
    reason = ""
    summary = "The gateway failed"
    """The default of ``detail``."""
    always: tuple[tuple[bytes, bytes], ...] = ()
    """Headers of every response to an error of this class."""

    def __init__(
        self, detail: str = "", headers: Headers | None = None, *, cause: str = "", **members: str
    ) -> None:
        """``cause`` is only logged; without it, ``detail`` is the cause."""
        super().__init__(cause or detail or self.summary)
        self.detail = detail or self.summary
        self.headers: Headers = [*self.always, *headers] if headers else list(self.always)
        self.members = members


class ClientFault(GatewayError):
    """The caller must change the request."""

    status = 400
    kind = "bad-request"
    summary = "The request is not valid"


class PlatformFault(GatewayError):
    """The request is valid; the caller can only retry."""


class BadRequest(ClientFault):
    """The request is not valid, or not possible in the current state."""


class Unauthenticated(ClientFault):
    """The credential is missing or not valid. The response does not say which."""

    status = 401
    kind = "unauthorized"
    summary = "The request has no valid credential"
    always = ((b"www-authenticate", b"Bearer"),)


class Forbidden(ClientFault):
    """The credential is valid but does not permit the call."""

    status = 403
    kind = "forbidden"
    summary = "The credential does not allow this"


class NotFound(ClientFault):
    """The resource or path does not exist."""

    status = 404
    kind = "not-found"
    summary = "There is nothing at this path"


class FunctionNotFound(NotFound):
    """The function or version is unknown, not visible to the caller, or not deployed."""

    summary = "The function is not found"


class ModelNotFound(FunctionNotFound):
    """No function that the caller may call has the id or name that ``model`` gives."""

    kind = "model-not-found"
    reason = "model_not_found"
    summary = "The model names no function that this credential may call; see GET /v1/models"


class AmbiguousName(BadRequest):
    """Several functions that the caller may call have the name."""

    kind = "ambiguous-name"
    reason = "ambiguous_name"
    summary = "Several functions have this name; name one by its id"


class Gone(ClientFault):
    """What the credential is for has been deleted for good."""

    status = 410
    kind = "gone"
    summary = "What the credential is for does not exist any more"


class MethodNotAllowed(ClientFault):
    """The path exists with other methods. Needs an ``allow`` header (RFC 9110 §15.5.6)."""

    status = 405
    kind = "method-not-allowed"
    summary = "The method is not allowed here"


class Conflict(ClientFault):
    """Another caller changed the same resource at the same time, or it exists already."""

    status = 409
    kind = "conflict"
    summary = "Another call changed the resource; read it and retry"


class KeyReused(ClientFault):
    """The call's Idempotency-Key belongs to another request."""

    status = 422
    kind = "idempotency-key-reused"
    reason = "idempotency_key_reused"
    summary = "This Idempotency-Key was sent with another request: send a new key"


class TooManyKeys(ClientFault):
    """The account has as many Idempotency-Keys as it may."""

    status = 429
    kind = "too-many-keys"
    reason = "too_many_keys"
    summary = "The account has sent as many Idempotency-Keys as are kept: see requests.account_keys"
    always = (NO_RETRY,)


class UploadTimeout(ClientFault):
    """The body flowed for as long as a whole invocation may last, and is not complete."""

    status = 408
    kind = "request-timeout"
    summary = "The request did not arrive in time"


class BodyTooLarge(ClientFault):
    """The body is larger than the path or the function accepts."""

    status = 413
    kind = "content-too-large"
    summary = "The body is too large"

    @classmethod
    def above(cls, max_bytes: int) -> Self:
        """Return the error for a body of more than ``max_bytes``."""
        return cls(f"The body has more than {max_bytes} bytes")


class UpgradeRequired(ClientFault):
    """A WebSocket of another version is asked for (RFC 6455 §4.4)."""

    status = 426
    kind = "upgrade-required"
    summary = "Only version 13 of WebSocket is spoken here"
    always = ((b"sec-websocket-version", b"13"),)


class UnsupportedMediaType(ClientFault):
    """The path does not accept this content type or content coding."""

    status = 415
    kind = "unsupported-media-type"
    summary = "The body must be application/json"


class RateLimited(ClientFault):
    """The caller has made as many calls as the function's rate limit accepts."""

    status = 429
    kind = "rate-limited"
    reason = "rate_limited"
    summary = "The function's rate limit is used up"

    def __init__(
        self, detail: str = "", *, limit: int = 0, retry_after_s: int = 1, reset_at: int = 0
    ) -> None:
        """``limit`` is the number of calls in each unit of the rate that is used up.

        ``reset_at`` is when the next call is accepted, in Unix seconds.
        """
        super().__init__(
            detail,
            [
                (b"retry-after", b"%d" % retry_after_s),
                (X_RATELIMIT_LIMIT, b"%d" % limit),
                (X_RATELIMIT_REMAINING, b"0"),
                (X_RATELIMIT_RESET, b"%d" % reset_at),
            ],
        )


class WorkerLost(PlatformFault):
    """No worker completed the request."""

    status = 502
    kind = "worker-lost"
    reason = "worker_lost"
    summary = "No worker completed the request"
    always = (NO_RETRY,)


class WorkerSilent(PlatformFault):
    """The worker that had responded 202 took no further question about the request."""

    status = 504
    kind = "worker-silent"
    reason = "worker_lost"
    summary = "The worker did not acknowledge the status request"


class OutcomeUnknown(PlatformFault):
    """Nobody knows the response of the first call with this Idempotency-Key.

    Its process is lost, or its client left with half a request, or the response was deleted.
    """

    status = 502
    kind = "outcome-unknown"
    reason = "outcome_unknown"
    summary = (
        "The first call with this Idempotency-Key may have run, and its response is not known; it "
        "is not run again: send a new key to run it once more"
    )
    always = (NO_RETRY,)


class StoreUnavailable(PlatformFault):
    """The store cannot be read or written now."""

    status = 503
    kind = "store-unavailable"
    reason = "store_unavailable"
    summary = "The store cannot be reached"
    always = _RETRY_SOON


class TooManyBodies(PlatformFault):
    """The bodies that callers of the REST API are sending at this time take too much memory."""

    status = 503
    kind = "too-many-bodies"
    summary = "Too many large request bodies are being received"
    always = _RETRY_SOON


class TooManyTransfers(PlatformFault):
    """The process sends and receives as many stored objects as it may."""

    status = 503
    kind = "too-many-transfers"
    summary = "Too many stored objects are being sent and received"
    always = _RETRY_SOON


class TooManyChannels(PlatformFault):
    """The process has as many channels of workers as it may; the worker goes on with the queue."""

    status = 503
    kind = "too-many-channels"
    summary = "Too many workers have a channel to this process"


class Starting(PlatformFault):
    """This process has not loaded the store yet."""

    status = 503
    kind = "queue-unavailable"
    reason = "queue_unavailable"
    summary = "The gateway is starting"
    always = _RETRY_SOON


class Draining(PlatformFault):
    """This process is stopping; another process serves a retry."""

    status = 503
    kind = "draining"
    reason = "draining"
    summary = "The gateway process is stopping"
    always = _RETRY_SOON


class _RetryLater(PlatformFault):
    """The caller is told when there will be room."""

    def __init__(self, retry_after_s: int = 1, detail: str = "") -> None:
        """``retry_after_s`` is when another call may be reached, in seconds."""
        super().__init__(detail, [(b"retry-after", b"%d" % retry_after_s)])


class Overloaded(_RetryLater):
    """More calls wait than the workers can reach within the caller's poll window."""

    status = 429
    kind = "overloaded"
    reason = "overloaded"
    summary = "The function cannot be reached within the poll window: too many calls wait for it"


class PollTimeout(_RetryLater):
    """No response head arrived within the caller's poll window."""

    status = 504
    kind = "poll-timeout"
    reason = "poll_timeout"
    summary = "No response within the poll window"
    always = (NO_RETRY,)

    @classmethod
    def of(cls, poll_s: int, where: str, retry_after_s: int) -> Self:
        """Return the error of a call with a window of ``poll_s``; ``where`` says where it was."""
        return cls(retry_after_s, f"No response within the poll window of {poll_s} s: {where}")


class QueueTimeout(_RetryLater):
    """No worker began with the call within the time that its ``Cancel-After`` allows."""

    status = 504
    kind = "queue-timeout"
    reason = "queue_timeout"
    summary = "No worker has begun with the call within the time that it allows"
    always = (NO_RETRY,)


class RunTimeout(PlatformFault):
    """The call ran for as long as its ``Cancel-After`` allows, without a response head."""

    status = 504
    kind = "run-timeout"
    reason = "run_timeout"
    summary = "The call has run for as long as it allows"
    always = (NO_RETRY,)


class ForwardedError(GatewayError):
    """An error with the status that another process gave."""

    def __init__(
        self,
        detail: str = "",
        *,
        status: int = GatewayError.status,
        kind: str = GatewayError.kind,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind


class _Problem(NamedTuple):
    """What a response to an error consists of."""

    status: int
    kind: str
    detail: str
    reason: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    members: Mapping[str, str] = {}


_WIRE_KINDS = {400: "bad-request", 431: "request-header-fields-too-large"}


def problem_for(
    error: Exception, instance: str, request_id: str, *, id_header: bool = True
) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of the response to ``error``.

    ``instance`` and ``id_header`` as for `wire.problem.problem_response`. An error that is not
    listed in the module's docstring becomes a 500 that reveals nothing of its cause: log it where
    it is caught.
    """
    status, kind, detail, reason, headers, members = _problem_of(error)
    complete, body = problem_response(
        status,
        kind,
        detail,
        instance=instance,
        request_id=request_id,
        reason=reason,
        headers=headers,
        id_header=id_header,
        **members,
    )
    return status, complete, body


def grpc_error_for(error: Exception) -> tuple[int, Headers]:
    """Return the status that HTTP would have, and the headers of a gRPC response to ``error``.

    Such a response has status 200 and no body ("Trailers-Only", see `wire.grpc`).
    """
    status, _, detail, _, headers, _ = _problem_of(error)
    return status, [*headers, (CONTENT_TYPE, CONTENT), *encode_error(status_of(status), detail)]


def _problem_of(error: Exception) -> _Problem:
    match error:
        case GatewayError():
            return _Problem(
                error.status,
                error.kind,
                error.detail,
                error.reason,
                tuple(error.headers),
                error.members,
            )
        case QueueFull():
            detail = str(error) or "The function's queue is full"
            return _Problem(429, "queue-full", detail, "queue_full", _RETRY_SOON)
        case QueueError():
            detail = str(error) or "The function's queue cannot be reached"
            return _Problem(503, "queue-unavailable", detail, "queue_unavailable", _RETRY_SOON)
        case WireError():
            kind = _WIRE_KINDS.get(error.status, "bad-request")
            return _Problem(error.status, kind, str(error))
        case _:
            return _Problem(GatewayError.status, GatewayError.kind, GatewayError.summary)
