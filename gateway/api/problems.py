"""Exceptions of the REST API as problem documents (`docs/wire.md` §9.3)."""

import logging

from aiohttp import web

from gateway.errors import (
    BodyTooLarge,
    GatewayError,
    MethodNotAllowed,
    NotFound,
    problem_for,
)
from queueing.interface import QueueError, QueueUnavailable
from runtime.events import emit
from wire.problem import id_headers

_log = logging.getLogger("gateway.api")


def response_to(error: Exception, request: web.Request, request_id: str) -> web.Response:
    """Return the response to ``error``, and log it if it is the platform's fault.

    An unexpected exception is logged with its trace and reported as a 500 without details.
    """
    known = _find_error(error)
    # The raw path: a decoded one may not be a URI reference (RFC 9457 §3.1.5).
    path = request.rel_url.raw_path
    status, headers, body = problem_for(known or error, path, request_id)
    if known is None:
        emit(
            _log,
            "control.failed",
            logging.ERROR,
            error,
            method=request.method,
            path=path,
            request_id=request_id,
        )
    elif status >= 500:
        fields = {"path": path, "request_id": request_id, "error": str(error)}
        emit(_log, "control.unavailable", logging.WARNING, **fields)
    response = web.Response(status=status, body=body)
    for name, value in headers:
        response.headers[name.decode()] = value.decode()
    return response


def headers_of(request_id: str) -> dict[str, str]:
    """Return the headers of a response with the id of its request."""
    return {name.decode(): value.decode() for name, value in id_headers(request_id)}


def reason_of(error: Exception) -> str:
    """Return the word for ``error`` in log lines."""
    known = _find_error(error)
    if isinstance(known, GatewayError):
        return known.reason or known.kind.replace("-", "_")
    return "internal_error" if known is None else "queue_unavailable"


def allow_of(error: web.HTTPMethodNotAllowed) -> str:
    """Return the value of Allow: the methods of a path's routes, and OPTIONS, which all have."""
    return ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))


def _find_error(error: Exception) -> GatewayError | QueueError | None:
    """Return the error to report for ``error``, `None` for an unexpected exception."""
    match error:
        case GatewayError():
            return error
        case QueueError():
            # The cause names servers and streams: it is logged, not reported.
            return QueueUnavailable()
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(headers=[(b"allow", allow_of(error).encode())])
        case web.HTTPRequestEntityTooLarge():
            return BodyTooLarge()
        case web.HTTPNotFound():
            return NotFound()
        case _:
            return None
