"""`/v2/nvcf/worker/request-attach`: where workers meet the invocations of this process."""

from collections.abc import Callable

from gateway.attach.exchanges import AttachGet, AttachPost
from gateway.attach.tokens import Tokens
from gateway.errors import MethodNotAllowed, Unauthenticated
from gateway.invocation.machine import Invocation
from gateway.invocation.states import QUEUED
from http1.stream import Headers, Request, RequestStream, ResponseWriter
from wire.headers import AUTHORIZATION, NVCF_LEASED_US

_MAX_AGE_DIGITS = 15
"""Digits of a lease's age in µs; a longer value is invalid and counts as absent."""


class AttachEndpoint:
    """Serves attach calls on every listener of the process.

    ``response_tokens`` admit POSTs, ``request_tokens`` GETs; the registry of live invocations
    issues and revokes them.
    """

    __slots__ = ("_clock", "request_tokens", "response_tokens")

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` is the monotonic clock, in seconds."""
        self._clock = clock
        self.response_tokens: Tokens[Invocation] = Tokens()
        self.request_tokens: Tokens[Invocation] = Tokens()

    def serve(self, request: Request, worker: ResponseWriter) -> RequestStream:
        """Serve one attach call. Raises `Unauthenticated` and `MethodNotAllowed`."""
        authorization, worker_s = _read(request.headers)
        if request.method == b"POST":
            invocation = self.response_tokens.redeem(authorization)
            if invocation is None or invocation.state is not QUEUED:
                raise Unauthenticated(_STALE)
            post = AttachPost(invocation, worker, request.body_bytes, self._clock)
            invocation.attached(post, self._clock(), worker_s)
            return post
        if request.method == b"GET":
            invocation = self.request_tokens.owner_of(authorization)
            if invocation is None:
                raise Unauthenticated(_STALE)
            get = AttachGet(invocation, worker)
            if not invocation.rest_requested(get):
                raise Unauthenticated(_STALE)
            return get
        raise MethodNotAllowed(headers=[(b"allow", b"GET, POST")])


_STALE = "The provided authorization token is invalid or has expired"


def _read(headers: Headers) -> tuple[bytes, float]:
    """Return the ``Authorization`` value and the lease's age in seconds, -1 if it is absent."""
    authorization, worker_s = b"", -1.0
    for name, value in headers:
        if name == AUTHORIZATION:
            authorization = value
        elif name == NVCF_LEASED_US and value.isdigit() and len(value) <= _MAX_AGE_DIGITS:
            worker_s = int(value) / 1e6
    return authorization, worker_s
