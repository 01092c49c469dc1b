"""The routes below ``/v2/requests/``: a call by its id, its response and its events."""

import time
from collections.abc import Callable
from typing import NamedTuple

from gateway.domain.principal import INVOCATION_TOKEN, INVOKE, Principal
from gateway.domain.readmodel import ReadModel
from gateway.errors import Forbidden, MethodNotAllowed, NotFound, Unauthenticated
from gateway.requests.book import RequestBook
from gateway.requests.detached import DetachedCall
from gateway.requests.errors import RequestNotFound
from gateway.requests.exchanges import JSON, REQUESTS_PATH, ResponseExchange
from gateway.requests.views import view_body
from gateway.routing.admission import Authenticate
from gateway.routing.call_head import TOKEN_PARAMETER, plain_head, poll_seconds, take_token
from gateway.routing.cross_origin import CrossOrigin, PageAccess
from http1.stream import Headers, Request, RequestStream, ResponseWriter, respond
from wire.deadlines import DEFAULT_POLL_S
from wire.headers import CONTENT_TYPE
from wire.ids import parse_uuid
from wire.problem import id_headers

_METHODS = {b"": b"GET, HEAD, DELETE, OPTIONS", b"response": b"GET, HEAD, OPTIONS"}


class Route(NamedTuple):
    """What a path names: a request, and a part of it, empty for the request itself."""

    request_id: str
    part: bytes


def route_of(target: bytes) -> Route | None:
    """Return what a request target names below ``/v2/requests/``, `None` for anything else."""
    if not target.startswith(REQUESTS_PATH):
        return None
    path = target.partition(b"?")[0][len(REQUESTS_PATH) :]
    text, _, part = path.partition(b"/")
    request_id = parse_uuid(text)
    return None if request_id is None else Route(request_id, part)


class RequestsEndpoint:
    """Serves the routes."""

    __slots__ = ("_authenticate", "_book", "_count", "_cross_origin", "_model")

    def __init__(
        self,
        book: RequestBook,
        authenticate: Authenticate,
        model: ReadModel,
        cross_origin: CrossOrigin,
        count: Callable[[Request, int], None],
    ) -> None:
        """``count`` is called with each request and the status of its response."""
        self._book = book
        self._authenticate = authenticate
        self._model = model
        self._cross_origin = cross_origin
        self._count = count

    def serve(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve one request. Raises `GatewayError`."""
        head = plain_head(request)
        if TOKEN_PARAMETER in request.target:
            head = take_token(request, head)
        route = route_of(request.target)
        if route is None or route.part not in _METHODS:
            raise NotFound
        access = self._cross_origin.of_endpoint(request)._replace(is_linked=head.is_linked)
        allowed = _METHODS[route.part]
        if request.method == b"OPTIONS":
            headers = access.of_own_response([(b"allow", allowed), *id_headers(route.request_id)])
            return self._respond(request, client, 204, headers, b"")
        if request.method not in allowed.split(b", "):
            raise MethodNotAllowed(headers=[(b"allow", allowed)])
        principal = self._authenticate(head.authorization, time.time())
        if head.is_linked and principal.kind != INVOCATION_TOKEN:
            raise Unauthenticated
        if INVOKE not in principal.scopes:
            raise Forbidden(f"The credential lacks the scope {INVOKE}")
        window_s = DEFAULT_POLL_S if head.poll_seconds is None else poll_seconds(head.poll_seconds)
        call = self._book.find(route.request_id)
        if call is None or not self._may_see(principal, call):
            raise RequestNotFound
        if request.method == b"DELETE":
            call.cancel()
            return self._respond(request, client, 204, _own(call, access, []), b"")
        if route.part == b"response":
            return self._follow(request, client, call, access, window_s)
        headers = _own(call, access, [(CONTENT_TYPE, JSON)])
        return self._respond(request, client, 200, headers, view_body(call))

    def _follow(
        self,
        request: Request,
        client: ResponseWriter,
        call: DetachedCall,
        access: PageAccess,
        window_s: int,
    ) -> RequestStream:
        exchange = ResponseExchange(
            call, client, self._book, access, is_head=request.method == b"HEAD"
        )
        exchange.begin(window_s)
        return exchange

    def _may_see(self, principal: Principal, call: DetachedCall) -> bool:
        """Return whether the credential covers the function of a call of the same account."""
        if call.account != principal.account:
            return False
        entry = self._model.function(call.function_id)
        version = None if entry is None else entry.versions.get(call.version_id)
        if entry is not None and version is not None:
            return principal.reaches(entry, version, is_named=True)
        reach = principal.reach
        return (
            (reach.own if call.owner == call.account else reach.shared)
            or call.function_id in reach.functions
            or f"{call.function_id}/{call.version_id}" in reach.versions
        )

    def _respond(
        self, request: Request, client: ResponseWriter, status: int, headers: Headers, body: bytes
    ) -> RequestStream:
        self._count(request, status)
        return respond(request, client, status, headers, body)


def _own(call: DetachedCall, access: PageAccess, headers: Headers) -> Headers:
    return access.of_own_response([*headers, *id_headers(call.request_id)])
