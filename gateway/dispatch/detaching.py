"""Begins calls that outlive their connection (`gateway.requests`)."""

from collections.abc import Callable
from copy import copy

from gateway.dispatch.keyed_calls import KeyedCalls, KeyedRequest
from gateway.errors import BodyTooLarge
from gateway.invocation.context import Ticket
from gateway.invocation.machine import Invocation
from gateway.invocation.once import OnceInvocation
from gateway.invocation.upload import smaller_limit
from gateway.requests.book import RequestBook
from gateway.requests.detached import DetachedCall
from gateway.requests.errors import NotDetachable
from gateway.requests.exchanges import FirstExchange
from gateway.requests.keyed import KeyedCall, KeyedExchange
from gateway.requests.prefer import Terms, detached_headers
from gateway.routing.admission import Caller, CallPlan
from gateway.routing.call_head import CallHead
from http1.stream import KnownHead, Request, ResponseWriter
from wire.deadlines import MAX_POLL_S
from wire.headers import IDEMPOTENCY_KEY, NVCF_DETACH, NVCF_WEBHOOK_URL, PREFER
from wire.ids import RequestId

DETACHING = frozenset({PREFER, NVCF_DETACH, NVCF_WEBHOOK_URL, IDEMPOTENCY_KEY})
"""Headers with which a call asks to outlive its connection, or that only such a call may have."""

BeginOnce = Callable[[Request, ResponseWriter, CallHead, Caller, Ticket], OnceInvocation]
"""Begins the invocation of an admitted call that is run at most once."""
Begin = Callable[[Request, ResponseWriter, CallHead, Caller, int, CallPlan | None], Invocation]
"""Begins the invocation of an admitted call; the number is Unix time in ns."""


class DetachedPlan(CallPlan):
    """What holds for each detached call with the same head.

    ``caller`` has the window of the call, and ``inner`` is the head of its invocation's request.
    """

    __slots__ = ("inner", "terms")

    def __init__(self, plan: CallPlan, terms: Terms, inner: KnownHead) -> None:
        super().__init__(plan.head, plan.caller, plan.model, plan.expires_at)
        self.terms = terms
        self.inner = inner


class Detaching:
    """Begins detached calls of the book."""

    __slots__ = ("_begin", "_max_body_bytes", "book")

    def __init__(self, book: RequestBook, begin: Begin, max_body_bytes: int) -> None:
        """``max_body_bytes`` is the limit for all functions, 0 for none."""
        self.book = book
        self._begin = begin
        self._max_body_bytes = max_body_bytes

    def check(self, request: Request, head: CallHead, caller: Caller, terms: Terms) -> None:
        """Raise for a call that cannot be detached so.

        `NotDetachable`, `BodyTooLarge`, or `BadRequest` for its webhook.
        """
        if request.protocol or head.is_grpc:
            raise NotDetachable
        limit = smaller_limit(self._max_body_bytes, caller.version.max_body_bytes)
        if 0 < limit < (request.body_bytes or 0):
            raise BodyTooLarge.above(limit)
        if terms.webhook:
            self.book.check_webhook(terms.webhook)

    def plan(self, request: Request, plan: CallPlan | None, terms: Terms) -> DetachedPlan | None:
        """Return what of a call holds for the next one with the same head, `None` if nothing does.

        ``plan`` is the same for a call that is attached.
        """
        if plan is None or terms.webhook:
            return None
        return DetachedPlan(plan, terms, KnownHead(_inner(request, terms, MAX_POLL_S)))

    def begin(  # noqa: PLR0913 - what makes a call
        self,
        terms: Terms,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        caller: Caller,
        now_ns: int,
        plan: CallPlan | None,
    ) -> FirstExchange:
        """Begin an admitted call, whose window is as long as there is one.

        Return what receives its request. Raises `gateway.requests.errors.TooManyDetachedCalls` and
        `StorageQuota`.
        """
        kind = "async" if terms.is_async else "on_disconnect"
        call = self.book.make(caller.account, client, kind, now_ns * 1e-9)
        if isinstance(plan, DetachedPlan):
            inner = plan.inner.request(request.received_at, request.peer)
            inner.source = request.source
        else:
            inner = _inner(request, terms, MAX_POLL_S)
        invocation = self._begin(inner, call, head, caller, now_ns, plan)
        _begun(call, invocation, terms)
        self.book.add(call)
        exchange = FirstExchange(call, client, self.book, terms)
        exchange.start()
        return exchange

    def begin_keyed(
        self,
        call: KeyedRequest,
        now_ns: int,
        keyed: KeyedCall,
        begin_once: BeginOnce,
        calls: KeyedCalls,
    ) -> FirstExchange:
        """Begin an admitted call that has claimed its key, as `begin`."""
        caller, terms = call.caller._replace(poll_s=keyed_window_s(call)), call.terms
        detached = self.book.make(caller.account, call.client, "keyed", now_ns * 1e-9)
        inner = _inner(call.request, terms, caller.poll_s)
        ticket = Ticket(RequestId(keyed.request_id), now_ns)
        invocation = begin_once(inner, detached, call.head, caller, ticket)
        _begun(detached, invocation, terms)
        calls.begun(keyed, detached, invocation)
        self.book.add(detached)
        exchange = KeyedExchange(detached, call.client, self.book, terms, keyed)
        exchange.start()
        return exchange


def keyed_window_s(call: KeyedRequest) -> int:
    """Return how long a call with a key may wait for its response head, in seconds.

    Unless its client has asked for more, its poll window is the client's, as if attached.
    """
    is_detached = call.terms.is_async or NVCF_DETACH in call.request.values
    return MAX_POLL_S if is_detached else call.caller.poll_s


def _begun(call: DetachedCall, invocation: Invocation, terms: Terms) -> None:
    """Let ``call`` and its invocation know of each other."""
    invocation.detached = call.kind
    call.begins(invocation)
    call.webhook_url = terms.webhook.decode()


def _inner(request: Request, terms: Terms, window_s: int) -> Request:
    """Return the request of the call's invocation."""
    inner = copy(request)
    inner.headers = detached_headers(request.headers, terms, window_s)
    inner.values = dict(inner.headers)
    inner.known = None
    return inner
