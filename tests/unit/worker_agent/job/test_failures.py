"""Whose fault it is, as callers are told."""

import json

import pytest

from gateway.attach.faults import FAULTS
from http1.stream import Defect, Failure
from wire.http1 import parse_inner_head
from worker_agent.job.failures import (
    CONNECTION,
    INTERNAL,
    RUN_TIMEOUT,
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
    assert {fault_of(failure).status for failure in Failure} == {500, 502}


def test_the_caller_is_told_what_makes_a_response_invalid() -> None:
    fault = fault_of(Failure.INVALID, Defect("folded_line", "A header line is folded", "x-a"))
    assert (fault.source, fault.status, fault.kind) == ("inference-service", 502, "bad-gateway")
    assert fault.detail == (
        "The inference server's response is not valid HTTP: A header line is folded (x-a)"
    )
    document = json.loads(problem_response(fault, "the-id").partition(b"\r\n\r\n")[2])
    assert (document["status"], document["title"]) == (502, "Bad Gateway")


def test_the_gateway_knows_the_word_of_every_fault() -> None:
    faults = [INTERNAL, RUN_TIMEOUT, *(fault_of(failure) for failure in Failure)]
    assert {fault.word for fault in faults} == set(FAULTS)


def test_the_answer_is_a_whole_response_with_a_problem_document() -> None:
    answer = problem_response(CONNECTION, "the-id")
    parsed = parse_inner_head(answer)
    assert parsed is not None
    head, body_at = parsed
    assert head.status == 500
    assert head.headers == [
        (b"content-type", b"application/problem+json"),
        (b"x-should-retry", b"false"),
    ]
    assert head.body_bytes == len(answer) - body_at
    assert json.loads(answer[body_at:]) == {
        "type": "urn:inference-connection:problem-details:internal-server-error",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "Inference connection error while making inference request",
        "requestId": "the-id",
        "message": "Inference connection error while making inference request",
        "error": {
            "message": "Inference connection error while making inference request",
            "type": "server_error",
            "code": "internal_server_error",
        },
    }
