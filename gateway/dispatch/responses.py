"""Responses to requests that are answered at once, without waiting for their bodies."""

import os

from gateway.errors import GatewayError, problem_for
from gateway.telemetry.health import Health
from http1.stream import Headers, Request, ResponseWriter
from wire.ids import uuid4_text
from wire.problem import REQUEST_ID, instance_of


class Discard:
    """The `http1.stream.RequestStream` of a request whose response was sent: drops its body."""

    __slots__ = ()

    def request_data(self, data: bytes) -> None:
        """Drop the data."""

    def first_part_end(self) -> None:
        """No effect."""

    def request_end(self) -> None:
        """No effect."""

    def request_broken(self) -> None:
        """No effect: nothing is held for the request."""

    def pause_writing(self) -> None:
        """No effect: the response was written whole."""

    def resume_writing(self) -> None:
        """No effect: the response was written whole."""


DISCARD = Discard()


def send_problem(request: Request, client: ResponseWriter, error: GatewayError) -> int:
    """Send the problem document of ``error`` with a new request id; return its status."""
    request_id = uuid4_text(os.urandom(16))
    status, headers, body = problem_for(error, instance_of(request.target), request_id)
    headers.append((REQUEST_ID, request_id.encode()))
    send_response(request, client, status, headers, body)
    return status


def send_response(
    request: Request, client: ResponseWriter, status: int, headers: Headers, body: bytes
) -> Discard:
    """Send a whole response; return what drops the rest of the request."""
    client.send_head(status, headers, len(body))
    if body and request.method != b"HEAD":
        client.send_data(body)
    client.send_end()
    return DISCARD


def send_health(
    request: Request, client: ResponseWriter, health: Health, path: bytes, otherwise: GatewayError
) -> Discard:
    """Send the health response if ``path`` is a health path, else the problem ``otherwise``."""
    response = health.respond(path)
    if response is None:
        send_problem(request, client, otherwise)
        return DISCARD
    return send_response(request, client, *response)
