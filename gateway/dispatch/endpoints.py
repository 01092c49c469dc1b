"""The path endpoints: what is called by its path and not by a function's host name."""

import logging

from gateway.attach.endpoint import AttachEndpoint
from gateway.dispatch.api_proxy import ApiProxy
from gateway.dispatch.large_responses import LargeResponses
from gateway.dispatch.object_endpoint import ObjectEndpoint
from gateway.dispatch.parts import send_parts
from gateway.dispatch.polling import PollingRoutes
from gateway.dispatch.responses import send_health, send_problem, with_ids
from gateway.errors import GatewayError, NotFound, Starting
from gateway.objects.signed_urls import PATH
from gateway.requests.endpoint import RequestsEndpoint
from gateway.requests.exchanges import REQUESTS_PATH
from gateway.requests.forwarding import ForwardedRequests
from gateway.requests.nvcf_paths import is_polling_route
from gateway.routing.call_head import CallHead
from gateway.routing.cross_origin import CrossOrigin, PageAccess
from gateway.telemetry.health import ProcessHealth
from gateway.telemetry.metrics import GatewayMetrics
from http1.stream import (
    IGNORED,
    Headers,
    Request,
    RequestStream,
    ResponseWriter,
    respond,
)
from runtime.events import emit
from runtime.metrics import CONTENT_TYPE as METRICS_TYPE
from runtime.metrics import MetricRegistry
from wire.headers import CONTENT_TYPE, NVCF_HOLDER_SECRET
from wire.worker_api import ATTACH_PATH, CHANNEL_PATH, LARGE_RESPONSE_PATH, RUN_PATH

OBJECT_PATH = PATH.encode()
_NO_PAGE = PageAccess(None, None, replaces=False)

_log = logging.getLogger("gateway.attach")


class PathEndpoints:
    """The endpoints of the public listeners: health, attach calls, detached calls, the REST API.

    ``polling`` are NVCF's polling routes, `None` if the process does not serve them. ``requests``
    are the routes of detached calls.
    """

    __slots__ = (
        "_api",
        "_attach",
        "_health",
        "_metrics",
        "_objects",
        "cross_origin",
        "polling",
        "requests",
    )

    def __init__(  # noqa: PLR0913 - one argument per part
        self,
        attach: AttachEndpoint,
        health: ProcessHealth,
        metrics: GatewayMetrics,
        cross_origin: CrossOrigin,
        requests: RequestsEndpoint,
        api: ApiProxy | None = None,
        objects: ObjectEndpoint | None = None,
    ) -> None:
        """Without ``api`` and ``objects``, their paths are not found."""
        self.requests = requests
        self._api = api
        self._attach = attach
        self._health = health
        self._metrics = metrics
        self._objects = objects
        self.polling: PollingRoutes | None = None
        self.cross_origin = cross_origin

    def serve(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve one request. Raises `GatewayError`."""
        path = request.target.partition(b"?")[0]
        if path == ATTACH_PATH and request.method != b"OPTIONS":
            return self._attach.serve(request, client)
        if path == RUN_PATH and request.method != b"OPTIONS":
            return self._attach.serve_run(request, client)
        preflight = self.serve_preflight(request, client, None)
        if preflight is not None:
            return preflight
        if path.startswith(REQUESTS_PATH):
            return self.requests.serve(request, client)
        if self.polling is not None and is_polling_route(path):
            return self.polling.serve(request, client)
        return self._serve_path(request, client, path)

    def _serve_path(self, request: Request, client: ResponseWriter, path: bytes) -> RequestStream:
        """Serve health, or the REST API."""
        response = self._health.respond(path)
        if request.method == b"OPTIONS" and (response is not None or path == b"*"):
            return self.serve_options(request, client)
        access = self.cross_origin.of_endpoint(request)
        if response is None:
            return self._serve_rest(request, client, path, access)
        status, headers, body = response
        return self._send(request, client, status, access.of_own_response(headers), body)

    def _serve_rest(
        self, request: Request, client: ResponseWriter, path: bytes, access: PageAccess
    ) -> RequestStream:
        if self._objects is not None and path.startswith(OBJECT_PATH):
            return self._objects.serve(request, client, access)
        if self._api is None:
            raise NotFound("No function or route matches this host and path")
        return self._api.serve(request, client, access)

    def serve_options(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Tell the methods of what can only be read (RFC 9110 §9.3.7)."""
        access = self.cross_origin.of_endpoint(request)
        return self._send(request, client, 204, access.of_own_response([_ALLOW]), b"")

    def serve_preflight(
        self, request: Request, client: ResponseWriter, head: CallHead | None
    ) -> RequestStream | None:
        """Serve a preflight, `None` for every other request; ``head`` as in `CrossOrigin`."""
        preflight = self.cross_origin.preflight(request, head)
        if preflight is None:
            return None
        return self._send(request, client, 204, preflight, b"")

    def _send(
        self, request: Request, client: ResponseWriter, status: int, headers: Headers, body: bytes
    ) -> RequestStream:
        path = request.target.partition(b"?")[0]
        endpoint = "/health" if path.startswith(b"/health") else "UNKNOWN"
        self._metrics.record_refusal(request.method, status, endpoint)
        return respond(request, client, status, with_ids(headers), body)


class AttachDispatcher:
    """The `http1.stream.Dispatch` of the listener for workers: attach calls, objects, health.

    And for other gateway processes: what they forward of detached calls.
    """

    __slots__ = ("_attach", "_forwarded", "_health", "_large_responses", "_objects")

    def __init__(
        self,
        attach: AttachEndpoint,
        health: ProcessHealth,
        forwarded: ForwardedRequests,
        objects: ObjectEndpoint | None = None,
        large_responses: LargeResponses | None = None,
    ) -> None:
        self._attach = attach
        self._health = health
        self._forwarded = forwarded
        self._objects = objects
        self._large_responses = large_responses

    def __call__(self, request: Request, worker: ResponseWriter) -> RequestStream:
        """Serve one request; a `GatewayError` on the way becomes its response."""
        try:
            if request.target == ATTACH_PATH:
                return self._attach.serve(request, worker)
            if request.target == RUN_PATH:
                return self._attach.serve_run(request, worker)
            if request.target == CHANNEL_PATH:
                return self._attach.serve_channel(request, worker)
            if self._large_responses is not None and request.target == LARGE_RESPONSE_PATH:
                invocation = self._attach.with_large_response(request)
                return self._large_responses.serve(request, worker, invocation)
            return self._serve_other(request, worker)
        except GatewayError as error:
            request_id = send_problem(request, worker, error)
            emit(
                _log,
                "attach.refused",
                logging.DEBUG,
                method=request.method.decode("latin-1"),
                status=error.status,
                worker=request.peer.address,
                request_id=request_id,
            )
            return IGNORED

    def _serve_other(self, request: Request, worker: ResponseWriter) -> RequestStream:
        if NVCF_HOLDER_SECRET in request.values:
            return self._forwarded.serve(request, worker)
        if self._objects is not None and request.target.startswith(OBJECT_PATH):
            return self._objects.serve(request, worker, _NO_PAGE)
        return send_health(request, worker, self._health, request.target, NotFound())


class StartingDispatcher:
    """The `http1.stream.Dispatch` of a public listener before the store is read."""

    __slots__ = ("_cross_origin", "_health")

    def __init__(self, health: ProcessHealth, cross_origin: CrossOrigin) -> None:
        self._health = health
        self._cross_origin = cross_origin

    def __call__(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve health and preflights; every other request gets 503."""
        preflight = self._cross_origin.preflight(request, None)
        if preflight is not None:
            return respond(request, client, 204, with_ids(preflight), b"")
        starting = Starting()
        starting.headers = self._cross_origin.of_endpoint(request).of_own_response(starting.headers)
        return send_health(request, client, self._health, request.target, starting)


class AdminDispatcher:
    """The `http1.stream.Dispatch` of the administration listener: metrics and health."""

    __slots__ = ("_health", "_registry")

    def __init__(self, registry: MetricRegistry, health: ProcessHealth) -> None:
        self._registry = registry
        self._health = health

    def __call__(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve one request."""
        path = request.target.partition(b"?")[0]
        if path == b"/metrics":
            headers = [(CONTENT_TYPE, METRICS_TYPE)]
            parts = self._registry.parts()
            return send_parts(client, headers, parts, is_head=request.method == b"HEAD")
        elsewhere = NotFound("Try /metrics or /health")
        return send_health(request, client, self._health, path, elsewhere)


_ALLOW = (b"allow", b"GET, HEAD, OPTIONS")
"""What health paths have, and of every server what ``OPTIONS *`` asks for (RFC 9110 §9.3.7)."""
