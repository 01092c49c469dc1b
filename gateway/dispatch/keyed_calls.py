"""Calls with an Idempotency-Key: the first with a key runs, the others get its response.

A call waits in a `HeldCall` until its key is claimed, or found to be another call's. Nothing but
calls with the header comes here. What a call that repeats another one sends is read to its end and
compared, by whoever holds the first call, or its response.
"""

from collections.abc import Callable, Coroutine
from typing import NamedTuple

from gateway.dispatch.held_call import HeldCall
from gateway.dispatch.randomness import Randomness
from gateway.errors import Conflict, GatewayError, KeyReused, OutcomeUnknown
from gateway.requests.book import RequestBook
from gateway.requests.detached import DetachedCall
from gateway.requests.idempotency import Fingerprint, KeyClaim, claim_name, is_same, key_of
from gateway.requests.key_claims import ClaimPosition, KeyClaims
from gateway.requests.keyed import (
    DID_NOT_RUN,
    KeyedCall,
    RepeatedCall,
    RepeatedExchange,
    RepeatedRequest,
)
from gateway.requests.prefer import Terms
from gateway.routing.admission import Caller
from gateway.routing.call_head import CallHead
from gateway.routing.cross_origin import PageAccess
from http1.stream import Request, RequestStream, ResponseWriter
from runtime.tasks import spawn
from wire.ids import process_of, request_id


class KeyedRequest(NamedTuple):
    """An admitted call with a key.

    ``access`` is what its response gets for web pages, ``max_body_bytes`` the limit of its body, 0
    for none.
    """

    request: Request
    client: ResponseWriter
    head: CallHead
    caller: Caller
    terms: Terms
    access: PageAccess | None
    max_body_bytes: int

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the request without its body."""
        target = self.head.sent_target or self.request.target
        return Fingerprint(self.request, target, self.head.version_id)


class KeyedPorts(NamedTuple):
    """What becomes of one call.

    ``begin`` begins a call that has claimed its key, and returns what receives its request; if it
    raises a `GatewayError`, the call has not begun. ``refuse`` responds with a problem, ``left``
    records that the client has left before the call was an invocation.
    """

    begin: Callable[[KeyedCall], RequestStream]
    refuse: Callable[[GatewayError], object]
    left: Callable[[], object]


class KeyedCalls:
    """The calls with keys of one process."""

    def __init__(
        self, claims: KeyClaims, book: RequestBook, random: Randomness, process: int
    ) -> None:
        """``process`` is the number of the process (`wire.ids`)."""
        self._claims = claims
        self._book = book
        self._random = random
        self._process = process
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

    def begun(self, keyed: KeyedCall, call: DetachedCall) -> None:
        """The call is an invocation now."""
        del self._unbegun[keyed.request_id]
        call.keyed = keyed

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
        def complete(fingerprint: str) -> None:
            if is_same(fingerprint, earlier.fingerprint) is False:
                ports.refuse(KeyReused())
                return
            if process_of(earlier.request_id) == self._process:
                stream = self.answer(earlier.request_id, fingerprint, call, ports.refuse)
                if stream is not None:
                    repeated.serve(stream)
                    return
            spawn(self._answer_elsewhere(earlier, position, repeated, ports), "repeated-call")

        repeated = RepeatedRequest(
            call.fingerprint(), complete, ports.refuse, ports.left, call.max_body_bytes
        )
        return repeated

    def answer(
        self,
        first_id: str,
        fingerprint: str,
        call: KeyedRequest,
        refuse: Callable[[GatewayError], object],
    ) -> RequestStream | None:
        """Give a client the response of a call that this process holds; `None` if it does not."""
        found = self._book.find(first_id)
        keyed = self._unbegun.get(first_id) if found is None else found.keyed
        if keyed is None or keyed.position.account != call.caller.account:
            return None

        def make(first: DetachedCall) -> RepeatedExchange:
            return RepeatedExchange(
                first, call.client, self._book, call.access, call.terms, call.caller.poll_s
            )

        repeated = RepeatedCall(keyed, fingerprint, make, refuse)
        repeated.start()
        return repeated

    async def _answer_elsewhere(
        self,
        earlier: KeyClaim,
        position: ClaimPosition,
        repeated: RepeatedRequest,
        ports: KeyedPorts,
    ) -> None:
        try:
            if self._claims.is_released(earlier.request_id):
                await self._claims.release_of(position, earlier.request_id)
                raise Conflict(DID_NOT_RUN)
            raise OutcomeUnknown(firstRequestId=earlier.request_id)
        except GatewayError as error:
            if not repeated.is_broken:
                ports.refuse(error)
