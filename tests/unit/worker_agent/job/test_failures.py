"""Whose fault it is, as callers are told."""

import json

import pytest

from gateway.attach.faults import FAULTS
from http1.stream import Failure
from wire.http1 import parse_inner_head
from worker_agent.job.failures import (
    CLOSED,
    CONNECTION,
    INTERNAL,
    SERVICE,
    fault_of,
    problem_response,
)


@pytest.mark.parametrize(
    ("failure", "source"),
    [
        (Failure.UNREACHABLE, "inference-connection"),
        (Failure.RESET, "inference-connection"),
        (Failure.CLOSED, "nvcf-worker-service"),
        (Failure.INVALID, "inference-service"),
    ],
)
def test_each_failure_has_the_source_of_the_specification(failure: Failure, source: str) -> None:
    assert fault_of(failure).source == source


def test_every_failure_is_mapped() -> None:
    assert {fault_of(failure) for failure in Failure} == {CONNECTION, CLOSED, SERVICE}


def test_the_gateway_knows_the_word_of_every_fault() -> None:
    assert {fault.word for fault in (CONNECTION, CLOSED, SERVICE, INTERNAL)} == set(FAULTS)


def test_the_answer_is_a_whole_response_with_a_problem_document() -> None:
    answer = problem_response(CONNECTION, "the-id")
    parsed = parse_inner_head(answer)
    assert parsed is not None
    head, body_at = parsed
    assert head.status == 500
    assert head.headers == [(b"content-type", b"application/problem+json")]
    assert head.body_bytes == len(answer) - body_at
    assert json.loads(answer[body_at:]) == {
        "type": "urn:inference-connection:problem-details:internal-server-error",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "Inference connection error while making inference request",
        "requestId": "the-id",
    }
