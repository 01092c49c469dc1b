"""The REST API as one aiohttp application.

Every route goes through the same steps, in the order that tells a stranger least (§1.0): who calls
(401), may they do this at all (403), is the call well formed (400, 413, 415), for which account
(404). Only then comes the handler. Whatever goes wrong anywhere is a problem document.
"""

import logging
import os
from collections.abc import Sequence

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from gateway.api import listing
from gateway.api.access import ANYBODY, acting_for, require_admin, require_scope
from gateway.api.admin_routes import with_twins
from gateway.api.docs_page import page
from gateway.api.limits import MAX_BODY_BYTES
from gateway.api.openapi import document
from gateway.api.parsing import read_body, read_path, read_query
from gateway.api.problems import REQUEST_ID, response_to
from gateway.api.route import AnyRoute, Api, Call, Listing
from gateway.api.routes import authorizations as sharing
from gateway.api.routes import deployments, functions, gpus, queues
from gateway.api.sdk_compat import is_old_sdk, project
from gateway.domain.principal import Principal
from wire.ids import uuid4_text

ROUTES: tuple[AnyRoute, ...] = (
    *functions.ROUTES,
    *listing.ROUTES,
    *deployments.ROUTES,
    *queues.ROUTES,
    *sharing.ROUTES,
    *gpus.ROUTES,
)
"""The routes of this package, without their twins; `build_app` may be given more."""

_JSON = "application/json"
_SEND_AT_BYTES = 262_144
_request_id = web.RequestKey("request_id", str)
_log = logging.getLogger("gateway.api")


def build_app(api: Api, routes: Sequence[AnyRoute] = ROUTES) -> web.Application:
    """Return the application, twins included. It holds nothing that needs closing."""
    routes = with_twins(routes)
    app = web.Application(
        middlewares=[_answered],
        client_max_size=MAX_BODY_BYTES,
        # aiohttp would answer what it cannot decode by itself, and pass over what it does not know.
        handler_args={"auto_decompress": False},
    )
    for route in routes:
        app.router.add_route(route.method, route.path, _handler(api, route))
    described = orjson.dumps(document(routes))
    browsable = page(orjson.loads(described)).encode()
    app.router.add_get("/v3/openapi", _fixed(described, _JSON), allow_head=False)
    app.router.add_get("/v3/docs", _fixed(browsable, "text/html"), allow_head=False)
    app.router.add_get("/health", _fixed(b'{"status":"UP"}', _JSON), allow_head=False)
    return app


@web.middleware
async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the call an id and turn whatever is raised into an answer."""
    request_id = request[_request_id] = uuid4_text(os.urandom(16))
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001 - the outermost frame of a call
        return response_to(error, request, request_id)


def _handler(api: Api, route: AnyRoute) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        call = await _checked(api, route, request)
        answer = await route.handle(api, call)
        if isinstance(answer, Listing):
            return await _send_listing(request, answer, is_old_sdk=call.is_old_sdk)
        headers = {REQUEST_ID: request[_request_id]}
        if answer is None:
            return web.Response(status=route.status, headers=headers)
        body = _encoded(answer, is_old_sdk=call.is_old_sdk)
        return web.Response(status=route.status, body=body, content_type=_JSON, headers=headers)

    return handle


async def _checked(
    api: Api, route: AnyRoute, request: web.Request
) -> Call[BaseModel | None, BaseModel | None]:
    text = request.headers.get("authorization")
    authorization = None if text is None else text.encode("utf-8", "surrogateescape")
    principal = ANYBODY
    if route.scopes:
        principal = api.authenticate(authorization, api.clock())
        require = require_admin if route.is_admin else require_scope
        require(principal, route.scopes)
    path = read_path(request.match_info)
    query = read_query(request.query, route.query) if route.query is not None else None
    body = await read_body(request, route.body) if route.body is not None else None
    if route.is_admin:
        principal = acting_for(api, principal, path["ncaId"])
        if route.method != "GET":
            _note(route, principal, request)
    old = api.project_old_sdks and is_old_sdk(request.headers)
    return Call(principal, path, query, body, authorization=authorization, is_old_sdk=old)


def _note(route: AnyRoute, principal: Principal, request: web.Request) -> None:
    """Write down what somebody is about to change who is not of the account."""
    fields = {
        "account": principal.account,
        "by": principal.subject,
        "operation": route.operation_id,
        "path": request.rel_url.raw_path,
        "request_id": request[_request_id],
    }
    _log.info("control.acts_for", extra={"fields": fields})


def _encoded(answer: BaseModel, *, is_old_sdk: bool) -> bytes:
    if is_old_sdk:
        return orjson.dumps(
            project(answer.model_dump(mode="json", by_alias=True, exclude_none=True))
        )
    return answer.model_dump_json(by_alias=True, exclude_none=True).encode()


async def _send_listing(
    request: web.Request, listing: Listing, *, is_old_sdk: bool
) -> web.StreamResponse:
    """Send a list as it is made; one that is short goes as a whole."""
    response = web.StreamResponse(headers={REQUEST_ID: request[_request_id]})
    response.content_type = _JSON
    data = b'{"%s":[' % listing.name.encode()
    separator = b""
    async for piece in listing.pieces:
        for element in piece:
            data += separator + _encoded(element, is_old_sdk=is_old_sdk)
            separator = b","
        if len(data) >= _SEND_AT_BYTES:
            if not response.prepared:
                await response.prepare(request)
            await response.write(data)
            data = b""
    tail = b"".join(
        b",%s:%s" % (orjson.dumps(name), orjson.dumps(value))
        for name, value in listing.tail().items()
    )
    data += b"]" + tail + b"}"
    if not response.prepared:
        return web.Response(body=data, headers=response.headers)
    await response.write_eof(data)
    return response


def _fixed(body: bytes, content_type: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=body, content_type=content_type, headers={REQUEST_ID: request[_request_id]}
        )

    return handle
