"""The REST API as one aiohttp application.

To add a route, write its handler and a `gateway.api.route.Route` in the module of its resource in
`gateway.api.routes`, add the route to that module's ``ROUTES``, and put the models of its body and
response into `gateway.api.schemas`. A new module's ``ROUTES`` are added to `ROUTES` below. Router,
checks, admin route and OpenAPI document follow from the `Route`. Only the routes of workers are
made elsewhere (`gateway.api.routes.workers.Workers`), because they depend on the queue's logins.

Every call passes the same steps, in the order that reveals least to an unauthorised caller
(`docs/wire.md` §9.2): credential (401), scope (403), form of the request (400, 413, 415), account
(404), handler. Every error becomes a problem document.
"""

import asyncio
from collections.abc import Callable, Sequence

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from gateway.api import listing
from gateway.api.access import ANONYMOUS, act_for, require_admin, require_scope
from gateway.api.admin_routes import with_admin_routes
from gateway.api.audit import MAX_REFUSED, Change
from gateway.api.docs_page import page
from gateway.api.limits import MAX_BODY_BYTES
from gateway.api.openapi import document
from gateway.api.organizations import add_ngc_routes, check_organization, organization_path
from gateway.api.parsing import read_body, read_path, read_query
from gateway.api.problems import allow_of, headers_of, reason_of, response_to
from gateway.api.route import AnyRoute, Api, Call, Listing
from gateway.api.routes import (
    accounts,
    assets,
    authorizations,
    deployments,
    functions,
    gpus,
    keys,
    queues,
    registration_tokens,
    registry_credentials,
    secrets,
    telemetries,
    tokens,
    webhooks,
)
from gateway.api.sdk_compat import is_old_sdk, project
from gateway.errors import Unauthenticated
from runtime.ids import new_uuid
from runtime.line_budget import LineBudget
from wire.headers import X_FORWARDED_HOST, X_FORWARDED_PREFIX, X_FORWARDED_PROTO

ROUTES: tuple[AnyRoute, ...] = (
    *functions.ROUTES,
    *listing.ROUTES,
    *deployments.ROUTES,
    *registration_tokens.ROUTES,
    *queues.ROUTES,
    *authorizations.ROUTES,
    *gpus.ROUTES,
    *keys.ROUTES,
    *accounts.ROUTES,
    *tokens.ROUTES,
    *secrets.ROUTES,
    *assets.ROUTES,
    *telemetries.ROUTES,
    *registry_credentials.ROUTES,
    *webhooks.ROUTES,
)
"""Every route except those of workers, without the admin routes."""

_JSON = "application/json"
_SEND_AT_BYTES = 262_144
"""A streamed list is sent in parts of at least this size."""
_request_id = web.RequestKey("request_id", str)
_change = web.RequestKey("change", Change)
_refused_changes = web.AppKey("refused_changes", LineBudget)


def build_app(api: Api, routes: Sequence[AnyRoute] = ROUTES) -> web.Application:
    """Return the application, with admin routes. It holds nothing that must be closed."""
    routes = with_admin_routes(routes)
    app = web.Application(
        middlewares=[_respond_to_errors],
        client_max_size=MAX_BODY_BYTES,
        # aiohttp would respond itself to a body that it cannot decode, and pass on unknown codings.
        handler_args={"auto_decompress": False},
    )
    app[_refused_changes] = LineBudget(MAX_REFUSED)

    def described() -> bytes:
        return orjson.dumps(document(routes))

    def browsable() -> bytes:
        return page(orjson.loads(described())).encode()

    for method, path, handler in (
        *(
            (route.method, path, handler)
            for route, handler in ((route, _handler(api, route)) for route in routes)
            for path in (route.path, organization_path(route))
            if path is not None
        ),
        ("GET", "/v3/openapi", _serve_made(described, _JSON)),
        ("GET", "/v3/docs", _serve_made(browsable, "text/html")),
        ("GET", "/health", _serve_up),
    ):
        app.router.add_route(method, path, handler)
        if method == "GET":
            # aiohttp sends no body in response to HEAD (RFC 9110 §9.3.2).
            app.router.add_route("HEAD", path, handler)
    add_ngc_routes(app, api)
    return app


@web.middleware
async def _respond_to_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the call an id, turn every exception into a response, and log a change."""
    request_id = request[_request_id] = new_uuid()
    reason = ""
    try:
        response = await handler(request)
    except Exception as error:  # noqa: BLE001 - the outermost frame of a call
        if request.method == "OPTIONS" and isinstance(error, web.HTTPMethodNotAllowed):
            # No route has the method: the path says which ones it has (RFC 9110 §9.3.7).
            headers = {**headers_of(request_id), "Allow": allow_of(error)}
            return web.Response(status=204, headers=headers)
        response, reason = response_to(error, request, request_id), reason_of(error)
    change = request.get(_change)
    if change is not None:
        change.end(response.status, reason, request_id, request.app[_refused_changes])
    return response


def _handler(api: Api, route: AnyRoute) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        call = await _check(api, route, request)
        result = await route.handle(api, call)
        if route.is_change and not isinstance(result, Listing):
            request[_change].made(result)
        if isinstance(result, Listing):
            return await _send_listing(request, result, is_old_sdk=call.is_old_sdk)
        headers = headers_of(request[_request_id])
        if result is None:
            return web.Response(status=route.status, headers=headers)
        body = _encode(result, is_old_sdk=call.is_old_sdk)
        return web.Response(status=route.status, body=body, content_type=_JSON, headers=headers)

    return handle


async def _check(
    api: Api, route: AnyRoute, request: web.Request
) -> Call[BaseModel | None, BaseModel | None]:
    text = request.headers.get("authorization")
    authorization = None if text is None else text.encode("utf-8", "surrogateescape")
    if text is None and route.without_credential:
        raise Unauthenticated(route.without_credential)
    principal = api.authenticate(authorization, api.clock()) if route.scopes else ANONYMOUS
    if route.is_change:
        request[_change] = Change(route, principal)
    if route.scopes:
        require = require_admin if route.is_admin else require_scope
        require(principal, route.scopes)
    check_organization(request.match_info, principal)
    path = read_path(request.match_info)
    query = read_query(request.query, route.query) if route.query is not None else None
    body = None
    if route.body is not None:
        is_absent = route.is_body_optional and not request.can_read_body
        body = (
            route.body()
            if is_absent
            else await read_body(request, route.body, api.bodies, principal.account)
        )
    if route.is_admin:
        principal = act_for(api, principal, path["ncaId"])
    if route.is_change:
        request[_change].concerns(request.match_info, body, principal.account)
    old = api.project_old_sdks and is_old_sdk(request.headers)
    call = Call(principal, path, query, body, authorization=authorization, is_old_sdk=old)
    call.key_issuer = request.headers.get("key-issuer-id", "")
    call.base_url = api.objects_url or _base_url(request)
    return call


def _base_url(request: web.Request) -> str:
    """Return what the caller called, as the gateway's server found out (`docs/wire.md` §3.6)."""
    scheme = request.headers.get(X_FORWARDED_PROTO.decode(), "http")
    authority = request.headers.get(X_FORWARDED_HOST.decode(), request.host)
    return f"{scheme}://{authority}{request.headers.get(X_FORWARDED_PREFIX.decode(), '')}"


def _encode(model: BaseModel, *, is_old_sdk: bool) -> bytes:
    if is_old_sdk:
        return orjson.dumps(
            project(model.model_dump(mode="json", by_alias=True, exclude_none=True))
        )
    return model.model_dump_json(by_alias=True, exclude_none=True).encode()


async def _send_listing(
    request: web.Request, listing: Listing, *, is_old_sdk: bool
) -> web.StreamResponse:
    """Stream a list as it is made; send a short one as a whole, and to HEAD only its length."""
    response = web.StreamResponse(headers=headers_of(request[_request_id]))
    response.content_type = _JSON
    is_head = request.method == "HEAD"
    counted_bytes = 0
    data = b'{"%s":[' % listing.name.encode()
    separator = b""
    async for batch in listing.batches:
        for element in batch:
            data += separator + _encode(element, is_old_sdk=is_old_sdk)
            separator = b","
        if len(data) >= _SEND_AT_BYTES:
            if is_head:
                # aiohttp would send what is written to a `StreamResponse`.
                counted_bytes += len(data)
            else:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(data)
            data = b""
    tail = b"".join(
        b",%s:%s" % (orjson.dumps(name), orjson.dumps(value))
        for name, value in listing.tail().items()
    )
    data += b"]" + tail + b"}"
    if is_head:
        response.content_length = counted_bytes + len(data)
        return web.Response(headers=response.headers)
    if not response.prepared:
        return web.Response(body=data, headers=response.headers)
    await response.write_eof(data)
    return response


async def _serve_up(request: web.Request) -> web.StreamResponse:
    return web.Response(
        body=b'{"status":"UP"}', content_type=_JSON, headers=headers_of(request[_request_id])
    )


def _serve_made(make: Callable[[], bytes], content_type: str) -> Handler:
    """Serve what ``make`` returns, called once, at the first request.

    In a thread: the OpenAPI document takes 0.2 s, and 3 MiB that most processes never need.
    """
    body = b""
    making = asyncio.Lock()

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal body
        async with making:
            body = body or await asyncio.to_thread(make)
        return web.Response(
            body=body, content_type=content_type, headers=headers_of(request[_request_id])
        )

    return handle
