"""Requests that are answered at once."""

import os

from gateway.errors import GatewayError, problem_for
from gateway.telemetry.health import Health
from http1.stream import Headers, Request, Responder
from wire.ids import uuid4_text
from wire.problem import REQUEST_ID, instance_of


class Answered:
    """A request that got its answer at once: what follows of it is dropped."""

    __slots__ = ()

    def body(self, data: bytes) -> None:
        """Dropped."""

    def arrived(self) -> None:
        """Dropped."""

    def body_end(self) -> None:
        """Dropped."""

    def gone(self) -> None:
        """Nothing was held for it."""

    def congested(self) -> None:
        """The answer is small."""

    def relieved(self) -> None:
        """The answer is small."""


ANSWERED = Answered()


def answer_problem(request: Request, client: Responder, error: GatewayError) -> int:
    """Answer with the problem of ``error``, under an id of its own; return its status."""
    request_id = uuid4_text(os.urandom(16))
    status, headers, body = problem_for(error, instance_of(request.target), request_id)
    headers.append((REQUEST_ID, request_id.encode()))
    answer_whole(request, client, status, headers, body)
    return status


def answer_whole(
    request: Request, client: Responder, status: int, headers: Headers, body: bytes
) -> Answered:
    """Answer at once; what follows of the request is dropped."""
    client.send_head(status, headers, len(body))
    if body and request.method != b"HEAD":
        client.send_body(body)
    client.end()
    return ANSWERED


def answer_health(
    request: Request, client: Responder, health: Health, path: bytes, otherwise: GatewayError
) -> Answered:
    """Answer ``path`` if it is a health path, and ``otherwise`` if it is not."""
    answer = health.answer(path)
    if answer is None:
        answer_problem(request, client, otherwise)
        return ANSWERED
    return answer_whole(request, client, *answer)
