"""What becomes of a request that is refused: it is counted, and some of them are logged.

A refusal costs its sender nothing, so the access log takes a bounded number of lines, and what it
costs to know more of a refused call (whose key it is) is spent on those alone.
"""

import time
from collections.abc import Callable

from gateway.domain.model import FunctionVersion
from gateway.errors import GatewayError
from gateway.invocation.headers import correlation_of
from gateway.invocation.machine import CLIENT_GONE_STATUS
from gateway.invocation.states import Outcome
from gateway.routing.call_head import CallHead
from gateway.telemetry.access_log import AccessLog, Refusal
from gateway.telemetry.metrics import GatewayMetrics
from http1.server.http_error import HttpError
from http1.stream import Request
from runtime.ids import new_uuid

INVOCATION = "TLB"
API = "API"
EDGE = "EDGE"
REQUESTS = "REQUESTS"
"""Endpoints in metrics: a function, the REST API, what is not a valid request, and the routes of
detached calls."""

KeyIdOf = Callable[[bytes | None, float], str]
"""Returns the key id of an Authorization value at a Unix time, empty if there is none."""

_FIRST_ERROR = 400


class Refusals:
    """Records refused requests."""

    __slots__ = ("_access", "_key_id_of", "_metrics")

    def __init__(
        self, metrics: GatewayMetrics, access: AccessLog | None, key_id_of: KeyIdOf
    ) -> None:
        """Without ``access`` nothing is logged."""
        self._metrics = metrics
        self._access = access
        self._key_id_of = key_id_of

    def refused(
        self,
        request: Request,
        error: GatewayError,
        request_id: str,
        endpoint: str,
        head: CallHead | None = None,
    ) -> None:
        """Record the response to ``error``; ``head`` is known if the request names a function."""
        reason = reason_of(error)
        self._metrics.record_refusal(request.method, error.status, endpoint, reason)
        if self._access is None or not self._access.takes_refusal(reason):
            return
        function_id = key_id = ""
        if head is not None:
            function_id = head.function_id
            key_id = self._key_id_of(head.authorization, time.time())
        self._write(request, error.status, reason, request_id, function_id, key_id)

    def left(self, request: Request, head: CallHead) -> None:
        """Record that a client left before its call was an invocation, or refused."""
        reason = Outcome.CLIENT_GONE.value
        endpoint = head.route or INVOCATION
        self._metrics.record_refusal(request.method, CLIENT_GONE_STATUS, endpoint, reason)
        if self._access is not None and self._access.takes_refusal(reason):
            key_id = self._key_id_of(head.authorization, time.time())
            self._write(request, CLIENT_GONE_STATUS, reason, new_uuid(), head.function_id, key_id)

    def preflight(self, request: Request, status: int) -> None:
        """Count the response to a preflight for a function: no call, and no refusal."""
        self._metrics.record_refusal(request.method, status, INVOCATION)

    def request_served(self, request: Request, status: int) -> None:
        """Count a response of the routes of detached calls."""
        self._metrics.record_refusal(request.method, status, REQUESTS)

    def overloaded(self, version: FunctionVersion) -> None:
        """Record that a call is refused because too many others wait."""
        self._metrics.record_overload(version)

    def responded(self, request: Request, status: int, request_id: str) -> None:
        """Record a response of the REST API."""
        reason = _API_REASONS.get(status, "other") if status >= _FIRST_ERROR else ""
        self._metrics.record_refusal(request.method, status, API, reason)
        if reason in _LOGGED and self._access is not None and self._access.takes_refusal(reason):
            self._write(request, status, reason, request_id)

    def polled(self, request: Request, status: int, route: str) -> None:
        """Count a response of NVCF's polling routes."""
        self._metrics.record_refusal(request.method, status, route)

    def invalid(self, error: HttpError, target: bytes, peer: str, request_id: str) -> None:
        """Record the response to what is not a valid request; a `http1` ``OnError``."""
        reason = error.kind.replace("-", "_")
        self._metrics.record_refusal(b"", error.status, EDGE, reason)
        if self._access is not None and self._access.takes_refusal(reason):
            self._access.write_refusal(
                Refusal(request_id, error.status, reason, target=target, client=peer)
            )

    def _write(
        self,
        request: Request,
        status: int,
        reason: str,
        request_id: str,
        function_id: str = "",
        key_id: str = "",
    ) -> None:
        trace, caller_request_id = correlation_of(request)
        refusal = Refusal(
            request_id,
            status,
            reason,
            request.method,
            request.target,
            request.source.address,
            function_id,
            key_id,
            trace,
            caller_request_id,
        )
        if self._access is not None:
            self._access.write_refusal(refusal)


def reason_of(error: GatewayError) -> str:
    """Return the word for an error in metrics and log lines."""
    return error.reason or error.kind.replace("-", "_")


_API_REASONS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "content_too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
}
_LOGGED = frozenset({"unauthorized", "too_many_requests", "internal_error", "unavailable"})
"""Of the API's responses, those whose reason is not the content of the call."""
