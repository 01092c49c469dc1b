import json

import pytest

from wire.problem import error_type, problem, problem_response


def test_members_without_a_value_are_left_out() -> None:
    assert json.loads(problem(404, "function-not-found", "No such function")) == {
        "type": "urn:nvcf:problem-details:function-not-found",
        "title": "Not Found",
        "status": 404,
        "detail": "No such function",
        "message": "No such function",
        "error": {
            "message": "No such function",
            "type": "not_found_error",
            "code": "function_not_found",
        },
    }


def test_all_members() -> None:
    document = problem(
        413,
        "body-too-large",
        'A "quoted" détail',
        instance="/v1/x",
        request_id="id",
        reason="too_large",
        source="inference-service",
        limit_bytes=5,
    )
    assert json.loads(document) == {
        "type": "urn:inference-service:problem-details:body-too-large",
        "title": "Content Too Large",
        "status": 413,
        "detail": 'A "quoted" détail',
        "instance": "/v1/x",
        "requestId": "id",
        "reason": "too_large",
        "limit_bytes": 5,
        "message": 'A "quoted" détail',
        "error": {
            "message": 'A "quoted" détail',
            "type": "invalid_request_error",
            "code": "too_large",
        },
    }


def test_a_response_has_its_headers_in_order_and_the_id_only_if_asked() -> None:
    given = [(b"retry-after", b"1")]
    content_type = (b"content-type", b"application/problem+json")
    headers, body = problem_response(
        503,
        "draining",
        "Stop",
        instance="/x",
        request_id="id",
        reason="draining",
        headers=given,
    )
    ids = [(b"nvcf-reqid", b"id"), (b"x-request-id", b"id")]
    assert headers == [*given, content_type, *ids]
    assert body == problem(
        503, "draining", "Stop", instance="/x", request_id="id", reason="draining"
    )
    for request_id, id_header in (("", True), ("id", False)):
        headers, _ = problem_response(
            404, "not-found", "No", instance="/", request_id=request_id, id_header=id_header
        )
        assert headers == [content_type]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (504, "server_error"),
    ],
)
def test_the_type_of_an_error_is_named_as_sdks_know_it(status: int, expected: str) -> None:
    assert error_type(status) == expected
