"""`/v2/nvcf/worker/request-attach`: where workers meet the invocations of this process."""

from collections.abc import Callable

from gateway.attach.get import AttachGet
from gateway.attach.post import AttachPost
from gateway.attach.tokens import Tokens
from gateway.errors import MethodNotAllowed, Unauthenticated
from gateway.invocation.machine import Invocation
from gateway.invocation.state import QUEUED
from http1.stream import Headers, Request, RequestStream, ResponseWriter
from wire.headers import AUTHORIZATION, NVCF_LEASED_US

_DIGITS_MAX = 15
"""Of a lease's age in µs; longer values are nonsense and count as absent."""


class AttachEndpoint:
    """Serves attach calls on every listener of the process."""

    __slots__ = ("_clock", "requests", "responses")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.responses: Tokens[Invocation] = Tokens()
        self.requests: Tokens[Invocation] = Tokens()

    def serve(self, request: Request, worker: ResponseWriter) -> RequestStream:
        """Serve one attach call. Raises `Unauthenticated` and `MethodNotAllowed`."""
        authorization, worker_s = _read(request.headers)
        if request.method == b"POST":
            invocation = self.responses.use(authorization)
            if invocation is None or invocation.state is not QUEUED:
                raise Unauthenticated(_STALE)
            post = AttachPost(invocation, worker, request.body_bytes)
            invocation.attached(post, self._clock(), worker_s)
            return post
        if request.method == b"GET":
            invocation = self.requests.use(authorization)
            if invocation is None:
                raise Unauthenticated(_STALE)
            # Known on: who comes with it again had the request delivered after its first worker.
            self.requests.arm(invocation.request_token, invocation)
            if not invocation.send_rest(worker):
                raise Unauthenticated(_STALE)
            return AttachGet(invocation)
        raise MethodNotAllowed(headers=[(b"allow", b"GET, POST")])


_STALE = "The provided authorization token is invalid or has expired"


def _read(headers: Headers) -> tuple[bytes, float]:
    """Return the authorization value and the lease's age in seconds, -1 when it is not told."""
    authorization, worker_s = b"", -1.0
    for name, value in headers:
        if name == AUTHORIZATION:
            authorization = value
        elif name == NVCF_LEASED_US and value.isdigit() and len(value) <= _DIGITS_MAX:
            worker_s = int(value) / 1e6
    return authorization, worker_s
