"""Errors as answers: a problem document whatever went wrong (§1.0)."""

import logging

from aiohttp import web

from gateway.errors import (
    BodyTooLarge,
    GatewayError,
    MethodNotAllowed,
    NotFound,
    QueueUnavailableError,
    problem_for,
)
from queueing.interface import QueueUnavailable
from wire.problem import REQUEST_ID as REQUEST_ID_HEADER

REQUEST_ID = REQUEST_ID_HEADER.decode()

_log = logging.getLogger("gateway.api")


def response_to(error: Exception, request: web.Request, request_id: str) -> web.Response:
    """Return the answer to ``error``. What nobody foresaw is logged, and told as a plain 500."""
    known = _known(error)
    # As it came: what it decodes to may be no URI reference (RFC 9457 §3.1.5).
    path = request.rel_url.raw_path
    if known is None:
        _log.error(
            "control.failed",
            exc_info=error,
            extra={"fields": {"method": request.method, "path": path, "request_id": request_id}},
        )
    elif known.status >= 500:
        fields = {"path": path, "request_id": request_id, "error": str(error)}
        _log.warning("control.unavailable", extra={"fields": fields})
    status, headers, body = problem_for(known or error, path, request_id)
    response = web.Response(status=status, body=body)
    for name, value in headers:
        response.headers[name.decode()] = value.decode()
    response.headers[REQUEST_ID] = request_id
    return response


def _known(error: Exception) -> GatewayError | None:
    match error:
        case GatewayError():
            return error
        case QueueUnavailable():
            return QueueUnavailableError()
        case web.HTTPMethodNotAllowed():
            allow = ", ".join(sorted(error.allowed_methods))
            return MethodNotAllowed(headers=[(b"allow", allow.encode())])
        case web.HTTPRequestEntityTooLarge():
            return BodyTooLarge()
        case web.HTTPNotFound():
            return NotFound()
        case _:
            return None
