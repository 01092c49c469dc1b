import json
from collections.abc import Iterator

import pytest

from gateway.errors import (
    BadRequest,
    FunctionNotFound,
    GatewayError,
    PollTimeout,
    QueueFullError,
    Unauthenticated,
    problem_for,
)
from wire.http1 import HeadError


def every_class(root: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    yield root
    for child in root.__subclasses__():
        yield from every_class(child)


@pytest.mark.parametrize("kind", list(every_class()), ids=lambda kind: kind.__name__)
def test_every_error_answers_with_a_complete_problem_document(kind: type[GatewayError]) -> None:
    status, headers, body = problem_for(kind(), "/v1/things", "the-request-id")
    document = json.loads(body)
    assert 400 <= status < 600
    assert document["status"] == status
    assert document["type"] == f"urn:nvcf:problem-details:{kind.kind}"
    assert document["title"]
    assert document["detail"]
    assert document["instance"] == "/v1/things"
    assert document["requestId"] == "the-request-id"
    assert document.get("reason", "") == kind.reason
    assert (b"content-type", b"application/problem+json") in headers


def test_an_unknown_failure_tells_nothing_of_its_cause() -> None:
    status, _, body = problem_for(RuntimeError("password=hunter2"), "/", "")
    assert status == 500
    assert b"hunter2" not in body


def test_bytes_that_break_the_wire_contract_keep_their_own_status() -> None:
    assert problem_for(HeadError("too long", 431), "", "")[0] == 431
    assert problem_for(HeadError("bad"), "", "")[0] == 400


def test_a_missing_credential_is_told_with_the_scheme_to_use() -> None:
    assert (b"www-authenticate", b"Bearer") in problem_for(Unauthenticated(), "", "")[1]


def test_headers_and_members_of_one_error_do_not_reach_the_next() -> None:
    error = QueueFullError("full")
    error.headers.append((b"nvcf-queue-position", b"7"))
    assert (b"nvcf-queue-position", b"7") in problem_for(error, "", "")[1]
    assert problem_for(QueueFullError(), "", "")[1] == [
        (b"retry-after", b"1"),
        (b"content-type", b"application/problem+json"),
    ]
    assert PollTimeout().headers == []


def test_headers_given_come_beside_those_of_the_class() -> None:
    error = Unauthenticated("no", [(b"x-hint", b"1")])
    assert error.headers == [(b"www-authenticate", b"Bearer"), (b"x-hint", b"1")]
    assert BadRequest("no", [(b"allow", b"GET")]).headers == [(b"allow", b"GET")]


def test_further_members_stand_in_the_document() -> None:
    error = FunctionNotFound("not deployed", functionStatus="INACTIVE")
    assert json.loads(problem_for(error, "", "")[2])["functionStatus"] == "INACTIVE"
