"""Calls with an Idempotency-Key: the first with a key runs, the others get its response.

A call waits in a `HeldCall` until its key is claimed, or found to be another call's. Nothing but
calls with the header comes here. What a call that repeats another one sends is read to its end and
compared, by whoever holds the first call, or its response.
"""

from collections.abc import Callable, Coroutine
from copy import copy
from typing import NamedTuple

from gateway.dispatch.held_call import HeldCall
from gateway.dispatch.randomness import Randomness
from gateway.dispatch.responses import send_problem
from gateway.errors import Conflict, GatewayError, KeyReused, OutcomeUnknown
from gateway.invocation.once import OnceInvocation
from gateway.requests.asked import Asked
from gateway.requests.book import RequestBook
from gateway.requests.detached import DetachedCall
from gateway.requests.exec_writer import PolledForm
from gateway.requests.forwarding import Forwarder
from gateway.requests.idempotency import (
    ClaimPosition,
    Decision,
    Fingerprint,
    KeyClaim,
    claim_name,
    is_same,
    key_of,
)
from gateway.requests.key_claims import KeyClaims
from gateway.requests.keyed import (
    DID_NOT_RUN,
    KeyedCall,
    RepeatedCall,
    RepeatedExchange,
    RepeatedRequest,
    RepeatedResponse,
)
from gateway.requests.keyed_polls import RepeatedPollExchange
from gateway.requests.poll_exchanges import watch
from gateway.requests.prefer import Terms
from gateway.requests.repeated_stored import RepeatedFromStore
from gateway.requests.repetition import PageWriter, Repetition, forwarded_request, repetition_of
from gateway.requests.stored_exchange import Absent, holder_silent
from gateway.routing.admission import Caller
from gateway.routing.call_head import CallHead
from gateway.routing.cross_origin import PageAccess
from http1.stream import IGNORED, Request, RequestStream, ResponseWriter
from runtime.tasks import spawn
from wire.headers import NVCF_SENT_TARGET
from wire.ids import process_of, request_id

Refuse = Callable[[GatewayError], object]
"""Responds with a problem."""
_NO_PAGE = PageAccess(None, None, replaces=False)
_COUNTED = [decision for decision in Decision if decision is not Decision.WAIT]


class KeyedRequest(NamedTuple):
    """An admitted call with a key.

    ``poll_s`` is how long its client waits for a response, ``access`` what that gets for web pages.
    ``references`` are those of its input assets, if the request has them no more. ``form`` is that
    of its responses if it came over the polling routes; then ``terms`` do not count.
    """

    request: Request
    client: ResponseWriter
    head: CallHead
    caller: Caller
    terms: Terms
    poll_s: int
    access: PageAccess | None
    references: bytes
    form: PolledForm | None = None

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the request without its body."""
        target = self.head.sent_target or self.request.target
        return Fingerprint(self.request, target, self.head.version_id, self.references)


class KeyedPorts(NamedTuple):
    """What becomes of one call.

    ``begin`` begins a call that has claimed its key, and returns what receives its request; if it
    raises a `GatewayError`, the call has not begun. ``refuse`` responds with a problem, ``left``
    records that the client has left before the call was an invocation. ``max_body_bytes`` is the
    limit of its body, 0 for none.
    """

    begin: Callable[[KeyedCall], RequestStream]
    refuse: Refuse
    left: Callable[[], object]
    max_body_bytes: int


class KeyedCalls:
    """The calls with keys of one process. ``decisions`` counts what became of them, by its name."""

    def __init__(self, claims: KeyClaims, book: RequestBook, forwarder: Forwarder) -> None:
        self._claims = claims
        self._book = book
        self._forwarder = forwarder
        self.decisions = {decision.value: 0 for decision in _COUNTED}
        self._random = Randomness()
        self._process = forwarder.process
        # Those that have not begun: their claims are under way, or they wait for a rate limit.
        self._unbegun: dict[str, KeyedCall] = {}

    def serve(self, call: KeyedRequest, ports: KeyedPorts) -> HeldCall:
        """Begin the call if it is the first with its key. Raises `BadRequest`."""
        account = call.caller.account
        name = claim_name(account, call.caller.version.function_id, key_of(call.request))
        keyed = KeyedCall(
            request_id(self._random.take(), self._process),
            ClaimPosition(account, name),
            call.fingerprint(),
        )
        self._unbegun[keyed.request_id] = keyed
        held = HeldCall(left=ports.left)
        earlier: KeyClaim | None = None

        async def claim() -> None:
            nonlocal earlier
            body = call.fingerprint()
            fingerprint = body.digest() if held.add_to(body) else ""
            own = KeyClaim(keyed.request_id, fingerprint)
            earlier = await self._claims.claim(keyed.position, own)
            if earlier is not None:
                del self._unbegun[keyed.request_id]

        def serve() -> RequestStream:
            if earlier is not None:
                return self._repeat(call, keyed.position, earlier, ports)
            try:
                return ports.begin(keyed)
            except GatewayError:
                self.end_unbegun(keyed)
                raise

        held.wait(
            self.guarded(keyed, claim()),
            call.client,
            serve,
            lambda: self.end_unbegun(keyed),
            ports.refuse,
        )
        return held

    async def guarded(self, keyed: KeyedCall, decision: Coroutine[None, None, None]) -> None:
        """Wait for what decides about a call that has not begun."""
        try:
            await decision
        except GatewayError:
            self.end_unbegun(keyed)
            raise

    def end_unbegun(self, keyed: KeyedCall) -> None:
        """The call will not begin: its key is free again, unless it is another call's."""
        if self._unbegun.pop(keyed.request_id, None) is not None:
            self._claims.release(keyed.position, keyed.request_id)
            keyed.refused()

    def begun(self, keyed: KeyedCall, call: DetachedCall, invocation: OnceInvocation) -> None:
        """The call is an invocation now, and has begun."""
        del self._unbegun[keyed.request_id]
        keyed.begun(call, invocation)
        call.keyed = keyed
        self._count(Decision.RUN)

        def changed() -> None:
            if call.is_over:
                call.unwatch(changed)
                self._ended(keyed)

        call.watch(changed)
        changed()

    def _ended(self, keyed: KeyedCall) -> None:
        if keyed.over():
            self._claims.keep(keyed.request_id)
        else:
            self._claims.release(keyed.position, keyed.request_id)

    # Calls that repeat another one

    def _repeat(
        self, call: KeyedRequest, position: ClaimPosition, earlier: KeyClaim, ports: KeyedPorts
    ) -> RepeatedRequest:
        first_id = earlier.request_id

        def complete(fingerprint: str) -> None:
            if is_same(fingerprint, earlier.fingerprint) is False:
                self._count(Decision.REFUSE)
                ports.refuse(KeyReused())
                return
            asked = Repetition(
                first_id, position, fingerprint, call.terms, call.poll_s, call.access, call.form
            )
            if process_of(first_id) == self._process:
                stream = self._serve_here(asked, call.request, call.client, ports.refuse)
            else:
                stream = self._forward(asked, call)
            repeated.serve(stream)

        repeated = RepeatedRequest(
            call.fingerprint(), complete, ports.refuse, ports.left, ports.max_body_bytes
        )
        return repeated

    def _serve_here(
        self, asked: Repetition, request: Request, client: ResponseWriter, refuse: Refuse
    ) -> RequestStream:
        """Give a client the response of a call that this process holds, or has held."""
        first = self._book.find(asked.first_id)
        keyed = self._unbegun.get(asked.first_id) if first is None else first.keyed
        if keyed is None:
            if not self._claims.is_released(asked.first_id):
                return self._serve_stored(asked, request, client, self._unknown)
            # Its claim is there still: it could not be released, or was written late.
            spawn(self._claims.release_of(asked.position, asked.first_id), "claim-release")
            self._count(Decision.AGAIN)
            refuse(Conflict(DID_NOT_RUN))
            return IGNORED

        def make(first: DetachedCall) -> RepeatedResponse:
            form = asked.form
            if form is None:
                return RepeatedExchange(first, client, self._book, asked)
            watched = watch(first, client, _not_counted)
            writer = form.writer(watched, asked.first_id)
            return RepeatedPollExchange(
                first, writer, self._book, asked, watched, is_exec=form.is_exec
            )

        repeated = RepeatedCall(keyed, asked, make, refuse, self._count, self._book)
        repeated.start()
        return repeated

    def _serve_stored(
        self, asked: Repetition, request: Request, client: ResponseWriter, absent: Absent
    ) -> RequestStream:
        form = asked.form
        stored = RepeatedFromStore(
            Asked(
                request,
                asked.first_id,
                b"response",
                asked.access or _NO_PAGE,
                asked.poll_s,
                b"",
                _may_see,
                _not_counted,
            ),
            client if form is None else form.writer(client, asked.first_id),
            self._book.responses,
            absent,
            self._book.with_webhook,
            refused=client,
        )
        stored.fingerprint, stored.count = asked.fingerprint, self._count
        return stored

    def _forward(self, asked: Repetition, call: KeyedRequest) -> RequestStream:
        """Ask the process that holds the first call."""
        client, request = call.client, call.request
        return self._forwarder.serve(
            forwarded_request(asked, request),
            client if asked.access is None else PageWriter(client, asked.access),
            process_of(asked.first_id),
            max(asked.poll_s, asked.terms.wait_s),
            lambda: self._serve_stored(asked, request, client, self._unknown),
            lambda: self._serve_stored(asked, request, client, holder_silent),
        )

    def serve_forwarded(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve what `forwarded_request` of another process has made. Raises `NotFound`."""
        asked = repetition_of(request)
        sent = copy(request)
        sent.target = request.values.get(NVCF_SENT_TARGET, request.target)
        return self._serve_here(
            asked, sent, client, lambda error: send_problem(sent, client, error)
        )

    async def _unknown(self, first_id: str) -> GatewayError:
        """Return what is said of a first call of which nothing is known any more."""
        self._count(Decision.UNKNOWN)
        return OutcomeUnknown(firstRequestId=first_id)

    def _count(self, decision: Decision) -> None:
        self.decisions[decision.value] += 1


def _may_see(*_of_call: str) -> bool:
    """Whoever has found the claim of a call is of its account."""
    return True


def _not_counted(*_request_and_status: object) -> None:
    """A repeated call is counted with its refusals, and in `KeyedCalls.decisions`."""
