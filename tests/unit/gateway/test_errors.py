import json
from collections.abc import Iterator

import pytest

from gateway.errors import (
    BadRequest,
    ForwardedError,
    FunctionNotFound,
    GatewayError,
    PollTimeout,
    RateLimited,
    StoreUnavailable,
    Unauthenticated,
    problem_for,
)
from queueing.interface import QueueFull, QueueUnavailable
from wire.headers import EXPOSED_HEADERS
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
    assert document["message"] == document["detail"]
    assert document["error"]["message"] == document["detail"]
    assert document["error"]["code"] == (kind.reason or kind.kind.replace("-", "_"))
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
    error = StoreUnavailable("away")
    error.headers.append((b"nvcf-queue-position", b"7"))
    assert (b"nvcf-queue-position", b"7") in problem_for(error, "", "")[1]
    assert problem_for(StoreUnavailable(), "", "")[1] == [
        (b"retry-after", b"1"),
        (b"content-type", b"application/problem+json"),
    ]
    assert PollTimeout().headers == [(b"x-should-retry", b"false"), (b"retry-after", b"1")]


def test_headers_given_come_beside_those_of_the_class() -> None:
    error = Unauthenticated("no", [(b"x-hint", b"1")])
    assert error.headers == [(b"www-authenticate", b"Bearer"), (b"x-hint", b"1")]
    assert BadRequest("no", [(b"allow", b"GET")]).headers == [(b"allow", b"GET")]


def test_further_members_stand_in_the_document() -> None:
    error = FunctionNotFound("not deployed", functionStatus="INACTIVE")
    assert json.loads(problem_for(error, "", "")[2])["functionStatus"] == "INACTIVE"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [(QueueFull("full"), 429, "queue-full"), (QueueUnavailable("down"), 503, "queue-unavailable")],
)
def test_errors_of_the_queue_are_answered_with_their_reason(
    error: Exception, status: int, kind: str
) -> None:
    found, headers, body = problem_for(error, "/", "id", id_header=False)
    document = json.loads(body)
    assert found == document["status"] == status
    assert document["type"] == f"urn:nvcf:problem-details:{kind}"
    assert document["reason"] == kind.replace("-", "_")
    assert document["detail"] == str(error)
    assert headers == [(b"retry-after", b"1"), (b"content-type", b"application/problem+json")]


def test_a_forwarded_error_keeps_the_status_that_it_came_with() -> None:
    status, _, body = problem_for(ForwardedError("no", status=418, kind="teapot"), "/", "")
    assert (status, json.loads(body)["type"]) == (418, "urn:nvcf:problem-details:teapot")
    assert problem_for(GatewayError(), "/", "")[0] == 500


def test_the_cause_is_for_logs_and_not_for_callers() -> None:
    error = StoreUnavailable(cause="nats://user@host refuses")
    assert str(error) == "nats://user@host refuses"
    assert error.detail == StoreUnavailable.summary
    assert b"nats" not in problem_for(error, "/", "")[2]


def test_pages_may_read_what_a_rate_limit_says() -> None:
    error = RateLimited("used up", limit=2, retry_after_s=30, reset_at=90)
    names = [name for name, _ in error.headers]
    assert names == [
        b"retry-after",
        b"x-ratelimit-limit",
        b"x-ratelimit-remaining",
        b"x-ratelimit-reset",
    ]
    assert set(names) <= set(EXPOSED_HEADERS)
