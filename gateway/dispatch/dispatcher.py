"""Decides whether a request invokes a function or is for one of the path endpoints."""

import time
from collections.abc import Awaitable, Callable, Coroutine
from copy import copy
from functools import partial
from typing import NamedTuple

from gateway.dispatch.detaching import DETACHING, DetachedPlan, Detaching, keyed_window_s
from gateway.dispatch.endpoints import PathEndpoints
from gateway.dispatch.held_call import HeldCall
from gateway.dispatch.keyed_calls import KeyedCalls, KeyedPorts, KeyedRequest, Refuse
from gateway.dispatch.model_calls import ModelCallPorts
from gateway.dispatch.plain_address import PlainAddress
from gateway.dispatch.polling import FindAssets, PollingPorts, PollingRoutes
from gateway.dispatch.rate_limits import RateLimits
from gateway.dispatch.refusals import INVOCATION, Refusals
from gateway.dispatch.registry import InvocationRegistry
from gateway.dispatch.responses import send_problem, with_ids
from gateway.errors import BadRequest, FunctionNotFound, GatewayError, Overloaded
from gateway.invocation.context import Context, Ticket
from gateway.invocation.machine import Invocation
from gateway.invocation.once import OnceInvocation, PolledOnceInvocation
from gateway.invocation.polled import PolledInvocation, ProgressWriter
from gateway.invocation.upload import smaller_limit
from gateway.invocation.websocket import WebSocketInvocation
from gateway.objects.references import parse_references
from gateway.requests.book import RequestBook
from gateway.requests.endpoint import RequestRoute, route_of
from gateway.requests.exchanges import REQUESTS_PATH
from gateway.requests.keyed import KeyedCall
from gateway.requests.prefer import Terms, terms_of
from gateway.routing.admission import Admission, Caller, CallPlan
from gateway.routing.call_head import TOKEN_PARAMETER, CallHead, speaks_grpc, take_token
from gateway.routing.sources import Sources
from gateway.routing.websocket import check_handshake, take_key
from http1.stream import IGNORED, Request, RequestStream, ResponseWriter, respond
from wire.deadlines import MAX_POLL_S
from wire.headers import IDEMPOTENCY_KEY, NVCF_INPUT_ASSET_REFERENCES, NVCF_WEBHOOK_URL
from wire.ids import request_id

_NO_WEBHOOK = "NVCF-Webhook-URL is not for the polling routes: call the function's own host or path"
_NO_FUNCTION = "The call names no function: send its id as the metadata function-id"
_BeginCall = Callable[
    [Request, ResponseWriter, CallHead, Caller, int, CallPlan | None], RequestStream
]
"""Begins an admitted call; the number is Unix time in ns. May raise `GatewayError`."""


class Gates(NamedTuple):
    """What a call has to pass before it is an invocation."""

    admission: Admission
    rates: RateLimits


class Dispatcher:
    """The `http1.stream.Dispatch` of every public listener."""

    __slots__ = (
        "_admission",
        "_context",
        "_cross_origin",
        "_detaching",
        "_elsewhere",
        "_find_assets",
        "_keyed",
        "_random",
        "_rates",
        "_read_head",
        "_refusals",
        "_registry",
        "_requests",
        "_sources",
    )

    def __init__(  # noqa: PLR0913 - one argument per part
        self,
        context: Context[Invocation],
        registry: InvocationRegistry,
        read_head: Callable[[Request], CallHead | None],
        gates: Gates,
        endpoints: PathEndpoints,
        refusals: Refusals,
        sources: Sources,
        book: RequestBook,
        keyed: KeyedCalls,
        polling: Callable[[PollingPorts], PollingRoutes] | None = None,
        find_assets: FindAssets | None = None,
    ) -> None:
        """``read_head`` as from `gateway.routing.call_head.call_head_reader`.

        ``polling`` makes NVCF's polling routes, if the process serves them. Without
        ``find_assets``, what names input assets is a header like others.
        """
        self._find_assets = find_assets
        self._detaching = Detaching(book, self._begin, context.max_body_bytes)
        self._keyed = keyed
        self._context = context
        self._registry = registry
        self._read_head = read_head
        self._admission, self._rates = gates
        self._cross_origin = endpoints.cross_origin
        self._requests = endpoints.requests
        names = self._admission.names
        self._elsewhere = (
            endpoints.serve
            if names is None
            else PlainAddress(
                endpoints,
                names,
                self._admission.authenticate,
                ModelCallPorts(self._invoke, self._refuse_call, self._left),
                context.max_body_bytes,
            ).serve
        )
        if polling is not None:
            endpoints.polling = polling(
                PollingPorts(
                    self._admit_polled,
                    self._begin_polled,
                    self._serve_keyed_polled,
                    self._begin_polled_once,
                    self._refuse_polled,
                    self._left,
                    refusals.polled,
                )
            )
        self._refusals = refusals
        self._sources = sources
        self._random = registry.random

    def __call__(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve one request; a `GatewayError` on the way becomes its response."""
        endpoint = "UNKNOWN"
        request.source = self._sources.find(request)
        if request.known is not None and isinstance(request.known.plan, CallPlan):
            plan, now_ns = request.known.plan, time.time_ns()
            if self._admission.is_valid(plan, now_ns * 1e-9):
                return self._serve_again(request, client, plan, now_ns)
        head: CallHead | None = None
        try:
            route = _fetched_route(request)
            if route is not None:
                return self._requests.serve_route(request, client, route)
            head = self._find_head(request)
            if head is None:
                if speaks_grpc(request):
                    raise FunctionNotFound(_NO_FUNCTION)
                return self._elsewhere(request, client)
            endpoint = INVOCATION
            if TOKEN_PARAMETER in request.target:
                head = take_token(request, head)
            if head.origin is not None:
                preflight = self._cross_origin.preflight(request, head)
                if preflight is not None:
                    self._refusals.preflight(request, 204)
                    return respond(request, client, 204, with_ids(preflight), b"")
            return self._invoke(request, client, head)
        except GatewayError as error:
            return self._refuse(request, client, error, head, endpoint)

    def _find_head(self, request: Request) -> CallHead | None:
        """Return what a request calls, `None` for the path endpoints. Raises `GatewayError`."""
        if request.protocol:
            take_key(request)
        head = self._read_head(request)
        if request.target.startswith(REQUESTS_PATH) and route_of(request.target) is not None:
            # Also on a function's own host: a 202 has sent its client there.
            return None
        return head

    def _refuse(
        self,
        request: Request,
        client: ResponseWriter,
        error: GatewayError,
        head: CallHead | None,
        endpoint: str,
    ) -> RequestStream:
        request = _as_sent(request, head)
        access = self._cross_origin.of_refusal(request, head)
        error.headers = access.of_own_response(error.headers)
        request_id = send_problem(request, client, error)
        self._refusals.refused(request, error, request_id, endpoint, head)
        return IGNORED

    def _refuse_call(
        self, request: Request, client: ResponseWriter, error: GatewayError, head: CallHead
    ) -> RequestStream:
        """Refuse a call that names its function neither by its host nor by a header."""
        return self._refuse(request, client, error, head, INVOCATION)

    def _left(self, request: Request, head: CallHead) -> None:
        """Record that the client of a call left before it was an invocation."""
        self._refusals.left(_as_sent(request, head), head)

    def _serve_again(
        self, request: Request, client: ResponseWriter, plan: CallPlan, now_ns: int
    ) -> RequestStream:
        """Serve a call whose head is known and admitted."""
        try:
            if isinstance(plan, DetachedPlan):
                begin = partial(self._detaching.begin, plan.terms)
                return self._offer(request, client, plan.head, plan.caller, now_ns, plan, begin)
            return self._offer(request, client, plan.head, plan.caller, now_ns, plan)
        except GatewayError as error:
            return self._refuse(request, client, error, plan.head, INVOCATION)

    def _invoke(
        self, request: Request, client: ResponseWriter, head: CallHead, references: bytes = b""
    ) -> RequestStream:
        """Serve a call of a function; ``references`` are those of input assets, found already."""
        now_ns = time.time_ns()
        caller = self._admission.admit(head, now_ns * 1e-9)
        if NVCF_INPUT_ASSET_REFERENCES in request.values and self._find_assets is not None:
            references = request.values[NVCF_INPUT_ASSET_REFERENCES]
            asset_ids = parse_references(references)
            request = _without_references(request)
            if asset_ids:
                found = self._find_assets(caller.account, asset_ids)
                return self._hold_for_assets(request, client, head, found, references)
        if not DETACHING.isdisjoint(request.values):
            terms = terms_of(request)
            if IDEMPOTENCY_KEY in request.values:
                terms = terms or Terms()
                return self._serve_keyed(request, client, head, caller, terms, references)
            if terms is not None:
                return self._detach(request, client, head, caller, now_ns, terms)
        plan = None
        if request.protocol:
            check_handshake(request, caller.version)
        elif request.known is not None:
            plan = request.known.plan = self._admission.plan(head, caller)
        return self._offer(request, client, head, caller, now_ns, plan)

    def _hold_for_assets(
        self,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        found: Awaitable[bytes],
        references: bytes,
    ) -> HeldCall:
        """Admit a call again when its input assets are found; only then it is one."""

        async def find() -> None:
            request.source = request.source.with_fields(await found)

        held = HeldCall(left=lambda: self._left(request, head))
        held.wait(
            find(),
            client,
            serve=lambda: self._invoke(request, client, head, references),
            withdraw=lambda: None,
            refuse=lambda error: self._refuse(request, client, error, head, INVOCATION),
        )
        return held

    def _offer(  # noqa: PLR0913 - what makes a call
        self,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        caller: Caller,
        now_ns: int,
        plan: CallPlan | None,
        begin: _BeginCall | None = None,
        route: str = "",
    ) -> RequestStream:
        """Begin a call unless there are too many; it is held while its rate limit decides.

        ``begin`` begins one that is not attached, ``route`` is that of one over the polling routes.
        """
        decision = self._admit(caller)
        begin = begin or self._begin
        if decision is None:
            return begin(request, client, head, caller, now_ns, plan)

        def refuse(error: GatewayError) -> None:
            if route:
                self._refuse_polled(request, client, error, head, route)
            else:
                self._refuse(request, client, error, head, INVOCATION)

        held = HeldCall(left=lambda: self._left(request, head))
        held.wait(
            decision,
            client,
            serve=lambda: begin(request, client, head, caller, time.time_ns(), None),
            withdraw=lambda: self._rates.withdraw(caller),
            refuse=refuse,
        )
        return held

    def _detach(
        self,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        caller: Caller,
        now_ns: int,
        terms: Terms,
    ) -> RequestStream:
        """Begin an admitted call that outlives its connection. Raises `GatewayError`."""
        detaching = self._detaching
        detaching.check(request, head, caller, terms)
        caller = caller._replace(poll_s=MAX_POLL_S)
        plan = None
        if request.known is not None:
            plan = detaching.plan(request, self._admission.plan(head, caller), terms)
            request.known.plan = plan
        return self._offer(
            request, client, head, caller, now_ns, plan, partial(detaching.begin, terms)
        )

    def _serve_keyed(
        self,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        caller: Caller,
        terms: Terms,
        references: bytes,
    ) -> RequestStream:
        """Serve a call with an Idempotency-Key."""
        self._detaching.check(request, head, caller, terms)
        access = None
        if head.origin is not None or caller.version.page_policy is not None or head.is_linked:
            access = self._cross_origin.of_call(caller.version, head)
        call = KeyedRequest(request, client, head, caller, terms, caller.poll_s, access, references)

        def begin(keyed: KeyedCall) -> RequestStream:
            return self._detaching.begin_keyed(
                call, time.time_ns(), keyed, self._begin_once, self._keyed
            )

        def refuse(error: GatewayError) -> None:
            self._refuse(request, client, error, head, INVOCATION)

        return self._claim(call, begin, refuse)

    def _claim(
        self, call: KeyedRequest, begin: Callable[[KeyedCall], RequestStream], refuse: Refuse
    ) -> HeldCall:
        """Begin a call if it is the first with its key, unless there are too many."""
        caller, max_bytes = call.caller, self._context.max_body_bytes
        ports = KeyedPorts(
            lambda keyed: self._begin_keyed(call, keyed, begin, refuse),
            refuse,
            lambda: self._left(call.request, call.head),
            smaller_limit(max_bytes, caller.version.max_body_bytes),
        )
        return self._keyed.serve(call, ports)

    def _begin_keyed(
        self,
        call: KeyedRequest,
        keyed: KeyedCall,
        begin: Callable[[KeyedCall], RequestStream],
        refuse: Refuse,
    ) -> RequestStream:
        """Begin a call that has claimed its key, unless there are too many."""
        caller = call.caller
        decision = self._admit(caller._replace(poll_s=keyed_window_s(call)))
        if decision is None:
            return begin(keyed)

        def withdraw() -> None:
            self._rates.withdraw(caller)
            self._keyed.end_unbegun(keyed)

        def give_up(error: GatewayError) -> None:
            self._keyed.end_unbegun(keyed)
            refuse(error)

        held = HeldCall(left=lambda: self._left(call.request, call.head))
        held.wait(
            self._keyed.guarded(keyed, decision),
            call.client,
            lambda: begin(keyed),
            withdraw,
            give_up,
        )
        return held

    def _admit(self, caller: Caller) -> Coroutine[None, None, None] | None:
        """Return what decides whether a call is accepted, `None` if it is.

        Raises `Overloaded` and `RateLimited`.
        """
        try:
            bounds, wait_s = caller.bounds, caller.poll_s
            if bounds is not None:
                wait_s = bounds.wait_s(wait_s)
            self._registry.lines.admit(caller.version.version_id, wait_s)
        except Overloaded:
            self._refusals.overloaded(caller.version)
            raise
        return None if caller.version.rate_limit is None else self._rates.admit(caller)

    def _admit_polled(
        self,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        route: str,
        serve: Callable[[Caller], RequestStream],
    ) -> RequestStream:
        """Serve a call over the polling routes unless there are too many calls."""
        caller = self._admission.admit(head, time.time())
        if NVCF_WEBHOOK_URL in request.values:
            raise BadRequest(_NO_WEBHOOK)
        self._detaching.check(request, head, caller, Terms())
        if IDEMPOTENCY_KEY in request.values:
            # There may be too many only of the first calls with a key: `_begin_keyed` finds out.
            return serve(caller)
        return self._offer(
            request, client, head, caller, time.time_ns(), None, lambda *_: serve(caller), route
        )

    def _begin_polled(
        self,
        request: Request,
        client: ProgressWriter,
        head: CallHead,
        caller: Caller,
        now_ns: int,
        more_fields: bytes,
    ) -> Invocation:
        def make(ticket: Ticket) -> Invocation:
            return PolledInvocation(self._context, client, request, caller, ticket, more_fields)

        return self._begin(request, client, head, caller, now_ns, make=make)

    def _serve_keyed_polled(
        self, call: KeyedRequest, route: str, begin: Callable[[KeyedCall], RequestStream]
    ) -> HeldCall:
        """Serve a call over the polling routes with an Idempotency-Key."""

        def refuse(error: GatewayError) -> None:
            self._refuse_polled(call.request, call.client, error, call.head, route)

        return self._claim(call, begin, refuse)

    def _begin_polled_once(
        self,
        request: Request,
        client: ProgressWriter,
        head: CallHead,
        caller: Caller,
        ticket: Ticket,
        more_fields: bytes,
    ) -> OnceInvocation:
        """As `_begin_once`, over the polling routes."""
        invocation = PolledOnceInvocation(
            self._context, client, request, caller, ticket, more_fields
        )
        self._open(invocation, request, head, caller)
        return invocation

    def _refuse_polled(
        self,
        request: Request,
        client: ResponseWriter,
        error: GatewayError,
        head: CallHead,
        route: str,
    ) -> RequestStream:
        """Refuse a request to the polling routes: pages may read why, as on the API's paths."""
        access = self._cross_origin.of_endpoint(request)
        error.headers = access.of_own_response(error.headers)
        request_id = send_problem(_as_sent(request, head), client, error)
        self._refusals.refused(request, error, request_id, route, head)
        return IGNORED

    def _begin(  # noqa: PLR0913 - what makes a call
        self,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        caller: Caller,
        now_ns: int,
        plan: CallPlan | None = None,
        make: Callable[[Ticket], Invocation] | None = None,
    ) -> Invocation:
        """Begin the invocation of an admitted call; ``make`` makes one that is not ordinary."""
        context = self._context
        take = self._random.take
        ticket = Ticket(request_id(take(), context.process), now_ns)
        if make is not None:
            invocation = make(ticket)
        elif request.protocol:
            invocation = WebSocketInvocation(context, client, request, caller, ticket)
        else:
            invocation = Invocation(
                context, client, request, caller, ticket, plan, is_grpc=head.is_grpc
            )
        return self._open(invocation, request, head, caller)

    def _begin_once(
        self,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        caller: Caller,
        ticket: Ticket,
    ) -> OnceInvocation:
        """Begin an invocation that has its request id already, and is run at most once."""
        invocation = OnceInvocation(self._context, client, request, caller, ticket)
        self._open(invocation, request, head, caller)
        return invocation

    def _open(
        self, invocation: Invocation, request: Request, head: CallHead, caller: Caller
    ) -> Invocation:
        if head.sent_target:
            invocation.target = head.sent_target
            if isinstance(invocation, PolledInvocation):
                invocation.route = head.route
        if head.origin is not None or caller.version.page_policy is not None or head.is_linked:
            invocation.page_access = self._cross_origin.of_call(caller.version, head)
        self._registry.open(invocation)
        if request.body_bytes:
            limit = smaller_limit(self._context.max_body_bytes, caller.version.max_body_bytes)
            if 0 < limit < request.body_bytes:
                invocation.body_too_large(limit)
                return invocation
        if not caller.version.capacity:
            self._registry.wake(caller.version.version_id)
        return invocation


def _fetched_route(request: Request) -> RequestRoute | None:
    """Return the route of a GET for a detached call, `None` for every other request."""
    if request.method != b"GET" or request.protocol:
        return None
    return route_of(request.target)


def _without_references(request: Request) -> Request:
    """Return ``request`` without the header that names its input assets."""
    changed = copy(request)
    changed.headers = [
        header for header in request.headers if header[0] != NVCF_INPUT_ASSET_REFERENCES
    ]
    changed.values = dict(changed.headers)
    changed.known = None
    return changed


def _as_sent(request: Request, head: CallHead | None) -> Request:
    """Return ``request`` with the target that the client sent."""
    if head is None or not head.sent_target:
        return request
    sent = copy(request)
    sent.target = head.sent_target
    return sent
