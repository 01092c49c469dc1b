"""The routes below ``/v2/requests/``: a call by its id, its response and its events.

Every process serves them: what it does not hold it asks the holder for, and the object store.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import orjson

from gateway.domain.principal import INVOCATION_TOKEN, INVOKE, Principal
from gateway.domain.readmodel import ReadModel
from gateway.errors import (
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    NotFound,
    Unauthenticated,
)
from gateway.requests.asked import JSON, Asked
from gateway.requests.book import RequestBook
from gateway.requests.detached import QUEUED_STATE, DetachedCall
from gateway.requests.errors import RequestNotFound
from gateway.requests.events import EventsExchange, WatchedPositions
from gateway.requests.exchanges import REQUESTS_PATH, ResponseExchange
from gateway.requests.forwarding import Forwarder
from gateway.requests.stored import Shown
from gateway.requests.stored_exchange import (
    Absent,
    HasLived,
    StoredExchange,
    holder_silent,
    lost_if,
    unknown_here,
)
from gateway.requests.views import view_body, view_of
from gateway.routing.admission import Authenticate
from gateway.routing.call_head import TOKEN_PARAMETER, plain_head, poll_seconds, take_token
from gateway.routing.cross_origin import CrossOrigin
from http1.stream import IGNORED, Request, RequestStream, ResponseWriter
from runtime.tasks import spawn
from wire.deadlines import DEFAULT_POLL_S
from wire.headers import CONTENT_TYPE
from wire.ids import parse_uuid, process_of

_READ = (b"GET", b"HEAD", b"OPTIONS")
_METHODS = {b"": (b"GET", b"HEAD", b"DELETE", b"OPTIONS"), b"response": _READ, b"events": _READ}
"""The methods of the parts of a request."""
LAST_EVENT_ID = b"last-event-id"


class RequestRoute(NamedTuple):
    """What a path names: a request, and a part of it, empty for the request itself."""

    request_id: str
    part: bytes


def route_of(target: bytes) -> RequestRoute | None:
    """Return what a request target names below ``/v2/requests/``, `None` for anything else."""
    if not target.startswith(REQUESTS_PATH):
        return None
    path = target.partition(b"?")[0][len(REQUESTS_PATH) :]
    text, _, part = path.partition(b"/")
    request_id = parse_uuid(text)
    return None if request_id is None else RequestRoute(request_id, part)


class Access(NamedTuple):
    """What decides who may ask."""

    authenticate: Authenticate
    model: ReadModel
    cross_origin: CrossOrigin

    def may_see(
        self, principal: Principal, account: str, owner: str, function_id: str, version_id: str
    ) -> bool:
        """Return whether a credential covers a call: of its account, and of the function."""
        if account != principal.account:
            return False
        entry = self.model.function(function_id)
        version = None if entry is None else entry.versions.get(version_id)
        if entry is not None and version is not None:
            return principal.reaches(entry, version, is_named=True)
        # It is deleted: whom it was shared with is not known any more.
        reach = principal.reach
        return (
            (reach.own if owner == account else reach.shared)
            or function_id in reach.functions
            or f"{function_id}/{version_id}" in reach.versions
        )


class RequestsEndpoint:
    """Serves the routes."""

    __slots__ = ("_access", "_book", "_count", "_forwarder", "_has_lived", "_positions")

    def __init__(
        self,
        book: RequestBook,
        access: Access,
        positions: WatchedPositions,
        forwarder: Forwarder,
        has_lived: HasLived,
        count: Callable[[Request, int], None],
    ) -> None:
        """``count`` is called with each request and the status of its response."""
        self._book = book
        self._access = access
        self._positions = positions
        self._forwarder = forwarder
        self._has_lived = has_lived
        self._count = count

    def serve(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve one request of a client. Raises `GatewayError`."""
        return self.serve_route(request, client, route_of(request.target))

    def serve_route(
        self, request: Request, client: ResponseWriter, route: RequestRoute | None
    ) -> RequestStream:
        """Serve one request whose target names ``route``. Raises `GatewayError`."""
        sent_target = request.target
        asked = self._ask(request, client, route)
        if asked is None:
            return IGNORED
        call = self._book.find(asked.request_id)
        if call is not None:
            return self._serve_here(call, asked, client)
        process = process_of(asked.request_id)
        if process == self._forwarder.process:
            return self._serve_own(asked, client)
        request.target = sent_target
        return self._forwarder.serve(
            request,
            client,
            process,
            # The holder says at once what it knows of the call, and only its response takes time.
            asked.window_s if asked.part == b"response" else 0.0,
            lambda: self._serve_stored(asked, client, lost_if(self._has_lived)),
            lambda: self._serve_stored(asked, client, holder_silent),
        )

    def serve_forwarded(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve one request that another process has forwarded. Raises `GatewayError`."""
        asked = self._ask(request, client, route_of(request.target))
        if asked is None:
            return IGNORED
        call = self._book.find(asked.request_id)
        if call is None:
            return self._serve_own(asked, client)
        try:
            return self._serve_here(call, asked, client)
        except GatewayError as error:
            # Here, because the listener for workers knows nothing of web pages.
            asked.refuse(client, error)
            return IGNORED

    def _ask(
        self, request: Request, client: ResponseWriter, route: RequestRoute | None
    ) -> Asked | None:
        """Return what a request asks for, `None` if it has its response. Raises `GatewayError`."""
        head = plain_head(request)
        if TOKEN_PARAMETER in request.target:
            head = take_token(request, head)
        if route is None or route.part not in _METHODS:
            raise NotFound
        access = self._access.cross_origin.of_endpoint(request)
        if head.is_linked:
            access = access._replace(is_linked=True)
        allowed = _METHODS[route.part]
        asked = Asked(
            request,
            route.request_id,
            route.part,
            access,
            DEFAULT_POLL_S if head.poll_seconds is None else poll_seconds(head.poll_seconds),
            request.values.get(LAST_EVENT_ID, b""),
            lambda *of_call: self._access.may_see(principal, *of_call),
            self._count,
        )
        if request.method == b"OPTIONS":
            asked.send(client, 204, [(b"allow", b", ".join(allowed))], b"")
            return None
        if request.method not in allowed:
            raise MethodNotAllowed(headers=[(b"allow", b", ".join(allowed))])
        principal = self._access.authenticate(head.authorization, time.time())
        if head.is_linked and principal.kind != INVOCATION_TOKEN:
            raise Unauthenticated
        if INVOKE not in principal.scopes:
            raise Forbidden(f"The credential lacks the scope {INVOKE}")
        return asked

    def _serve_own(self, asked: Asked, client: ResponseWriter) -> RequestStream:
        """Serve a request for a call that this process has held, if any did."""
        exchange = self._serve_stored(asked, client, unknown_here)
        exchange.on_deleted = self._deleted
        return exchange

    def _deleted(self, shown: Shown) -> None:
        kept_bytes = shown.view.get("responseBytes")
        if isinstance(kept_bytes, int):
            finished_at = shown.expires_at - self._book.responses.retention_s
            request_id = str(shown.view["requestId"])
            self._book.deleted(request_id, shown.account, kept_bytes, finished_at)

    def _serve_stored(self, asked: Asked, client: ResponseWriter, absent: Absent) -> StoredExchange:
        """Serve a request from the object store."""
        book = self._book
        return StoredExchange(asked, client, book.responses, absent, book.with_webhook)

    def _serve_here(
        self, call: DetachedCall, asked: Asked, client: ResponseWriter
    ) -> RequestStream:
        if not asked.may_see(call.account, call.owner, call.function_id, call.version_id):
            raise RequestNotFound
        if asked.request.method == b"DELETE":
            spawn(self._delete(call, asked, client), "requests.delete")
            return IGNORED
        if asked.part == b"response":
            return self._follow(call, asked, client)
        if asked.part == b"events":
            watching = EventsExchange(call, client, self._book, self._positions, self._book.clock)
            watching.begin(asked)
            return watching
        if call.state == QUEUED_STATE or call.webhook_url:
            spawn(self._show(call, asked, client), "requests.show")
        else:
            asked.send(client, 200, [(CONTENT_TYPE, JSON)], view_body(call))
        return IGNORED

    def _follow(self, call: DetachedCall, asked: Asked, client: ResponseWriter) -> RequestStream:
        exchange = ResponseExchange(
            call, client, self._book, asked.access, is_head=asked.request.method == b"HEAD"
        )
        exchange.on_status = lambda status: self._count(asked.request, status)
        exchange.begin_after(asked.last_event, asked.window_s)
        return exchange

    async def _show(self, call: DetachedCall, asked: Asked, client: ResponseWriter) -> None:
        """Respond with the view of a call that waits, or has a webhook: it is asked for both."""
        position = await self._positions.of(call) if call.state == QUEUED_STATE else None
        eta_s = self._positions.eta_s(call.version_id, position) if position else None
        view = await self._book.with_webhook(view_of(call, position, eta_s))
        asked.send(client, 200, [(CONTENT_TYPE, JSON)], orjson.dumps(view))

    async def _delete(self, call: DetachedCall, asked: Asked, client: ResponseWriter) -> None:
        try:
            await self._book.delete(call)
        except GatewayError as error:
            asked.refuse(client, error)
        else:
            asked.send(client, 204, [], b"")
