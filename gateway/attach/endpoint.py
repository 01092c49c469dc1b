"""Where workers meet the invocations of this process: `wire.worker_api.ATTACH_PATH` and `RUN_PATH`.

Through the first they fetch and deliver, on the second they ask whether to run a request, and on
`wire.worker_api.CHANNEL_PATH` they open channels.
"""

from collections.abc import Callable

from gateway.attach.channels import WorkerChannels
from gateway.attach.exchanges import AttachGet, AttachPost
from gateway.attach.faults import FAULTS
from gateway.attach.tokens import Tokens, is_authorized
from gateway.errors import BadRequest, MethodNotAllowed, NotFound, Unauthenticated
from gateway.invocation.machine import Invocation
from gateway.invocation.once import OnceInvocation
from gateway.invocation.states import PENDING, QUEUED, SENT
from http1.stream import IGNORED, Request, RequestStream, ResponseWriter, respond
from queueing.interface import RunDecision
from wire.channel import PROTOCOL
from wire.headers import (
    AUTHORIZATION,
    FUNCTION_VERSION_ID,
    NVCF_BROKEN_OFF,
    NVCF_CHANNEL_CALL,
    NVCF_CHANNEL_KEY,
    NVCF_DELIVERIES,
    NVCF_FAULT,
    NVCF_INSTANCE_ID,
    NVCF_LATE,
    NVCF_LEASED_US,
    NVCF_REQID,
    NVCF_RUNNING,
    NVCF_UNRUN,
    NVCF_UPGRADED,
)

_MAX_AGE_DIGITS = 15
"""Digits of a lease's age in µs; a longer value is invalid and counts as absent."""
_MAX_DELIVERY_DIGITS = 9
_MAX_NUMBER_DIGITS = 19
_MAX_INSTANCE_BYTES = 128
"""Bytes of an instance id; a longer one is cut."""
_RUN_STATUS = {
    RunDecision.RERUNNABLE: 200,
    RunDecision.RUN: 204,
    RunDecision.LATER: 409,
    RunDecision.NEVER: 410,
}


class AttachEndpoint:
    """Serves attach calls on every listener of the process.

    ``response_tokens`` admit POSTs, ``request_tokens`` GETs; the registry of live invocations
    issues and revokes them, and keeps ``live``, the invocations by request id. ``channels`` is None
    if no worker may open one.
    """

    __slots__ = ("_clock", "channels", "live", "request_tokens", "response_tokens")

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` is the monotonic clock, in seconds."""
        self._clock = clock
        self.response_tokens: Tokens[Invocation] = Tokens()
        self.request_tokens: Tokens[Invocation] = Tokens()
        self.live: dict[str, Invocation] = {}
        self.channels: WorkerChannels | None = None

    def serve(self, request: Request, worker: ResponseWriter) -> RequestStream:
        """Serve one attach call. Raises `Unauthenticated` and `MethodNotAllowed`."""
        authorization, worker_s, instance, fault = _read(request)
        if request.method == b"POST":
            if NVCF_CHANNEL_CALL in request.values:
                invocation = self._call_of(request, authorization)
            else:
                invocation = self.response_tokens.redeem(authorization)
            if invocation is None or (
                invocation.state is not QUEUED
                and invocation.state is not SENT
                and invocation.state is not PENDING
            ):
                raise Unauthenticated(_STALE)
            post = AttachPost(invocation, worker, request.body_bytes, self._clock)
            invocation.attached(post, self._clock(), worker_s, instance)
            if fault in FAULTS:
                invocation.completion = FAULTS[fault]
            return post
        if request.method == b"GET":
            if NVCF_CHANNEL_CALL in request.values:
                invocation = self._call_of(request, authorization)
            else:
                invocation = self.request_tokens.owner_of(authorization)
            if invocation is None:
                raise Unauthenticated(_STALE)
            get = AttachGet(invocation, worker, is_upgraded=NVCF_UPGRADED in request.values)
            if not invocation.rest_requested(get):
                raise Unauthenticated(_STALE)
            return get
        raise MethodNotAllowed(headers=[(b"allow", b"GET, POST")])

    def with_large_response(self, request: Request) -> Invocation:
        """Return the invocation whose worker has a large response (`docs/wire.md` §5.6).

        The token stays valid: the worker still has to say where the response is. Raises
        `Unauthenticated` and `MethodNotAllowed`.
        """
        if request.method != b"POST":
            raise MethodNotAllowed(headers=[(b"allow", b"POST")])
        authorization = request.values.get(AUTHORIZATION, b"")
        if NVCF_CHANNEL_CALL in request.values:
            invocation = self._call_of(request, authorization)
        else:
            invocation = self.response_tokens.owner_of(authorization)
        request_id = request.values.get(NVCF_REQID, b"")
        if invocation is None or invocation.request_id.encode() != request_id:
            raise Unauthenticated(_STALE)
        return invocation

    def _call_of(self, request: Request, authorization: bytes) -> Invocation | None:
        """Return the call of a channel for which a worker attaches."""
        number = request.values[NVCF_CHANNEL_CALL]
        if self.channels is None or not number.isdigit() or len(number) > _MAX_NUMBER_DIGITS:
            return None
        return self.channels.call_of(_credential(authorization), int(number))

    def serve_channel(self, request: Request, worker: ResponseWriter) -> RequestStream:
        """Open a channel, or open it again (`docs/wire.md` §20.1).

        Raises `MethodNotAllowed`, `BadRequest`, `Unauthenticated`, `NotFound` and
        `TooManyChannels`.
        """
        channels, values = self.channels, request.values
        if channels is None:
            raise NotFound("This process has no channels")
        if request.method != b"GET":
            raise MethodNotAllowed(headers=[(b"allow", b"GET")])
        if values.get(b"upgrade", b"").lower() != PROTOCOL:
            raise BadRequest("The request does not ask for an upgrade to nvcf-channel/1")
        credential = _credential(values.get(AUTHORIZATION, b""))
        request_id = values.get(NVCF_REQID, b"").decode("latin-1")
        if request_id:
            channel = channels.open(
                request_id,
                values.get(FUNCTION_VERSION_ID, b"").decode("latin-1"),
                credential,
                values.get(NVCF_INSTANCE_ID, b"")[:_MAX_INSTANCE_BYTES],
            )
        else:
            channel = channels.resume(credential)
        link = channels.new_link(channel)
        headers = [
            (b"connection", b"upgrade"),
            (b"upgrade", PROTOCOL),
            (NVCF_CHANNEL_KEY, channel.key.encode()),
        ]
        worker.hand_over(headers, link)
        channels.linked(channel, link, is_resumed=not request_id)
        return IGNORED

    def serve_run(self, request: Request, worker: ResponseWriter) -> RequestStream:
        """Say whether a worker may run a request that was delivered again (`docs/wire.md` §5.5).

        Or learn that a worker has dropped one as late, or given it back, unrun or broken off. The
        response has no body: what is not known here is over. Raises `MethodNotAllowed`.
        """
        if request.method != b"POST":
            raise MethodNotAllowed(headers=[(b"allow", b"POST")])
        headers = request.values
        invocation = self.live.get(headers.get(NVCF_REQID, b"").decode("latin-1"))
        deliveries = headers.get(NVCF_DELIVERIES, b"")
        decision = RunDecision.NEVER
        if (
            invocation is not None
            and invocation.run_token
            and is_authorized(headers.get(AUTHORIZATION, b""), invocation.run_token)
            and deliveries.isdigit()
            and len(deliveries) <= _MAX_DELIVERY_DIGITS
        ):
            if headers.get(NVCF_LATE) == b"1":
                invocation.dropped_late(int(deliveries))
            elif headers.get(NVCF_UNRUN) == b"1":
                if isinstance(invocation, OnceInvocation):
                    invocation.gave_back(int(deliveries))
            elif headers.get(NVCF_BROKEN_OFF) == b"1":
                invocation.was_broken_off = True
            else:
                is_running = headers.get(NVCF_RUNNING) == b"1"
                decision = invocation.run_requested(int(deliveries), is_running=is_running)
                is_new_run = decision is RunDecision.RUN and not is_running
                if is_new_run and not invocation.was_broken_off:
                    decision = RunDecision.RERUNNABLE
        return respond(request, worker, _RUN_STATUS[decision], [], b"")


def _credential(authorization: bytes) -> str:
    return authorization.removeprefix(b"Bearer ").decode("latin-1")


_STALE = "The provided authorization token is invalid or has expired"


def _read(request: Request) -> tuple[bytes, float, bytes, bytes]:
    """Return what a worker says of itself and its response.

    That is the ``Authorization`` value, the lease's age in seconds (-1 if it is absent), the id of
    its instance, and what failed if the response is a problem document of its own.
    """
    get = request.values.get
    age = get(NVCF_LEASED_US, b"")
    is_age = age.isdigit() and len(age) <= _MAX_AGE_DIGITS
    return (
        get(AUTHORIZATION, b""),
        int(age) / 1e6 if is_age else -1.0,
        get(NVCF_INSTANCE_ID, b"")[:_MAX_INSTANCE_BYTES],
        get(NVCF_FAULT, b""),
    )
