"""Where a request goes: to a function's queue, or to one of the path routes."""

import os
from collections.abc import Callable

from gateway.dispatch.endpoints import PathRoutes
from gateway.dispatch.registry import Desk
from gateway.dispatch.responses import answer_problem
from gateway.errors import GatewayError
from gateway.invocation.caller import Caller
from gateway.invocation.machine import Invocation
from gateway.invocation.site import Site
from gateway.routing.router import Router
from gateway.routing.target import Target
from gateway.telemetry.metrics import GatewayMetrics
from http1.stream import IGNORED, Request, RequestStream, ResponseWriter
from wire.envelope import INLINE_BODY_BYTES
from wire.ids import request_id, uuid4_text

_RANDOM_BYTES = 16 * 384


class Randomness:
    """Random bytes from the kernel, fetched for many ids at once."""

    __slots__ = ("_at", "_bytes")

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def take(self) -> bytes:
        """Return 16 bytes nobody else gets."""
        at = self._at
        if at == len(self._bytes):
            self._bytes = os.urandom(_RANDOM_BYTES)
            at = 0
        self._at = at + 16
        return self._bytes[at : at + 16]


class Dispatcher:
    """The `http1.stream.Dispatch` of every public listener."""

    __slots__ = ("_desk", "_metrics", "_paths", "_random", "_route", "_router", "_site")

    def __init__(
        self,
        site: Site,
        desk: Desk,
        route: Callable[[Request], Target | None],
        router: Router,
        paths: PathRoutes,
        metrics: GatewayMetrics,
    ) -> None:
        """``route`` as from `gateway.routing.target.target_router`."""
        self._site = site
        self._desk = desk
        self._route = route
        self._router = router
        self._paths = paths
        self._metrics = metrics
        self._random = Randomness()

    def __call__(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve one request; a `GatewayError` on the way becomes its answer."""
        endpoint = "UNKNOWN"
        try:
            target = self._route(request)
            if target is None:
                return self._paths.serve(request, client)
            endpoint = "TLB"
            return self._invoke(request, client, target)
        except GatewayError as error:
            self._metrics.refused(request.method, answer_problem(request, client, error), endpoint)
            return IGNORED

    def _invoke(self, request: Request, client: ResponseWriter, target: Target) -> Invocation:
        site = self._site
        admission = self._router.admit(target, site.wall_ns() * 1e-9)
        take = self._random.take
        length = request.body_bytes
        has_rest = length is None or length > INLINE_BODY_BYTES
        invocation = Invocation(
            site,
            client,
            request,
            Caller(admission.account, admission.subject, admission.version, admission.poll_s),
            request_id=request_id(take(), site.process),
            tokens=(uuid4_text(take()), uuid4_text(take()) if has_rest else ""),
        )
        self._desk.open(invocation)
        return invocation
