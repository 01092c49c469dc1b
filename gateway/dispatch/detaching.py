"""Begins calls that outlive their connection (`gateway.requests`)."""

from collections.abc import Callable
from copy import copy

from gateway.errors import BodyTooLarge
from gateway.invocation.machine import Invocation
from gateway.invocation.upload import smaller_limit
from gateway.requests.book import RequestBook
from gateway.requests.detached import DetachedCall
from gateway.requests.errors import NotDetachable
from gateway.requests.exchanges import FirstExchange
from gateway.requests.prefer import Terms, detached_headers
from gateway.routing.admission import Caller
from gateway.routing.call_head import CallHead
from http1.stream import Request, ResponseWriter
from wire.deadlines import MAX_POLL_S
from wire.headers import NVCF_DETACH, PREFER

DETACHING = frozenset({PREFER, NVCF_DETACH})
"""Headers with which a call may ask to outlive its connection."""

Begin = Callable[[Request, ResponseWriter, CallHead, Caller, int], Invocation]
"""Begins the invocation of an admitted call; the last argument is Unix time in ns."""


class Detaching:
    """Begins detached calls of the book."""

    __slots__ = ("_begin", "_max_body_bytes", "book")

    def __init__(self, book: RequestBook, begin: Begin, max_body_bytes: int) -> None:
        """``max_body_bytes`` is the limit for all functions, 0 for none."""
        self.book = book
        self._begin = begin
        self._max_body_bytes = max_body_bytes

    def check(self, request: Request, head: CallHead, caller: Caller) -> None:
        """Raise `NotDetachable` or `BodyTooLarge` for a call that cannot be detached."""
        if request.protocol or head.is_grpc:
            raise NotDetachable
        limit = smaller_limit(self._max_body_bytes, caller.version.max_body_bytes)
        if 0 < limit < (request.body_bytes or 0):
            raise BodyTooLarge.above(limit)

    def begin(
        self,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        caller: Caller,
        now_ns: int,
        terms: Terms,
    ) -> FirstExchange:
        """Begin an admitted call; return what receives its request.

        Raises `gateway.requests.errors.TooManyDetachedCalls` and `StorageQuota`.
        """
        kind = "async" if terms.is_async else "on_disconnect"
        call = self.book.make(caller.account, client, kind, now_ns * 1e-9)
        self.begin_call(call, request, head, caller, now_ns, terms)
        exchange = FirstExchange(call, client, self.book, terms)
        exchange.start()
        return exchange

    def begin_call(
        self,
        call: DetachedCall,
        request: Request,
        head: CallHead,
        caller: Caller,
        now_ns: int,
        terms: Terms,
    ) -> None:
        """Begin the invocation of ``call``, with a window as long as there is one."""
        inner = copy(request)
        inner.headers = detached_headers(request.headers, terms, MAX_POLL_S)
        inner.values = dict(inner.headers)
        inner.known = None
        invocation = self._begin(inner, call, head, caller._replace(poll_s=MAX_POLL_S), now_ns)
        invocation.detached = call.kind
        call.begins(invocation)
        self.book.add(call)
