"""Requests that are answered at once."""

import os

from gateway.errors import GatewayError, problem_for
from gateway.telemetry.health import Health
from http1.stream import IGNORED, Request, RequestStream, ResponseWriter, respond
from wire.ids import uuid4_text
from wire.problem import REQUEST_ID, instance_of


def answer_problem(request: Request, client: ResponseWriter, error: GatewayError) -> int:
    """Answer with the problem of ``error``, under an id of its own; return its status."""
    request_id = uuid4_text(os.urandom(16))
    status, headers, body = problem_for(error, instance_of(request.target), request_id)
    headers.append((REQUEST_ID, request_id.encode()))
    respond(request, client, status, headers, body)
    return status


def answer_health(
    request: Request, client: ResponseWriter, health: Health, path: bytes, otherwise: GatewayError
) -> RequestStream:
    """Answer ``path`` if it is a health path, and ``otherwise`` if it is not."""
    answer = health.answer(path)
    if answer is None:
        answer_problem(request, client, otherwise)
        return IGNORED
    return respond(request, client, *answer)
