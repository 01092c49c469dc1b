"""Responses that are sent at once, without waiting for the requests' bodies."""

from gateway.errors import GatewayError, grpc_error_for, problem_for
from gateway.routing.call_head import speaks_grpc
from gateway.telemetry.health import ProcessHealth
from http1.stream import IGNORED, Headers, Request, RequestStream, ResponseWriter, respond
from runtime.ids import new_uuid
from wire.headers import NVCF_REQID
from wire.problem import id_headers, instance_of


def send_problem(request: Request, client: ResponseWriter, error: GatewayError) -> str:
    """Send the response to ``error`` with a new request id; return the id.

    It is a problem document, for a gRPC client a status.
    """
    request_id = new_uuid()
    if speaks_grpc(request):
        _, headers = grpc_error_for(error)
        respond(request, client, 200, with_ids(headers, request_id), b"")
        return request_id
    status, headers, body = problem_for(error, instance_of(request.target), request_id)
    respond(request, client, status, headers, body)
    return request_id


def send_health(
    request: Request,
    client: ResponseWriter,
    health: ProcessHealth,
    path: bytes,
    otherwise: GatewayError,
) -> RequestStream:
    """Send the health response if ``path`` is a health path, else the problem ``otherwise``."""
    response = health.respond(path)
    if response is None:
        send_problem(request, client, otherwise)
        return IGNORED
    status, headers, body = response
    return respond(request, client, status, with_ids(headers), body)


def with_ids(headers: Headers, request_id: str = "") -> Headers:
    """Return ``headers`` and, unless they are there, those with a request id; empty: a new one."""
    if any(name == NVCF_REQID for name, _ in headers):
        return headers
    return [*headers, *id_headers(request_id or new_uuid())]
