"""Requests that are answered at once."""

import os

from gateway.errors import GatewayError, problem_for
from gateway.telemetry.health import Health
from http1.stream import Headers, Request, ResponseWriter
from wire.ids import uuid4_text
from wire.problem import instance_of


class Answered:
    """A request that got its answer at once: what follows of it is dropped."""

    __slots__ = ()

    def request_data(self, data: bytes) -> None:
        """Dropped."""

    def first_part_end(self) -> None:
        """Dropped."""

    def request_end(self) -> None:
        """Dropped."""

    def request_broken(self) -> None:
        """Nothing was held for it."""

    def pause_writing(self) -> None:
        """The answer is small."""

    def resume_writing(self) -> None:
        """The answer is small."""


ANSWERED = Answered()


def answer_problem(request: Request, client: ResponseWriter, error: GatewayError) -> int:
    """Answer with the problem of ``error``, under an id of its own; return its status."""
    request_id = uuid4_text(os.urandom(16))
    status, headers, body = problem_for(error, instance_of(request.target), request_id)
    answer_whole(request, client, status, headers, body)
    return status


def answer_whole(
    request: Request, client: ResponseWriter, status: int, headers: Headers, body: bytes
) -> Answered:
    """Answer at once; what follows of the request is dropped."""
    client.send_head(status, headers, len(body))
    if body and request.method != b"HEAD":
        client.send_data(body)
    client.send_end()
    return ANSWERED


def answer_health(
    request: Request, client: ResponseWriter, health: Health, path: bytes, otherwise: GatewayError
) -> Answered:
    """Answer ``path`` if it is a health path, and ``otherwise`` if it is not."""
    answer = health.answer(path)
    if answer is None:
        answer_problem(request, client, otherwise)
        return ANSWERED
    return answer_whole(request, client, *answer)
